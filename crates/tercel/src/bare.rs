//! A model without a tokenizer: token ids in, logits out.

use std::ops::ControlFlow;

use tercel_nn::{Chunk, KvType, NnError, Options, PrefixCache, Runner, SequenceId, Wanted};

use crate::TokenId;
use crate::builder::{check_memory, target};
use crate::error::Error;
use crate::files::{MemoryUse, ModelFiles, ModelSummary, resolve_context, summary};
use crate::machine;
use crate::model::{MAX_ROWS, options};

/// How a [`BareModel`] is loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BareOptions {
    /// Tokens of the longest sequence; by default what an engine takes.
    pub max_context: Option<usize>,
    /// Compute threads; by default the number of physical cores.
    pub threads: Option<usize>,
    /// As [`EngineBuilder::exact`](crate::EngineBuilder::exact).
    pub exact: bool,
    /// As [`EngineBuilder::quantize`](crate::EngineBuilder::quantize).
    pub quantize: Option<String>,
}

/// The weights of a model, without its tokenizer, its template or a thread of its own: for
/// validation, which looks at every logit. Holds one sequence of tokens.
pub struct BareModel {
    summary: ModelSummary,
    runner: Runner,
    sequence: SequenceId,
    max_context: usize,
    held: usize,
}

impl BareModel {
    /// Loads the weights of a model.
    ///
    /// # Errors
    /// An option out of range, a model that cannot be loaded, or too little memory.
    pub fn load(files: &ModelFiles, settings: &BareOptions) -> Result<Self, Error> {
        let threads = settings.threads.unwrap_or_else(machine::physical_cores);
        let most = machine::most_threads();
        if !(1..=most).contains(&threads) {
            let range = format!("1 to {most}");
            return Err(Error::invalid_parameter(
                "threads",
                threads.to_string(),
                range,
            ));
        }
        let weights = target(settings.quantize.as_deref(), settings.exact)?;
        let checkpoint = files.checkpoint()?;
        let summary = summary(files, &checkpoint)?;
        let max_context = resolve_context(settings.max_context, summary.trained_context)?;
        let options = Options {
            weights,
            kv_type: if settings.exact {
                KvType::F32
            } else {
                KvType::F16
            },
            prefix_cache: PrefixCache {
                enabled: false,
                ..PrefixCache::default()
            },
            ..options(max_context, Some(1), MAX_ROWS, threads)
        };
        let wrong = |error: NnError| files.model_error(error);
        let needed = Runner::estimate(&checkpoint, &options).map_err(wrong)?;
        // It has no tokenizer.
        let needed = MemoryUse::of(&needed, 0);
        check_memory(&needed, machine::available_bytes())?;
        let runner = Runner::load(&checkpoint, &options, &mut |packed| {
            files.release_storage(packed.source);
            ControlFlow::Continue(())
        });
        let mut runner = runner.map_err(wrong)?;
        let sequence = runner.add_sequence().map_err(wrong)?;
        Ok(Self {
            summary,
            runner,
            sequence,
            max_context,
            held: 0,
        })
    }

    /// What it is.
    pub fn summary(&self) -> &ModelSummary {
        &self.summary
    }

    /// Tokens that the sequence may have.
    pub fn max_context(&self) -> usize {
        self.max_context
    }

    /// Forgets all tokens.
    ///
    /// # Errors
    /// A failure of the computation.
    pub fn clear(&mut self) -> Result<(), Error> {
        self.runner.remove_sequence(self.sequence);
        self.sequence = self.runner.add_sequence().map_err(Error::Inference)?;
        self.held = 0;
        Ok(())
    }

    /// Appends tokens to the sequence and shows the logits after each, with its number among
    /// `tokens`.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] for an id that the model does not have,
    /// [`Error::ContextOverflow`], or a failure of the computation.
    pub fn append(
        &mut self,
        tokens: &[TokenId],
        mut row: impl FnMut(usize, &[f32]),
    ) -> Result<(), Error> {
        let vocab_size = self.summary.vocab_size;
        if let Some(id) = tokens.iter().find(|id| **id as usize >= vocab_size) {
            let range = format!("ids below {vocab_size}");
            return Err(Error::invalid_parameter(
                "tokens",
                format!("a list with {id}"),
                range,
            ));
        }
        if tokens.len() > self.max_context - self.held {
            return Err(Error::ContextOverflow {
                prompt_tokens: self.held.saturating_add(tokens.len()),
                max_context: self.max_context,
            });
        }
        let mut before = 0;
        for tokens in tokens.chunks(MAX_ROWS) {
            let chunk = Chunk {
                sequence: self.sequence,
                tokens,
                wanted: Wanted::All,
            };
            let logits = self.runner.forward(&[chunk]).map_err(Error::Inference)?;
            (0..logits.rows()).for_each(|i| row(before + i, logits.row(i)));
            before += tokens.len();
            self.held += tokens.len();
        }
        Ok(())
    }
}

impl std::fmt::Debug for BareModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BareModel")
            .field("summary", &self.summary)
            .finish_non_exhaustive()
    }
}
