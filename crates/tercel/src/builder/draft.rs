//! The smaller model that guesses for another one.

use std::ops::ControlFlow;

use tercel_nn::{Memory, NnError, Options, PrefixCache, Runner, Target, Workers};
use tercel_text::Tokenizer;

use crate::draft::Drafter;
use crate::error::Error;
use crate::files::{ModelFiles, summary};
use crate::source::LocalModel;
use crate::speculate::MAX_DRAFT;

/// A draft model whose files are there.
pub(super) struct DraftModel {
    name: String,
    files: ModelFiles,
    options: Options,
    pub(super) needed: Memory,
}

impl DraftModel {
    /// Looks at the files, for a model that runs with `options`.
    pub(super) fn new(name: String, local: &LocalModel, options: &Options) -> Result<Self, Error> {
        let files = ModelFiles::of(local)?;
        let checkpoint = files.checkpoint()?;
        let trained = summary(&files, &checkpoint)?.trained_context;
        let options = Options {
            max_context: options.max_context.min(trained),
            weights: Target::AsStored,
            // It follows texts from their beginning, and takes back what proves wrong.
            prefix_cache: PrefixCache {
                enabled: false,
                ..PrefixCache::default()
            },
            max_rollback: MAX_DRAFT,
            ..options.clone()
        };
        let needed = Runner::estimate(&checkpoint, &options).map_err(|e| files.model_error(e))?;
        drop(checkpoint);
        Ok(Self {
            name,
            files,
            options,
            needed,
        })
    }

    /// Loads it beside a model with this tokenizer, on the same threads.
    pub(super) fn load(
        mut self,
        of: &Tokenizer,
        workers: &Workers,
        cancel: &dyn Fn() -> bool,
    ) -> Result<Drafter, Error> {
        let files = &self.files;
        let checkpoint = files.checkpoint()?;
        let tokenizer = files.tokenizer_of(&checkpoint)?;
        if !same_vocabulary(of, &tokenizer) {
            return Err(refused(&self.name, "a model with the same vocabulary"));
        }
        self.options.workers = Some(workers.clone());
        let runner = Runner::load(&checkpoint, &self.options, &mut |packed| {
            files.release_storage(packed.source);
            if cancel() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        let runner = runner.map_err(|error: NnError| files.model_error(error))?;
        if !runner.can_roll_back() {
            return Err(refused(&self.name, "a model without recurrent layers"));
        }
        Ok(Drafter::new(Box::new(runner), self.options.max_context))
    }
}

/// A guess must mean the same token to both.
fn same_vocabulary(a: &Tokenizer, b: &Tokenizer) -> bool {
    a.vocab_size() == b.vocab_size()
        && (0..a.vocab_size() as u32)
            .all(|id| a.token(id) == b.token(id) && a.piece(id) == b.piece(id))
}

fn refused(name: &str, wanted: &str) -> Error {
    Error::invalid_parameter("draft", name, wanted)
}
