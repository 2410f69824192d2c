//! From a model's name to an engine.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tercel_formats::Checkpoint;
use tercel_nn::{KvType, NnError, Options, Packed, PrefixCache, QUANTIZABLE, Runner, Target};
use tercel_text::{ChatTemplate, Tokenizer};

use crate::context::ContextOverflow;
use crate::engine::{Engine, Info, Parts};
use crate::error::Error;
use crate::files::{MemoryUse, ModelFiles, defaults, resolve_context, summary};
use crate::lifecycle::{LoadHooks, LoadReport, LoadTimer, State};
use crate::machine;
use crate::model::options;
use crate::queue::Queue;
use crate::request::Template;
use crate::sampling::Sampling;
use crate::scheduler::{Caps, Control, Scheduler};
use crate::source::{self, LocalModel, Phase, Progress, ProgressTracker, Store};
use crate::wake::Wake;

/// Tokens of a prompt per step, unless told otherwise.
pub(crate) const DEFAULT_PREFILL_CHUNK: usize = 256;
/// Requests that may wait, unless told otherwise.
const DEFAULT_QUEUE: usize = 64;

/// How a model is to be loaded. Made by [`Engine::builder`].
#[must_use = "nothing happens before `load`"]
pub struct EngineBuilder {
    model: String,
    max_context: Option<usize>,
    threads: Option<usize>,
    prefill_chunk: usize,
    max_sequences: Option<usize>,
    kv_tokens: Option<usize>,
    kv_type: KvType,
    prefix_cache: PrefixCache,
    queue_capacity: usize,
    max_batch_tokens: Option<usize>,
    max_batch_wait: Duration,
    speculation: bool,
    commit_memory: bool,
    template: Option<String>,
    quantize: Option<String>,
    exact: bool,
    sampling: Sampling,
    store: Option<Store>,
    offline: bool,
    pub(crate) on_progress: Box<dyn FnMut(&Progress) + Send>,
    pub(crate) cancel: Box<dyn Fn() -> bool + Send + Sync>,
    pub(crate) hooks: LoadHooks,
    /// The context where none is asked for, as far as the model was trained for it.
    pub(crate) usual_context: Option<usize>,
}

impl EngineBuilder {
    pub(crate) fn new(model: String) -> Self {
        Self {
            model,
            max_context: None,
            threads: None,
            prefill_chunk: DEFAULT_PREFILL_CHUNK,
            max_sequences: None,
            kv_tokens: None,
            kv_type: KvType::default(),
            prefix_cache: PrefixCache::default(),
            queue_capacity: DEFAULT_QUEUE,
            max_batch_tokens: None,
            max_batch_wait: Duration::ZERO,
            speculation: true,
            commit_memory: false,
            template: None,
            quantize: None,
            exact: false,
            sampling: Sampling::default(),
            store: None,
            offline: false,
            on_progress: Box::new(|_| {}),
            cancel: Box::new(|| false),
            hooks: LoadHooks::default(),
            usual_context: None,
        }
    }

    /// Tokens that prompt and reply may have together: at least 2, at most what the model was
    /// trained for, by default that or 4096, whichever is less. Their memory is taken at load.
    pub fn max_context(mut self, tokens: usize) -> Self {
        self.max_context = Some(tokens);
        self
    }

    /// Compute threads: 1 to four times the processors or 8, whichever is more; by default the
    /// number of physical cores. Results do not depend on it.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Tokens of a prompt that are computed at once: 1 to 4096, by default 256. Larger chunks are
    /// faster, smaller ones make a cancellation count sooner. Results do not depend on it.
    pub fn prefill_chunk(mut self, tokens: usize) -> Self {
        self.prefill_chunk = tokens;
        self
    }

    /// Requests that may be at work at once, 1 to 256, each with a whole context of its own. By
    /// default four, which share the memory of one context: a request that may not fit beside the
    /// others waits for them.
    pub fn max_sequences(mut self, sequences: usize) -> Self {
        self.max_sequences = Some(sequences);
        self
    }

    /// Tokens that all requests at work may hold together, at least one context, in place of a
    /// whole context for each.
    pub fn kv_tokens(mut self, tokens: usize) -> Self {
        self.kv_tokens = Some(tokens);
        self
    }

    /// How keys and values are stored, by default as half floats.
    pub fn kv_type(mut self, kv_type: KvType) -> Self {
        self.kv_type = kv_type;
        self
    }

    /// What is kept of prompts and replies, so that later ones that begin alike are not computed
    /// anew. Results do not depend on it.
    pub fn prefix_cache(mut self, cache: PrefixCache) -> Self {
        self.prefix_cache = cache;
        self
    }

    /// Requests that may wait, by default 64; further ones are refused at once with
    /// [`Error::QueueFull`].
    pub fn queue_capacity(mut self, requests: usize) -> Self {
        self.queue_capacity = requests;
        self
    }

    /// Tokens that the prompts of all requests at work may have together, by default without limit.
    /// A longer one works alone.
    pub fn max_batch_tokens(mut self, tokens: usize) -> Self {
        self.max_batch_tokens = Some(tokens);
        self
    }

    /// How long an idle engine waits for more requests before it begins with the first, by default
    /// not at all, since later ones join anyway.
    pub fn max_batch_wait(mut self, wait: Duration) -> Self {
        self.max_batch_wait = wait;
        self
    }

    /// Whether tokens may be guessed from the text so far and checked several at a time, by default
    /// where that pays. Results do not depend on it.
    pub fn speculation(mut self, speculation: bool) -> Self {
        self.speculation = speculation;
        self
    }

    /// Whether the memory of the whole context is taken from the system at load, and not as it comes
    /// to be used: a load that succeeds then has all it will ever need. By default not, so that a
    /// model of which little is used takes little.
    pub fn commit_memory(mut self, commit: bool) -> Self {
        self.commit_memory = commit;
        self
    }

    /// A chat template (Jinja source) in place of the model's own.
    pub fn template(mut self, source: impl Into<String>) -> Self {
        self.template = Some(source.into());
        self
    }

    /// Quantizes the weights of a checkpoint of floats as they are loaded: `q8_0`, `q6_k`, `q5_k`,
    /// `q5_1`, `q5_0`, `q4_k`, `q4_1` or `q4_0`. Embedding and head get at least six bits; what is
    /// quantized already stays as it is.
    pub fn quantize(mut self, to: impl Into<String>) -> Self {
        self.quantize = Some(to.into());
        self
    }

    /// Computes with single floats throughout: weights, activations, keys and values. For
    /// validation; it takes several times the memory and time. Not together with
    /// [`EngineBuilder::quantize`].
    pub fn exact(mut self, exact: bool) -> Self {
        self.exact = exact;
        self
    }

    /// Defaults for all requests, before those that the model brings. What concerns thoughts counts
    /// in conversations alone.
    pub fn sampling(mut self, sampling: Sampling) -> Self {
        self.sampling = sampling;
        self
    }

    /// What becomes of a prompt that is too long for the context, unless a request or a chat says
    /// otherwise; by default an error.
    pub fn context_overflow(mut self, policy: ContextOverflow) -> Self {
        self.sampling.context_overflow = Some(policy);
        self
    }

    /// Where fetched models are kept, by default [`Store::open_default`].
    pub fn store(mut self, store: Store) -> Self {
        self.store = Some(store);
        self
    }

    /// Forbids the network: the model must be there already.
    pub fn offline(mut self, offline: bool) -> Self {
        self.offline = offline;
        self
    }

    /// Who is told how the load goes. A model that is there reports loading and ready; a load that
    /// fails never reports ready.
    pub fn on_progress(mut self, sink: impl FnMut(&Progress) + Send + 'static) -> Self {
        self.on_progress = Box::new(sink);
        self
    }

    /// Who is asked, again and again during the load, whether to give it up.
    pub fn cancel_when(mut self, cancel: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        self.cancel = Box::new(cancel);
        self
    }

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
        let local = self.fetch(&mut tracker)?;
        tracker.part(Phase::Loading, 0.0);

        let files = ModelFiles::of(&local)?;
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
            ..defaults
        };
        let needed = Runner::estimate(&checkpoint, &options).map_err(|e| files.model_error(e))?;
        timer.reached(State::AssetsVerified);
        let tokenizer_bytes = files.tokenizer_bytes(&checkpoint, model.vocab_size);
        let needed = MemoryUse::of(&needed, tokenizer_bytes);
        timer.make_room(&needed)?;
        check_memory(&needed, machine::available_bytes())?;

        let fingerprint = files.fingerprint(&checkpoint, &format!("{weights:?}"));
        let (runner, tokenizer) =
            self.load_parts(&files, &checkpoint, &options, &mut tracker, &mut timer)?;
        check_vocabulary(&tokenizer, model.vocab_size).map_err(|e| files.model_error(e))?;
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
            memory: MemoryUse::of(runner.memory(), tokenizer.heap_bytes()),
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
        };
        let scheduler = Scheduler::new(
            runner,
            Arc::clone(&tokenizer),
            Arc::clone(&control),
            Arc::clone(&queue),
            caps,
        );
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

    fn checked_weights(&self) -> Result<Target, Error> {
        target(self.quantize.as_deref(), self.exact)
    }

    fn fetch(&mut self, tracker: &mut ProgressTracker<'_>) -> Result<LocalModel, Error> {
        let store = match self.store.take() {
            Some(store) => store,
            None => Store::open_default()?,
        };
        let model = store.parse(&self.model)?;
        let mut relay = |progress| tracker.relay(progress);
        let mut control = source::Control::new()
            .on_progress(&mut relay)
            .cancel_when(&*self.cancel)
            .offline(self.offline);
        Ok(store.fetch(&model, &mut control)?)
    }

    /// Packs the weights here while the tokenizer is built on a second thread.
    fn load_parts(
        &self,
        files: &ModelFiles,
        checkpoint: &Checkpoint<'_>,
        options: &Options,
        tracker: &mut ProgressTracker<'_>,
        timer: &mut LoadTimer,
    ) -> Result<(Runner, Tokenizer), Error> {
        thread::scope(|scope| {
            let building = scope.spawn(|| files.tokenizer_of(checkpoint));
            let mut progress = |packed: Packed<'_>| {
                tracker.part(Phase::Loading, f64::from(packed.share));
                for bytes in packed.source.parts() {
                    files.release(bytes);
                }
                if (self.cancel)() {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            };
            let runner = Runner::load(checkpoint, options, &mut progress);
            if runner.is_ok() {
                timer.reached(State::WeightsLoaded);
            }
            let tokenizer = building.join().map_err(|_| Error::Internal {
                message: "the tokenizer could not be built".to_owned(),
            })?;
            Ok((runner.map_err(|e| files.model_error(e))?, tokenizer?))
        })
    }
}

impl std::fmt::Debug for EngineBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EngineBuilder")
            .field("model", &self.model)
            .finish_non_exhaustive()
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
             prefix cache 0, tokenizer 0), 400 MB are available"
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
