//! From a model's name to an engine.

mod draft;
mod load;

use std::sync::Arc;
use std::time::Duration;

use tercel_nn::{KvType, PrefixCache, Workers};

use crate::context::ContextOverflow;
use crate::lifecycle::LoadHooks;
use crate::memory::{Ledger, Policy};
use crate::sampling::Sampling;
use crate::source::{Progress, Store};
pub(crate) use load::{check_memory, target};

/// Tokens of a prompt per step, unless told otherwise.
pub(crate) const DEFAULT_PREFILL_CHUNK: usize = 256;
/// Requests that may wait, unless told otherwise.
const DEFAULT_QUEUE: usize = 64;

/// How a model is to be loaded. Made by [`Engine::builder`](crate::Engine::builder).
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
    draft: Option<String>,
    workers: Option<Workers>,
    commit_memory: bool,
    memory_budget: Option<u64>,
    ledger: Option<Ledger>,
    memory_policy: Policy,
    wait_for_memory: bool,
    lenient: bool,
    template: Option<String>,
    quantize: Option<String>,
    exact: bool,
    sampling: Sampling,
    store: Option<Store>,
    offline: bool,
    pub(crate) on_progress: Box<dyn FnMut(&Progress) + Send>,
    pub(crate) cancel: Arc<dyn Fn() -> bool + Send + Sync>,
    pub(crate) hooks: LoadHooks,
    /// Whether a host notes what it takes.
    pub(crate) is_hosted: bool,
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
            draft: None,
            workers: None,
            commit_memory: false,
            memory_budget: None,
            ledger: None,
            memory_policy: Policy::sum(None),
            wait_for_memory: false,
            lenient: false,
            template: None,
            quantize: None,
            exact: false,
            sampling: Sampling::default(),
            store: None,
            offline: false,
            on_progress: Box::new(|_| {}),
            cancel: Arc::new(|| false),
            hooks: LoadHooks::default(),
            is_hosted: false,
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
    /// [`Error::QueueFull`](crate::Error::QueueFull).
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

    /// A second, smaller model with the same vocabulary, named as the first, which guesses tokens
    /// where the text so far does not. It takes memory of its own, and is used where that pays.
    /// Results do not depend on it.
    pub fn draft(mut self, model: impl Into<String>) -> Self {
        self.draft = Some(model.into());
        self
    }

    /// Threads that are shared with other engines, in place of its own.
    pub fn workers(mut self, workers: &Workers) -> Self {
        self.workers = Some(workers.clone());
        self
    }

    /// As [`workers`](Self::workers), unless the caller chose threads.
    pub(crate) fn share(&mut self, workers: Workers) {
        if self.threads.is_none() && self.workers.is_none() {
            self.workers = Some(workers);
        }
    }

    /// Whether the memory of the whole context is taken from the system at load, and not as it comes
    /// to be used: a load that succeeds then has all it will ever need. By default not, so that a
    /// model of which little is used takes little.
    pub fn commit_memory(mut self, commit: bool) -> Self {
        self.commit_memory = commit;
        self
    }

    /// What the process may hold, in bytes. Near it, replies become shorter, then end with
    /// [`StopReason::ResourceLimit`](crate::StopReason::ResourceLimit); a request whose plan does
    /// not fit is refused with [`Error::MemoryBudget`](crate::Error::MemoryBudget). Each step is
    /// logged. By default there is no such bound.
    pub fn memory_budget(mut self, bytes: u64) -> Self {
        self.memory_budget = Some(bytes);
        self
    }

    /// Where the engine notes what it takes before it takes it, by default [`Ledger::process`], which
    /// all engines of the process share.
    pub fn ledger(mut self, ledger: &Ledger) -> Self {
        self.ledger = Some(ledger.clone());
        self
    }

    /// Whether there is room for the engine beside others, by default as long as all fit what the
    /// machine has.
    pub fn memory_policy(mut self, policy: Policy) -> Self {
        self.memory_policy = policy;
        self
    }

    /// Whether a load waits until other engines have left it room, and does not fail at once.
    pub fn wait_for_memory(mut self, wait: bool) -> Self {
        self.wait_for_memory = wait;
        self
    }

    /// Whether [`Engine::generate`](crate::Engine::generate) makes requests fit that do not, as
    /// [`Engine::generate_leniently`](crate::Engine::generate_leniently) does. By default they are
    /// refused.
    pub fn lenient(mut self, lenient: bool) -> Self {
        self.lenient = lenient;
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
        self.cancel = Arc::new(cancel);
        self
    }
}

impl std::fmt::Debug for EngineBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EngineBuilder")
            .field("model", &self.model)
            .finish_non_exhaustive()
    }
}
