//! A loaded model, ready for requests.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;

use serde::Serialize;
use tercel_text::{ThinkTags, Tokenizer};

use crate::TokenId;
use crate::builder::EngineBuilder;
use crate::chat::Chat;
use crate::context::Fit;
use crate::error::Error;
use crate::files::{MemoryUse, ModelSummary};
use crate::pipe::{Receiver, pipe};
use crate::reply::{Reply, StopReason, Timings, Usage};
use crate::request::{Prompt, Prompter, Request, Template};
use crate::sampling::Sampling;
use crate::scheduler::{Control, Generate, Job, Score};
use crate::stream::Stream;

/// A loaded model. Clones share it; it may be used from any thread.
///
/// Requests run one at a time, in the order they came, on the engine's own thread. When the last
/// clone is dropped, that thread is stopped at once: requests that still run or wait end with
/// [`StopReason::Cancelled`], and streams that outlive the engine read what there is.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

/// What [`Engine::info`] tells.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Info {
    /// The model as it was asked for.
    pub id: String,
    /// The file it was loaded from.
    pub path: PathBuf,
    /// Size of that file.
    pub file_bytes: u64,
    /// The model's identity as it is loaded, in hexadecimal: the same for the same files, wherever
    /// they lie.
    pub fingerprint: String,
    /// The model.
    pub model: ModelSummary,
    /// Tokens that prompt and reply may have together.
    pub max_context: usize,
    /// Whether there is a chat template.
    pub has_template: bool,
    /// What computes, such as `cpu-avx2`.
    pub backend: String,
    /// Compute threads.
    pub threads: usize,
    /// What it takes of the memory.
    pub memory: MemoryUse,
    /// Seconds that loading took, the fetch included.
    pub load_seconds: f64,
    /// What the user should know: parts of the file that could not be used, and why.
    pub notes: Vec<String>,
}

impl Engine {
    /// Starts to load `model`: a path to a GGUF file, `hf:org/repo`, or a name of the catalog.
    pub fn builder(model: impl Into<String>) -> EngineBuilder {
        EngineBuilder::new(model.into())
    }

    /// Starts a conversation.
    pub fn chat(&self) -> Chat {
        Chat::new(self.clone())
    }

    /// Runs `request` to its end. Blocks while other requests are before it.
    ///
    /// # Errors
    /// Before anything runs: a parameter out of range, an empty prompt, a prompt that does not fit
    /// the context, no chat template for a conversation, thoughts asked of a model without. Later: a failure of the computation.
    pub fn generate(&self, request: Request) -> Result<Reply, Error> {
        let (job, events) = self.prepare(request, 0)?;
        self.inner.submit(job)?;
        Stream::new(events).wait()
    }

    /// Starts `request` and gives its events as they come. Never blocks on other requests.
    ///
    /// # Errors
    /// Those of [`Engine::generate`] before anything runs, and [`Error::QueueFull`] where 64
    /// requests wait already; later ones come out of the stream.
    pub fn stream(&self, request: Request) -> Result<Stream, Error> {
        let (job, events) = self.prepare(request, EVENTS_AHEAD)?;
        self.inner.try_submit(job)?;
        Ok(Stream::new(events))
    }

    /// The natural logarithms of the probabilities that the model gives each next token:
    /// `result[i]` is that of `tokens[from + i + 1]` after all tokens before it, for every
    /// position from `from` to the last but one. No begin token is added.
    ///
    /// # Errors
    /// [`Error::EmptyPrompt`] or [`Error::InvalidParameter`] for tokens the model does not have
    /// and for fewer than `from + 2` tokens, [`Error::ContextOverflow`] for more than the context
    /// holds, or a failure of the computation.
    pub fn score(&self, tokens: &[TokenId], from: usize) -> Result<Vec<f64>, Error> {
        let prompter = self.inner.prompter();
        prompter.check(tokens, "tokens")?;
        // The last token is never put into the context.
        if tokens.len() > prompter.max_context {
            let (prompt_tokens, max_context) = (tokens.len() - 1, prompter.max_context);
            return Err(Error::ContextOverflow {
                prompt_tokens,
                max_context,
            });
        }
        if tokens.len() < 2 || from > tokens.len() - 2 {
            let range = format!("at most the number of tokens ({}) less two", tokens.len());
            return Err(Error::invalid_parameter("from", from.to_string(), range));
        }
        let (result, answer) = sync_channel(1);
        self.inner.submit(Job::Score(Score {
            tokens: tokens.to_vec(),
            from,
            result,
        }))?;
        answer.recv().map_err(|_| self.inner.control.closed())?
    }

    /// [`Engine::score`] of a text, from its first token on: a begin token is put before it where
    /// the model wants one. Without one, the first token has no score.
    ///
    /// # Errors
    /// Those of [`Engine::score`].
    pub fn score_text(&self, text: &str) -> Result<Vec<f64>, Error> {
        self.score(&self.inner.prompter().raw(text)?, 0)
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.inner.tokenizer
    }

    /// The source of the chat template, if there is one.
    pub fn template(&self) -> Option<&str> {
        self.inner.template.source()
    }

    /// How the model marks a thought in its replies, where its template or vocabulary says so.
    pub fn think_tags(&self) -> Option<ThinkTags> {
        self.inner.tags
    }

    /// What is loaded, and how.
    pub fn info(&self) -> &Info {
        &self.inner.info
    }

    /// The defaults of a request: those of the builder, then those that the model brings.
    pub fn model_sampling(&self) -> &Sampling {
        &self.inner.sampling
    }

    /// What turns conversations and texts into tokens.
    pub(crate) fn prompter(&self) -> Prompter<'_> {
        self.inner.prompter()
    }

    pub(crate) fn new(parts: Parts) -> Self {
        let Parts {
            info,
            tokenizer,
            template,
            sampling,
            jobs,
            control,
            thread,
        } = parts;
        let (jobs, thread) = (Some(jobs), Some(thread));
        let is_token = |text: &str| tokenizer.id(text).is_some();
        let tags = ThinkTags::find(template.source(), is_token);
        let inner = Inner {
            info,
            tokenizer,
            template,
            tags,
            sampling,
            jobs,
            control,
            thread,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Checks a request and makes it a job with a channel of `capacity` deltas.
    fn prepare(&self, request: Request, capacity: usize) -> Result<(Job, Receiver), Error> {
        let accepted = Instant::now();
        request.check_form()?;
        let is_chat = request.is_chat();
        let Request { input, sampling } = request;
        let mut settings = sampling.resolve(&self.inner.sampling)?;
        if !is_chat {
            settings.forget_thinking();
        }
        let fit = Fit::of(&settings, self.inner.info.max_context)?;
        let prompt = self
            .inner
            .prompter()
            .prompt(input, settings.thinking, &fit)?;
        let Prompt {
            tokens,
            lost_bytes,
            tags,
            end,
            context,
        } = prompt;
        let closing = tags.map(|tags| self.inner.tokenizer.encode_trusted(&tags.closing()));
        let usage = Usage {
            prompt_tokens: tokens.len(),
            lost_bytes,
            ..Usage::default()
        };
        let draft = Reply {
            text: String::new(),
            thinking: None,
            tokens: Vec::new(),
            stop_reason: StopReason::Cancelled,
            stop_sequence: None,
            usage,
            context,
            timings: Timings::default(),
            settings,
            backend: self.inner.info.backend.clone(),
            threads: self.inner.info.threads,
        };
        let (sender, receiver) = pipe(capacity, accepted, draft);
        Ok((
            Job::Generate(Generate {
                prompt: tokens,
                tags,
                end,
                closing: closing.unwrap_or_default(),
                events: sender,
            }),
            receiver,
        ))
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("info", &self.inner.info)
            .finish_non_exhaustive()
    }
}

/// Requests that may wait.
pub(crate) const QUEUE: usize = 64;
/// Deltas that the engine may be ahead of a reader.
const EVENTS_AHEAD: usize = 64;

/// What a load hands over.
pub(crate) struct Parts {
    pub(crate) info: Info,
    pub(crate) tokenizer: Arc<Tokenizer>,
    pub(crate) template: Template,
    pub(crate) sampling: Sampling,
    pub(crate) jobs: SyncSender<Job>,
    pub(crate) control: Arc<Control>,
    pub(crate) thread: JoinHandle<()>,
}

struct Inner {
    info: Info,
    tokenizer: Arc<Tokenizer>,
    template: Template,
    tags: Option<ThinkTags>,
    sampling: Sampling,
    control: Arc<Control>,
    /// There until the engine is dropped, as is the thread.
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Inner {
    fn prompter(&self) -> Prompter<'_> {
        Prompter {
            tokenizer: &self.tokenizer,
            template: &self.template,
            tags: self.tags,
            vocab_size: self.info.model.vocab_size,
            max_context: self.info.max_context,
        }
    }

    fn submit(&self, job: Job) -> Result<(), Error> {
        let jobs = self.jobs.as_ref().ok_or(Error::EngineClosed)?;
        jobs.send(job).map_err(|_| self.control.closed())
    }

    fn try_submit(&self, job: Job) -> Result<(), Error> {
        let jobs = self.jobs.as_ref().ok_or(Error::EngineClosed)?;
        jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => Error::QueueFull { capacity: QUEUE },
            TrySendError::Disconnected(_) => self.control.closed(),
        })
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Without senders the thread runs out of jobs; `stop` ends the one it is at.
        self.jobs = None;
        self.control.stop();
        if let Some(thread) = self.thread.take() {
            // A panic in there has been reported to whoever waited.
            let _ = thread.join();
        }
    }
}
