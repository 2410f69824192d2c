//! What an operator may set, with the defaults.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tercel::{EngineBuilder, Pooling};

use crate::gate::Keys;

/// How a server is to be.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Config {
    /// The models it has; the first one answers where a request names none.
    pub models: Vec<ServedModel>,
    /// Who may ask. Without keys, whoever reaches the server may, but for `/admin`.
    pub keys: Keys,
    /// Bounds of what is taken in.
    pub limits: Limits,
    /// How often may be asked.
    pub rates: Rates,
    /// Names beside `localhost` and addresses under which the server may be spoken to.
    pub allowed_hosts: Vec<String>,
    /// Origins of pages, beside the server's own, whose scripts may ask.
    pub allowed_origins: Vec<String>,
    /// What is looked for in prompts and replies.
    pub guard: GuardPolicy,
    /// What is logged.
    pub log: LogPolicy,
    /// Whether it may listen beyond this machine without keys.
    pub insecure: bool,
    /// How long a model stays in memory without a request; `None` is for ever.
    pub idle_ttl: Option<Duration>,
    /// What all models together may take of the memory, in bytes.
    pub max_model_bytes: Option<u64>,
    /// Whether `/api/pull` may fetch models and add them.
    pub allow_pull: bool,
    /// Whether SIGTERM ends the server as its [`StopHandle`](crate::StopHandle) does, on Unix.
    pub stop_on_sigterm: bool,
}

/// A model under the name that clients use.
#[derive(Clone)]
#[non_exhaustive]
pub struct ServedModel {
    /// What clients call it.
    pub name: String,
    /// The model as the operator named it.
    pub source: String,
    /// Whether it is loaded when the server starts, instead of when it is first asked for.
    pub preload: bool,
    /// How the states of its tokens become one embedding.
    pub pooling: Pooling,
    /// Makes what loads it.
    pub builder: Arc<dyn Fn() -> EngineBuilder + Send + Sync>,
}

impl ServedModel {
    /// A model that is loaded when the server starts and whose embeddings are means.
    pub fn new(
        name: impl Into<String>,
        source: impl Into<String>,
        builder: impl Fn() -> EngineBuilder + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            source: source.into(),
            preload: true,
            pooling: Pooling::Mean,
            builder: Arc::new(builder),
        }
    }
}

impl fmt::Debug for ServedModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServedModel")
            .field("name", &self.name)
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

/// Bounds of what is taken in, and of how long things may take.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of a body.
    pub body_bytes: usize,
    /// Bytes of all bodies that are read or worked on; more are refused with 503. Small ones, of
    /// 64 KiB, always have room.
    pub all_body_bytes: usize,
    /// Levels of a JSON body.
    pub nesting: usize,
    /// Characters of all texts of a request, counted before they become tokens.
    pub prompt_chars: usize,
    /// Replies to one request (`n`).
    pub choices: usize,
    /// Texts of one request for embeddings.
    pub inputs: usize,
    /// The most tokens that a request may ask for; `None` is what the context holds.
    pub max_new_tokens: Option<usize>,
    /// Connections at once; more wait in the system's queue.
    pub connections: usize,
    /// How long a client may take to send a request's head, and its body.
    pub read_timeout: Duration,
    /// How long a client may leave what is sent to it unread before it is dropped.
    pub write_timeout: Duration,
    /// How long a request may take unless it says less itself; `None` is for ever.
    pub deadline: Option<Duration>,
    /// How long requests that run may go on once the server is to stop.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 8 << 20,
            all_body_bytes: 64 << 20,
            nesting: 64,
            prompt_chars: 1 << 20,
            choices: 8,
            inputs: 256,
            max_new_tokens: None,
            connections: 512,
            read_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            deadline: None,
            grace: Duration::from_secs(10),
        }
    }
}

/// How often may be asked; a rate that is not set has no limit.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Rates {
    /// By one key, or one address where no key is given.
    pub client: Option<Rate>,
    /// By all together.
    pub global: Option<Rate>,
}

/// A token bucket: it starts full.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Requests a second, in the long run.
    pub per_second: f64,
    /// Requests in one burst.
    pub capacity: f64,
}

/// What is looked for in prompts and replies; by default nothing.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct GuardPolicy {
    /// Refuses prompts that try to take over the instructions or ask for secrets (13.2).
    pub input: bool,
    /// Takes secrets out of replies, and withholds those that announce them (13.2).
    pub output: bool,
    /// Also e-mail addresses and telephone numbers.
    pub personal_data: bool,
}

/// What is logged. Prompts and replies never are unless `prompts_and_outputs` says so.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LogPolicy {
    /// Where the events go as JSON lines; `None` is nowhere.
    pub target: Option<LogTarget>,
    /// Hashes of prompts and replies.
    pub hashes: bool,
    /// A key for these hashes, so that short prompts cannot be guessed from them.
    pub hash_key: Option<Vec<u8>>,
    /// First 80 characters of prompts and replies, scrubbed.
    pub previews: bool,
    /// Whole prompts and replies, scrubbed.
    pub prompts_and_outputs: bool,
    /// An event for each token.
    pub tokens: bool,
    /// The name of this device.
    pub device_id: Option<String>,
}

impl Default for LogPolicy {
    fn default() -> Self {
        Self {
            target: Some(LogTarget::Stderr),
            hashes: true,
            hash_key: None,
            previews: false,
            prompts_and_outputs: false,
            tokens: false,
            device_id: None,
        }
    }
}

/// Where log lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard error.
    Stderr,
    /// The end of a file, which is made where it is missing, readable by its owner alone.
    File(PathBuf),
}
