//! The warm-up: a short request before the first one that counts, and what makes a model ready.

use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use tercel_text::Message;

use crate::engine::Engine;
use crate::error::Error;
use crate::memory::measure;
use crate::reply::{Reply, StopReason};
use crate::request::Request;

/// A warm-up of an engine: a prompt of the usual length and a few greedy tokens, by the same door
/// as every request.
///
/// ```no_run
/// use tercel::Engine;
/// use tercel::lifecycle::WarmUp;
///
/// let engine = Engine::builder("smollm2:135m").load()?;
/// let ready = WarmUp::new().context_tokens(512).run(&engine)?;
/// println!("{} with {} tokens", ready.status, ready.ctx_len);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WarmUp {
    context_tokens: usize,
    max_new_tokens: usize,
    deadline: Duration,
    max_resident_bytes: Option<u64>,
}

/// What a warm-up that succeeded gives.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct WarmUpReport {
    /// `ready`.
    pub status: &'static str,
    /// Tokens of the prompt that was computed.
    pub ctx_len: usize,
    /// Tokens it generated, at least 1.
    #[serde(skip)]
    pub generated_tokens: usize,
    /// From its start to its end.
    #[serde(skip)]
    pub elapsed: Duration,
}

/// Why a model is not ready after its warm-up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WarmUpError {
    /// The request failed, or a parameter of the warm-up is out of range.
    #[error("the warm-up failed: {0}")]
    Engine(#[from] Error),
    /// It took too long. The request was cancelled.
    #[error("the warm-up did not end within {} ms", deadline.as_millis())]
    Deadline {
        /// The time it had.
        deadline: Duration,
    },
    /// The model gave no token.
    #[error("the warm-up gave no token ({stop_reason})")]
    NoToken {
        /// Why it stopped.
        stop_reason: StopReason,
    },
    /// The process holds more memory than it may.
    #[error(
        "the process holds {} MB after the warm-up, at most {} MB are allowed",
        resident_bytes.div_ceil(1 << 20), max_bytes >> 20
    )]
    OverMemory {
        /// What it holds: anonymous memory, that which was swapped out included.
        resident_bytes: u64,
        /// What it may hold.
        max_bytes: u64,
    },
    /// The caller gave the load up.
    #[error("the warm-up was cancelled")]
    Cancelled,
}

impl WarmUpError {
    /// A stable code in snake case.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Engine(error) => error.kind(),
            Self::Deadline { .. } | Self::NoToken { .. } => "warm_up_failed",
            Self::OverMemory { .. } => "insufficient_memory",
            Self::Cancelled => "cancelled",
        }
    }
}

impl Default for WarmUp {
    fn default() -> Self {
        Self {
            context_tokens: DEFAULT_CONTEXT,
            max_new_tokens: 4,
            deadline: Duration::from_secs(60),
            max_resident_bytes: None,
        }
    }
}

impl WarmUp {
    /// A prompt of about 128 tokens, 4 new ones, one minute at most, no limit on the memory.
    pub fn new() -> Self {
        Self::default()
    }

    /// The length of the prompt, in tokens, about: at least the sentence it repeats, at most what
    /// the context leaves. [`RequestLengths::usual`](super::RequestLengths::usual) is a good
    /// choice; a host chooses by itself.
    #[must_use]
    pub fn context_tokens(mut self, tokens: usize) -> Self {
        self.context_tokens = tokens;
        self
    }

    /// How many tokens it generates: 1 to 8, by default 4.
    #[must_use]
    pub fn max_new_tokens(mut self, tokens: usize) -> Self {
        self.max_new_tokens = tokens;
        self
    }

    /// How long it may take, by default a minute.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// What the process may hold in memory afterwards (anonymous and swapped), by default
    /// anything. Not looked at where the system does not tell.
    #[must_use]
    pub fn max_resident_bytes(mut self, bytes: u64) -> Self {
        self.max_resident_bytes = Some(bytes);
        self
    }

    /// Warms `engine` up. The model is ready when this succeeds: it generated a token, in time,
    /// and the memory is within its limit.
    ///
    /// # Errors
    /// See [`WarmUpError`].
    pub fn run(&self, engine: &Engine) -> Result<WarmUpReport, WarmUpError> {
        self.run_unless(engine, &|| false)
    }

    /// [`WarmUp::run`], given up once `cancelled` says so.
    pub(crate) fn run_unless(
        &self,
        engine: &Engine,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<WarmUpReport, WarmUpError> {
        if !(1..=MOST_TOKENS).contains(&self.max_new_tokens) {
            let value = self.max_new_tokens.to_string();
            let error = Error::invalid_parameter("max_new_tokens", value, "1 to 8");
            return Err(error.into());
        }
        let started = Instant::now();
        let reply = self.generate(engine, started, cancelled)?;
        if reply.usage.generated_tokens == 0 {
            let stop_reason = reply.stop_reason;
            return Err(WarmUpError::NoToken { stop_reason });
        }
        if let (Some(max_bytes), Some(memory)) = (self.max_resident_bytes, measure())
            && memory.own_bytes > max_bytes
        {
            return Err(WarmUpError::OverMemory {
                resident_bytes: memory.own_bytes,
                max_bytes,
            });
        }
        Ok(WarmUpReport {
            status: "ready",
            ctx_len: reply.usage.prompt_tokens,
            generated_tokens: reply.usage.generated_tokens,
            elapsed: started.elapsed(),
        })
    }

    /// The prompt is made shorter until it fits: the template adds tokens of its own.
    fn generate(
        &self,
        engine: &Engine,
        started: Instant,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Reply, WarmUpError> {
        let room = engine
            .info()
            .max_context
            .saturating_sub(self.max_new_tokens);
        let mut tokens = self.context_tokens.min(room);
        let mut as_chat = engine.info().has_template;
        loop {
            let request = self.request(engine, tokens, as_chat);
            match self.in_time(engine, request, started, cancelled) {
                Err(WarmUpError::Engine(Error::ContextOverflow { prompt_tokens, .. }))
                    if tokens > 0 =>
                {
                    tokens = tokens.saturating_sub(prompt_tokens.saturating_sub(room).max(1));
                }
                // A template that refuses is the business of conversations.
                Err(WarmUpError::Engine(Error::Template(_) | Error::NoChatTemplate)) if as_chat => {
                    as_chat = false;
                }
                result => return result,
            }
        }
    }

    fn request(&self, engine: &Engine, tokens: usize, as_chat: bool) -> Request {
        let text = prompt(engine, tokens);
        let request = if as_chat {
            Request::chat(vec![Message::user(text)])
        } else {
            Request::prompt(text)
        };
        request.max_new_tokens(self.max_new_tokens).temperature(0.0)
    }

    /// Waits for the reply on another thread, so that an engine that hangs is given up too.
    fn in_time(
        &self,
        engine: &Engine,
        request: Request,
        started: Instant,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Reply, WarmUpError> {
        let stream = engine.stream(request)?;
        let cancel = stream.cancel_handle();
        let (sender, receiver) = sync_channel(1);
        thread::Builder::new()
            .name("tercel-warm-up".to_owned())
            .spawn(move || {
                // Nobody listens where the deadline is over.
                let _ = sender.send(stream.wait());
            })
            .map_err(|error| Error::Internal {
                message: format!("no thread: {error}"),
            })?;
        loop {
            if cancelled() {
                cancel.cancel();
                return Err(WarmUpError::Cancelled);
            }
            let left = self.deadline.saturating_sub(started.elapsed());
            match receiver.recv_timeout(left.min(LOOK_AGAIN)) {
                Ok(reply) => return Ok(reply?),
                Err(RecvTimeoutError::Timeout) if left > LOOK_AGAIN => {}
                Err(RecvTimeoutError::Timeout) => {
                    cancel.cancel();
                    let deadline = self.deadline;
                    return Err(WarmUpError::Deadline { deadline });
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let message = "the warm-up stopped before its end".to_owned();
                    return Err(Error::Internal { message }.into());
                }
            }
        }
    }
}

const PROMPT: &str = "Summarize the key points in one sentence.";
/// Where nothing is known of the requests to come.
const DEFAULT_CONTEXT: usize = 128;
const MOST_TOKENS: usize = 8;
/// How long a cancellation may go unnoticed.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The sentence, as often as fits into `tokens`, at least once.
fn prompt(engine: &Engine, tokens: usize) -> String {
    let tokenizer = engine.tokenizer();
    let repeated = format!(" {PROMPT}");
    let first = tokenizer.encode(PROMPT).len();
    let each = tokenizer.encode(&repeated).len().max(1);
    let more = tokens.saturating_sub(first) / each;
    format!("{PROMPT}{}", repeated.repeat(more))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::testing::{END, VOCAB_SIZE, chaotic, engine, engine_with_template};

    fn context_of(warm_up: &WarmUp, max_context: usize) -> usize {
        let (engine, _) = engine(max_context, chaotic);
        let report = warm_up.run(&engine).expect("ready");
        assert_eq!(report.generated_tokens, 4);
        report.ctx_len
    }

    #[test]
    fn the_prompt_has_the_usual_length_and_never_more_than_the_context() {
        // A token per byte; the template adds "u:", a line end and "a:".
        let sentence = PROMPT.len() + 5;
        assert_eq!(
            context_of(&WarmUp::new(), 4096),
            sentence + 2 * (PROMPT.len() + 1)
        );
        assert_eq!(context_of(&WarmUp::new().context_tokens(0), 4096), sentence);
        for usual in [300, 1000] {
            let ctx_len = context_of(&WarmUp::new().context_tokens(usual), 4096);
            assert!(
                (usual - 42..=usual + 5).contains(&ctx_len),
                "{ctx_len} of {usual}"
            );
        }
        let longest = context_of(&WarmUp::new().context_tokens(9000), 200);
        assert!((150..=196).contains(&longest), "{longest}");
    }

    #[test]
    fn what_it_gives_is_two_keys_as_json() {
        let (engine, _) = engine(500, chaotic);
        let report = WarmUp::new().context_tokens(0).run(&engine).expect("ready");
        assert_eq!(
            serde_json::to_value(report).expect("serializes"),
            serde_json::json!({"status": "ready", "ctx_len": PROMPT.len() + 5})
        );
    }

    #[test]
    fn a_template_that_refuses_does_not_keep_a_model_from_its_warm_up() {
        let source = "{{ raise_exception('never') }}";
        let (engine, _) = engine_with_template(source, 500, 4, chaotic);
        let report = WarmUp::new().context_tokens(0).run(&engine).expect("ready");
        assert_eq!(report.ctx_len, PROMPT.len());
    }

    #[test]
    fn it_fails_for_every_reason_that_makes_a_model_unready() {
        let run = |warm_up: WarmUp| warm_up.run(&engine(500, chaotic).0).expect_err("not ready");
        for tokens in [0, 9] {
            let error = run(WarmUp::new().max_new_tokens(tokens));
            assert_eq!(error.kind(), "invalid_parameter");
        }
        if measure().is_some() {
            let error = run(WarmUp::new().max_resident_bytes(1));
            assert!(
                matches!(error, WarmUpError::OverMemory { max_bytes: 1, .. }),
                "{error}"
            );
            assert_eq!(error.kind(), "insufficient_memory");
        }
        let (broken, _) = engine(500, |_| vec![f32::NAN; VOCAB_SIZE]);
        let error = WarmUp::new().run(&broken).expect_err("not ready");
        assert_eq!(error.kind(), "invalid_logits");
        let (small, _) = engine(20, chaotic);
        let error = WarmUp::new()
            .run(&small)
            .expect_err("the sentence does not fit");
        assert_eq!(error.kind(), "context_overflow");
    }

    #[test]
    fn a_model_that_ends_at_once_gave_a_token() {
        let (engine, _) = engine(500, |_| {
            let mut row = vec![0.0; VOCAB_SIZE];
            row[END as usize] = 9.0;
            row
        });
        let report = WarmUp::new().run(&engine).expect("ready");
        assert_eq!(report.generated_tokens, 1);
    }

    #[test]
    fn a_model_that_hangs_is_given_up_at_the_deadline_or_when_cancelled() {
        let stuck = || {
            let (release, wait) = channel::<()>();
            let model = move |held: &[u32]| {
                // Until the test ends, however long the warm-up waits.
                let _ = wait.recv();
                chaotic(held)
            };
            (engine(500, model).0, release)
        };
        let (engine, release) = stuck();
        let warm_up = WarmUp::new().deadline(Duration::from_millis(30));
        let error = warm_up.run(&engine).expect_err("not ready");
        assert_eq!(error.to_string(), "the warm-up did not end within 30 ms");
        drop(release);

        let (engine, release) = stuck();
        let error = WarmUp::new().run_unless(&engine, &|| true);
        assert!(matches!(error, Err(WarmUpError::Cancelled)));
        drop(release);
    }
}
