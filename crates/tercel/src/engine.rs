//! A loaded model, ready for requests.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::Instant;

use serde::Serialize;
use tercel_nn::{Identity, KvUsage};
use tercel_text::{Message, ThinkTags, Tokenizer};

use crate::TokenId;
use crate::builder::EngineBuilder;
use crate::chat::Chat;
use crate::context::Fit;
use crate::error::Error;
use crate::files::{MemoryUse, ModelSummary};
use crate::guide::{Guides, Room};
use crate::job::{Generate, Job, Score};
use crate::lifecycle::LoadReport;
use crate::memory::Ticket;
use crate::model::Model;
use crate::pipe::{Receiver, pipe};
use crate::queue::Queue;
use crate::reply::{Reply, StopReason, Timings, Usage};
use crate::request::{Prompt, Prompter, Request, Template};
use crate::sampling::Sampling;
use crate::scheduler::Control;
use crate::stream::{AsyncStream, Stream};
use crate::thinking::Thinking;
use crate::wake::Wake;

/// A loaded model. Clones share it; it may be used from any thread.
///
/// Requests run on the engine's own thread, several at a time where they fit: they share passes, and
/// that changes no reply. The others wait, the most urgent first. When the last clone is dropped,
/// that thread is stopped at once: requests that still run or wait end with
/// [`StopReason::Cancelled`], and streams that outlive the engine read what there is.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

/// What [`Engine::activity`] tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Activity {
    /// Requests at work, scores and vectors included.
    pub running: usize,
    /// Requests that wait.
    pub waiting: usize,
    /// How the KV cache and the prefix cache are used.
    pub kv: KvUsage,
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
    /// Requests that may be at work at once.
    pub max_sequences: usize,
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
    /// What each phase of it took.
    pub load_report: LoadReport,
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

    /// Runs `request` to its end. Waits while other requests have all the room.
    ///
    /// # Errors
    /// Before anything runs: a parameter out of range, an empty prompt, a prompt that does not fit
    /// the context, no chat template for a conversation, thoughts asked of a model without,
    /// [`Error::QueueFull`] where as many requests wait as may. Later: a failure of the computation.
    pub fn generate(&self, request: Request) -> Result<Reply, Error> {
        if self.inner.lenient {
            return self.generate_leniently(request).0;
        }
        let (job, events) = self.prepare(request, 0, usize::MAX)?;
        self.submit(job)?;
        Stream::new(events).wait()
    }

    /// Starts `request` and gives its events as they come. Never blocks on other requests.
    ///
    /// # Errors
    /// Those of [`Engine::generate`] before anything runs; later ones come out of the stream.
    pub fn stream(&self, request: Request) -> Result<Stream, Error> {
        let (job, events) = self.prepare(request, EVENTS_AHEAD, usize::MAX)?;
        self.submit(job)?;
        Ok(Stream::new(events))
    }

    /// [`Engine::generate`] for asynchronous code: dropping the future cancels the request.
    ///
    /// # Errors
    /// Those of [`Engine::generate`].
    pub async fn generate_async(&self, request: Request) -> Result<Reply, Error> {
        let (job, events) = self.prepare(request, 0, usize::MAX)?;
        self.submit(job)?;
        Stream::new(events).into_async().wait().await
    }

    /// [`Engine::stream`] for asynchronous code.
    ///
    /// # Errors
    /// Those of [`Engine::stream`].
    pub fn stream_async(&self, request: Request) -> Result<AsyncStream, Error> {
        Ok(self.stream(request)?.into_async())
    }

    /// How the KV cache and the prefix cache are used. Waits for the pass that is being computed.
    ///
    /// # Errors
    /// [`Error::EngineClosed`], or the failure that ended the engine's thread.
    pub fn kv_usage(&self) -> Result<KvUsage, Error> {
        self.inner.ask(|model| model.usage())
    }

    /// Forgets what is kept of earlier prompts and replies. What runs is not touched.
    ///
    /// # Errors
    /// Those of [`Engine::kv_usage`].
    pub fn clear_prefixes(&self) -> Result<(), Error> {
        self.inner.ask(|model| model.clear_prefixes())
    }

    /// What the engine holds of a conversation or text that begins with `tokens`, as bytes for
    /// [`Engine::import_state`]; nothing where it holds nothing.
    ///
    /// # Errors
    /// Those of [`Engine::kv_usage`].
    pub fn export_state(&self, tokens: &[TokenId]) -> Result<Option<Vec<u8>>, Error> {
        let (tokens, identity) = (tokens.to_vec(), self.identity());
        self.inner.ask(move |model| model.export(&tokens, identity))
    }

    /// Takes back what [`Engine::export_state`] gave for the same tokens, as far as there is room,
    /// and gives for how many of them. The bytes must come from the same model, template and build:
    /// see [`Info::fingerprint`].
    ///
    /// # Errors
    /// [`Error::Inference`] for bytes of other settings and damaged ones, and those of
    /// [`Engine::kv_usage`].
    pub fn import_state(&self, tokens: &[TokenId], state: &[u8]) -> Result<usize, Error> {
        let (tokens, state, identity) = (tokens.to_vec(), state.to_vec(), self.identity());
        let imported = self
            .inner
            .ask(move |model| model.import(&tokens, identity, &state))?;
        imported.map_err(Error::Inference)
    }

    /// How busy the engine is, as it was after the last pass. Never waits for a pass.
    pub fn activity(&self) -> Activity {
        let (running, kv) = self.inner.control.at_work();
        Activity {
            running,
            waiting: self.waiting(),
            kv,
        }
    }

    /// Requests that wait.
    pub fn waiting(&self) -> usize {
        self.inner.queue.len()
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
        self.submit(Job::Score(Score {
            tokens: tokens.to_vec(),
            from,
            result,
        }))?;
        answer.recv().map_err(|_| self.closed())?
    }

    /// [`Engine::score`] of a text, from its first token on: a begin token is put before it where
    /// the model wants one. Without one, the first token has no score.
    ///
    /// # Errors
    /// Those of [`Engine::score`].
    pub fn score_text(&self, text: &str) -> Result<Vec<f64>, Error> {
        self.score(&self.inner.prompter().raw(text)?, 0)
    }

    /// The tokens of a text as it stands, after the begin token where the model wants one.
    ///
    /// # Errors
    /// [`Error::EmptyPrompt`].
    pub fn raw_tokens(&self, text: &str) -> Result<Vec<TokenId>, Error> {
        self.inner.prompter().raw(text)
    }

    /// The tokens of a request's prompt before any is cut, however many. Nothing runs.
    ///
    /// # Errors
    /// Those of [`Engine::generate`] before anything runs, but for the length of the prompt and the
    /// queue.
    pub fn tokens_of(&self, request: &Request) -> Result<Vec<TokenId>, Error> {
        request.check_form()?;
        let mut settings = request.sampling.clone().resolve(&self.inner.sampling)?;
        if !request.is_chat() {
            settings.forget_thinking();
        }
        let own_template = request.template.as_deref().map(Template::compile);
        let own_template = own_template.transpose()?;
        let mut prompter = self.inner.prompter();
        prompter.tools = &request.tools.list;
        if let Some(template) = &own_template {
            prompter.template = template;
        }
        let (prompt, _) = prompter.uncut(request.input.clone(), settings.thinking)?;
        Ok(prompt.tokens)
    }

    /// What the chat template makes of a conversation, with the beginning of a reply where
    /// `add_generation_prompt` says so.
    ///
    /// # Errors
    /// [`Error::EmptyMessages`], [`Error::NoChatTemplate`], or a failure of the template.
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<String, Error> {
        if messages.is_empty() {
            return Err(Error::EmptyMessages);
        }
        let prompter = self.inner.prompter();
        let thinking = self.inner.sampling.thinking.unwrap_or_default();
        let rendered = if add_generation_prompt {
            prompter.to_reply(messages, thinking)?.0
        } else {
            prompter.render(messages, thinking, false)?.0
        };
        Ok(rendered.text().to_owned())
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
            speculation,
            lenient,
            ticket,
            room,
            queue,
            control,
            thread,
        } = parts;
        let thread = Some(thread);
        let is_token = |text: &str| tokenizer.id(text).is_some();
        let tags = ThinkTags::find(template.source(), is_token);
        let inner = Inner {
            info,
            tokenizer,
            template,
            tags,
            sampling,
            speculation,
            lenient,
            guides: Guides::new(room),
            queue,
            control,
            thread,
            _ticket: ticket,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// What sets prompts of this engine apart whose tokens are the same.
    fn identity(&self) -> Identity {
        Identity(self.inner.template.identity())
    }

    /// Hands a job to the engine's thread.
    pub(crate) fn submit(&self, job: Job) -> Result<(), Error> {
        let pushed = self.inner.queue.push(job);
        pushed.map_err(|refused| refused.into_error(|| self.closed()))
    }

    /// What wakes the engine's thread.
    pub(crate) fn wake(&self) -> &Arc<Wake> {
        self.inner.queue.wake()
    }

    /// The error of a request that the engine's thread will not answer.
    pub(crate) fn closed(&self) -> Error {
        self.inner.control.closed()
    }

    /// The prompt of a request.
    pub(crate) fn prompt_of(
        &self,
        request: &Request,
        thinking: Thinking,
        fit: &Fit,
    ) -> Result<Prompt, Error> {
        let own_template = request.template.as_deref().map(Template::compile);
        let own_template = own_template.transpose()?;
        let mut prompter = self.inner.prompter();
        prompter.tools = &request.tools.list;
        if let Some(template) = &own_template {
            prompter.template = template;
        }
        prompter.prompt(request.input.clone(), thinking, fit)
    }

    /// Checks a request and makes it a job with a channel of `capacity` deltas and a prompt of at
    /// most so many tokens, as far as it may be cut.
    pub(crate) fn prepare(
        &self,
        request: Request,
        capacity: usize,
        prompt_tokens: usize,
    ) -> Result<(Job, Receiver), Error> {
        let accepted = Instant::now();
        request.check_form()?;
        let is_chat = request.is_chat();
        let Request {
            input,
            sampling,
            mut terms,
            template,
            logprobs,
            grammar,
            tools,
        } = request;
        terms.speculation &= self.inner.speculation;
        let own_template = template.as_deref().map(Template::compile).transpose()?;
        let mut settings = sampling.resolve(&self.inner.sampling)?;
        if !is_chat {
            settings.forget_thinking();
        }
        let mut prompter = self.inner.prompter();
        prompter.tools = &tools.list;
        // A bias on a row that is no token's would be without effect.
        settings.check_tokens(prompter.vocab_size.min(self.inner.tokenizer.vocab_size()))?;
        if let Some(template) = &own_template {
            prompter.template = template;
        }
        let identity = Identity(prompter.template.identity());
        let tool_format = prompter.template.tool_format();
        let fit = Fit::of(&settings, self.inner.info.max_context)?.at_most(prompt_tokens);
        let started = Instant::now();
        let prompt = prompter.prompt(input, settings.thinking, &fit)?;
        let Prompt {
            tokens,
            lost_bytes,
            tags,
            end,
            context,
            format,
        } = prompt;
        let mut timings = Timings::default();
        timings.format_seconds = format.as_secs_f64();
        timings.tokenize_seconds = started.elapsed().saturating_sub(format).as_secs_f64();
        let closing = tags.map(|tags| self.inner.tokenizer.encode_trusted(&tags.closing()));
        let usage = Usage {
            prompt_tokens: tokens.len(),
            lost_bytes,
            ..Usage::default()
        };
        let draft = Reply {
            text: String::new(),
            thinking: None,
            tool_calls: Vec::new(),
            tool_parse_error: None,
            tokens: Vec::new(),
            logprobs: Vec::new(),
            stop_reason: StopReason::Cancelled,
            stop_sequence: None,
            usage,
            context,
            outcome: None,
            timings,
            settings,
            backend: self.inner.info.backend.clone(),
            threads: self.inner.info.threads,
        };
        let guide = tools.bind(tool_format, grammar.as_ref(), |bound| {
            let tokenizer = &self.inner.tokenizer;
            let guides = &self.inner.guides;
            guides.lead(tokenizer, &bound, tags, end, &draft.settings)
        })?;
        let room = draft.settings.max_new_tokens;
        let wake = Arc::clone(self.inner.queue.wake());
        let (events, receiver) = pipe(capacity, accepted, draft, wake);
        let request = Generate {
            prompt: tokens,
            identity,
            tags,
            end,
            closing: closing.unwrap_or_default(),
            room,
            terms,
            logprobs,
            guide,
            calls: tools.calls(tool_format, grammar.is_some()),
            events,
        };
        Ok((Job::Generate(Box::new(request)), receiver))
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("info", &self.inner.info)
            .finish_non_exhaustive()
    }
}

/// Deltas that the engine may be ahead of a reader.
const EVENTS_AHEAD: usize = 64;

/// What a load hands over.
pub(crate) struct Parts {
    pub(crate) info: Info,
    pub(crate) tokenizer: Arc<Tokenizer>,
    pub(crate) template: Template,
    pub(crate) sampling: Sampling,
    /// Whether tokens may be guessed.
    pub(crate) speculation: bool,
    /// Whether requests are made to fit.
    pub(crate) lenient: bool,
    /// What it may hold of the memory, where that is noted.
    pub(crate) ticket: Option<Ticket>,
    /// Where it asks for more.
    pub(crate) room: Room,
    pub(crate) queue: Arc<Queue>,
    pub(crate) control: Arc<Control>,
    pub(crate) thread: JoinHandle<()>,
}

struct Inner {
    info: Info,
    tokenizer: Arc<Tokenizer>,
    template: Template,
    tags: Option<ThinkTags>,
    sampling: Sampling,
    speculation: bool,
    lenient: bool,
    guides: Guides,
    control: Arc<Control>,
    queue: Arc<Queue>,
    /// There until the engine is dropped.
    thread: Option<JoinHandle<()>>,
    /// Ends after the thread, which frees the memory.
    _ticket: Option<Ticket>,
}

impl Inner {
    fn prompter(&self) -> Prompter<'_> {
        Prompter {
            tokenizer: &self.tokenizer,
            template: &self.template,
            tools: &[],
            tags: self.tags,
            vocab_size: self.info.model.vocab_size,
            max_context: self.info.max_context,
        }
    }

    /// Has the engine's thread do something with the model, and waits for the answer.
    fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut dyn Model) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (sender, answer) = sync_channel(1);
        let task = Box::new(move |model: &mut dyn Model| {
            // A caller that has gone needs no answer.
            let _ = sender.send(question(model));
        });
        let pushed = self.queue.push_task(task);
        pushed.map_err(|refused| refused.into_error(|| self.control.closed()))?;
        answer.recv().map_err(|_| self.control.closed())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.control.stop();
        self.queue.wake().call();
        if let Some(thread) = self.thread.take() {
            // A panic in there has been reported to whoever waited.
            let _ = thread.join();
        }
    }
}
