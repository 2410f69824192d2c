//! The load itself: every check before the first allocation, then weights, tokenizer, thread.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use tercel_formats::Checkpoint;
use tercel_nn::{KvType, NnError, Options, Packed, QUANTIZABLE, Runner, Target, Workers};
use tercel_text::{ChatTemplate, Tokenizer};

use super::EngineBuilder;
use super::draft::DraftModel;
use crate::engine::{Engine, Info, Parts};
use crate::error::Error;
use crate::files::{MemoryUse, ModelFiles, defaults, resolve_context, summary};
use crate::guide::Room;
use crate::lifecycle::{LoadReport, LoadTimer, State};
use crate::machine;
use crate::memory::{AdmissionError, Cancellation, Ledger, Ticket};
use crate::model::options;
use crate::queue::Queue;
use crate::request::Template;
use crate::scheduler::{Caps, Control, Scheduler};
use crate::source::{self, LocalModel, Phase, Progress, ProgressTracker, Store};
use crate::wake::Wake;

/// How often a load that waits asks whether it is given up.
const BETWEEN_QUESTIONS: Duration = Duration::from_millis(10);

impl EngineBuilder {
    /// Finds or fetches the model, loads it, and starts the engine's thread.
    ///
    /// # Errors
    /// A parameter out of range; [`Error::Source`] where the model cannot be had; a file that
    /// cannot be read or is no model of a known kind; [`Error::InsufficientMemory`] before anything
    /// is allocated; [`Error::Template`] for a template of [`EngineBuilder::template`] that does
    /// not compile; [`Error::Cancelled`].
    pub fn load(mut self) -> Result<Engine, Error> {
        let started = Instant::now();
        let mut timer = LoadTimer::start(std::mem::take(&mut self.hooks));
        let threads = self.checked_threads()?;
        let weights = self.checked_weights()?;
        // Errors that need no model come before a download.
        self.sampling.validate()?;
        let template = self
            .template
            .as_deref()
            .map(Template::compile)
            .transpose()?;

        let mut on_progress = std::mem::replace(&mut self.on_progress, Box::new(|_| {}));
        let mut sink = |progress: Progress| on_progress(&progress);
        let mut tracker = ProgressTracker::new(self.model.clone(), Some(&mut sink));
        let store = match self.store.take() {
            Some(store) => store,
            None => Store::open_default()?,
        };
        let local = self.fetch(&store, &self.model, &mut tracker)?;
        let draft = match self.draft.take() {
            Some(name) => Some((self.fetch(&store, &name, &mut tracker)?, name)),
            None => None,
        };
        tracker.part(Phase::Loading, 0.0);

        let files = Arc::new(ModelFiles::of(&local)?);
        let checkpoint = files.checkpoint()?;
        let model = summary(&files, &checkpoint)?;
        let usual = self
            .usual_context
            .map(|usual| usual.min(model.trained_context));
        let max_context = resolve_context(self.max_context.or(usual), model.trained_context)?;
        if let Some(tokens) = self.kv_tokens.filter(|tokens| *tokens < max_context) {
            let range = format!("at least one context, {max_context}");
            return Err(Error::invalid_parameter(
                "kv_tokens",
                tokens.to_string(),
                range,
            ));
        }
        let defaults = options(max_context, self.max_sequences, self.prefill_chunk, threads);
        let max_sequences = defaults.max_sequences;
        let options = Options {
            weights,
            kv_type: if self.exact {
                KvType::F32
            } else {
                self.kv_type
            },
            kv_tokens: self.kv_tokens.or(defaults.kv_tokens),
            prefix_cache: self.prefix_cache.clone(),
            commit: self.commit_memory,
            workers: self.workers.clone(),
            ..defaults
        };
        let draft = draft.map(|(local, name)| DraftModel::new(name, &local, &options));
        let draft = draft.transpose()?;
        let needed = Runner::estimate(&checkpoint, &options).map_err(|e| files.model_error(e))?;
        timer.reached(State::AssetsVerified);
        let tokenizer_bytes = files.tokenizer_bytes(&checkpoint, model.vocab_size);
        let draft_bytes = draft.as_ref().map_or(0, |draft| draft.needed.total());
        let needed = MemoryUse::of(&needed, tokenizer_bytes).with_draft(draft_bytes);
        timer.make_room(&needed)?;
        check_memory(&needed, machine::available_bytes())?;
        let ticket = self.ticket(&needed)?;
        let room = Room {
            ledger: self.own_ledger().clone(),
            policy: self.memory_policy.clone(),
            model: self.model.clone(),
        };

        let options = match draft {
            // One pool for both, since they compute in turn.
            Some(_) if options.workers.is_none() => Options {
                workers: Some(Workers::new(threads).map_err(Error::Inference)?),
                ..options
            },
            _ => options,
        };
        let fingerprint = files.fingerprint(&checkpoint, &format!("{weights:?}"));
        let (runner, tokenizer) =
            self.load_parts(&files, &checkpoint, &options, &mut tracker, &mut timer)?;
        check_vocabulary(&tokenizer, model.vocab_size).map_err(|e| files.model_error(e))?;
        let drafter = match (draft, &options.workers) {
            (Some(draft), Some(workers)) => {
                if !runner.can_roll_back() {
                    let range = "left out for a model with recurrent layers";
                    return Err(Error::invalid_parameter("draft", "set", range));
                }
                Some(draft.load(&tokenizer, workers, &*self.cancel)?)
            }
            _ => None,
        };
        let (sampling, mut notes) = defaults::of_files(&files, &checkpoint);
        notes.extend(model.left_out.iter().cloned());
        let template = match template {
            Some(template) => template,
            None => own_template(&files, &checkpoint, &mut notes),
        };
        let info = Info {
            id: self.model,
            path: local.path,
            file_bytes: local.size_bytes,
            fingerprint,
            model,
            max_context,
            max_sequences,
            has_template: template.source().is_some(),
            backend: runner.backend().to_owned(),
            threads: runner.threads(),
            memory: needed,
            load_seconds: 0.0,
            load_report: LoadReport::default(),
            notes,
        };
        timer.reached(State::RuntimeInitialized);

        let tokenizer = Arc::new(tokenizer);
        let control = Arc::new(Control::default());
        let wake = Arc::new(Wake::default());
        let queue = Arc::new(Queue::new(self.queue_capacity, wake));
        let caps = Caps {
            max_context,
            prefill_chunk: self.prefill_chunk,
            max_sequences,
            max_batch_tokens: self.max_batch_tokens.unwrap_or(usize::MAX),
            max_batch_wait: self.max_batch_wait,
            memory_budget: self.memory_budget,
        };
        let scheduler = Scheduler::new(
            runner,
            Arc::clone(&tokenizer),
            Arc::clone(&control),
            Arc::clone(&queue),
            caps,
        )
        .with_drafter(drafter);
        let thread = thread::Builder::new()
            .name("tercel-engine".to_owned())
            .spawn(move || scheduler.run())
            .map_err(|error| Error::Internal {
                message: format!("no thread: {error}"),
            })?;
        timer.reached(State::BuffersAllocated);
        tracker.ready();
        let info = Info {
            load_seconds: started.elapsed().as_secs_f64(),
            load_report: timer.into_report(),
            ..info
        };
        Ok(Engine::new(Parts {
            info,
            tokenizer,
            template,
            sampling: self.sampling.or(&sampling),
            speculation: self.speculation,
            lenient: self.lenient,
            ticket,
            room,
            queue,
            control,
            thread,
        }))
    }

    fn checked_threads(&self) -> Result<usize, Error> {
        let between = |field, value: usize, most: usize| {
            if (1..=most).contains(&value) {
                return Ok(value);
            }
            Err(Error::invalid_parameter(
                field,
                value.to_string(),
                format!("1 to {most}"),
            ))
        };
        between("prefill_chunk", self.prefill_chunk, 4096)?;
        between("max_sequences", self.max_sequences.unwrap_or(1), 256)?;
        between("queue_capacity", self.queue_capacity, 1 << 20)?;
        self.threads.map_or_else(
            || Ok(machine::physical_cores()),
            |threads| between("threads", threads, machine::most_threads()),
        )
    }

    fn own_ledger(&self) -> &Ledger {
        self.ledger.as_ref().unwrap_or_else(|| Ledger::process())
    }

    /// The engine's entry in the ledger. Where a host has made room, the host has noted it.
    fn ticket(&self, needed: &MemoryUse) -> Result<Option<Ticket>, Error> {
        if self.is_hosted {
            return Ok(None);
        }
        let ledger = self.own_ledger();
        let (policy, name) = (self.memory_policy.clone(), self.model.clone());
        let needed = needed.breakdown();
        let ticket = if self.wait_for_memory {
            let cancel = Arc::clone(&self.cancel);
            ledger.admit(policy, needed, name, &Cancellation::when(move || cancel()))
        } else {
            ledger.try_admit(policy, needed, name)
        };
        ticket.map(Some).map_err(|error| match error {
            AdmissionError::Cancelled => Error::Cancelled,
            refused => Error::Admission(refused),
        })
    }

    fn checked_weights(&self) -> Result<Target, Error> {
        target(self.quantize.as_deref(), self.exact)
    }

    fn fetch(
        &self,
        store: &Store,
        model: &str,
        tracker: &mut ProgressTracker<'_>,
    ) -> Result<LocalModel, Error> {
        let model = store.parse(model)?;
        let mut relay = |progress| tracker.relay(progress);
        let mut control = source::Control::new()
            .on_progress(&mut relay)
            .cancel_when(&*self.cancel)
            .offline(self.offline);
        Ok(store.fetch(&model, &mut control)?)
    }

    /// Packs the weights here while the tokenizer is built on a second thread. A load that is given
    /// up does not wait for that thread, which ends by itself.
    fn load_parts(
        &self,
        files: &Arc<ModelFiles>,
        checkpoint: &Checkpoint<'_>,
        options: &Options,
        tracker: &mut ProgressTracker<'_>,
        timer: &mut LoadTimer,
    ) -> Result<(Runner, Tokenizer), Error> {
        let internal = |message: &str| Error::Internal {
            message: message.to_owned(),
        };
        let (sender, built) = sync_channel(1);
        let of_thread = Arc::clone(files);
        let build = move || {
            let checkpoint = of_thread.checkpoint()?;
            of_thread.tokenizer_of(&checkpoint)
        };
        thread::Builder::new()
            .name("tercel-tokenizer".to_owned())
            .spawn(move || {
                // Nobody waits for it where the load was given up.
                let _ = sender.send(build());
            })
            .map_err(|error| internal(&format!("no thread: {error}")))?;
        let mut progress = |packed: Packed<'_>| {
            tracker.part(Phase::Loading, f64::from(packed.share));
            files.release_storage(packed.source);
            if (self.cancel)() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        let runner = Runner::load(checkpoint, options, &mut progress);
        let runner = runner.map_err(|error| files.model_error(error))?;
        timer.reached(State::WeightsLoaded);
        loop {
            match built.recv_timeout(BETWEEN_QUESTIONS) {
                Ok(tokenizer) => return Ok((runner, tokenizer?)),
                Err(RecvTimeoutError::Timeout) if (self.cancel)() => return Err(Error::Cancelled),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(internal("the tokenizer could not be built"));
                }
            }
        }
    }
}

/// What is to become of the weights.
pub(crate) fn target(quantize: Option<&str>, exact: bool) -> Result<Target, Error> {
    match quantize {
        None if exact => Ok(Target::Exact),
        None => Ok(Target::AsStored),
        Some(name) if exact => Err(Error::invalid_parameter(
            "quantize",
            name,
            "left out where `exact` is set",
        )),
        Some(name) => {
            let known = QUANTIZABLE
                .iter()
                .find(|dtype| dtype.name().eq_ignore_ascii_case(name));
            let names = QUANTIZABLE
                .map(|dtype| dtype.name().to_lowercase())
                .join(", ");
            known.map(|dtype| Target::Quantize(*dtype)).ok_or_else(|| {
                Error::invalid_parameter("quantize", name, format!("one of {names}"))
            })
        }
    }
}

/// The model's own template. One that does not compile is no reason not to load: the model can
/// still continue text, and a conversation gets the error.
fn own_template(
    files: &ModelFiles,
    checkpoint: &Checkpoint<'_>,
    notes: &mut Vec<String>,
) -> Template {
    let source = match files.template(checkpoint) {
        Ok(Some(source)) => source,
        Ok(None) => return Template::Missing,
        Err(error) => {
            notes.push(format!("the model's chat template cannot be used: {error}"));
            return Template::Missing;
        }
    };
    match ChatTemplate::new(&source) {
        Ok(compiled) => Template::Ready(Box::new(compiled)),
        Err(error) => {
            notes.push(format!("the model's chat template cannot be used: {error}"));
            Template::Broken(source)
        }
    }
}

/// Every id that the tokenizer gives must have an embedding.
fn check_vocabulary(tokenizer: &Tokenizer, vocab_size: usize) -> Result<(), NnError> {
    if tokenizer.vocab_size() <= vocab_size {
        return Ok(());
    }
    let problem = format!(
        "has {} tokens, the model has {vocab_size}",
        tokenizer.vocab_size()
    );
    Err(NnError::Config {
        field: "tokenizer.ggml.tokens".to_owned(),
        problem,
    })
}

pub(crate) fn check_memory(needed: &MemoryUse, available: Option<u64>) -> Result<(), Error> {
    match available {
        Some(available_bytes) if needed.total_bytes as u64 > available_bytes => {
            Err(Error::InsufficientMemory {
                needed: needed.clone(),
                available_bytes,
            })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use tercel_nn::{KvPart, Memory};

    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_with_the_breakdown() {
        let needed = Memory {
            weights_bytes: 300 << 20,
            kv: vec![KvPart {
                window: None,
                layers: 1,
                page_bytes: 1 << 20,
                pages: 100,
                bytes: 100 << 20,
            }],
            recurrent_bytes: 0,
            workspace_bytes: 1,
            prefix_cache_bytes: 0,
        };
        let needed = MemoryUse::of(&needed, 0);
        check_memory(&needed, None).expect("unknown is not too little");
        check_memory(&needed, Some(401 << 20)).expect("it fits");
        let error = check_memory(&needed, Some(400 << 20)).expect_err("one byte too many");
        assert_eq!(error.kind(), "insufficient_memory");
        assert_eq!(
            error.to_string(),
            "the model needs 401 MB (weights 300, KV cache 100, recurrent state 0, workspace 1, \
             prefix cache 0, tokenizer 0, draft model 0), 400 MB are available"
        );
        assert!(error.hint().expect("a hint").contains("--max-context"));
        let error = check_memory(&needed, Some(1 << 20)).expect_err("far too many");
        assert!(error.hint().expect("a hint").contains("smaller model"));
    }

    #[test]
    fn parameters_are_checked_before_anything_is_fetched() {
        let refused = |builder: EngineBuilder| builder.load().expect_err("refused").to_string();
        let builder = || Engine::builder("no such model anywhere");
        assert_eq!(
            refused(builder().threads(0)),
            format!("`threads` is 0, must be 1 to {}", machine::most_threads())
        );
        assert!(refused(builder().prefill_chunk(0)).contains("`prefill_chunk` is 0"));
        assert!(refused(builder().template("{% for %}")).contains("chat template"));
    }
}
