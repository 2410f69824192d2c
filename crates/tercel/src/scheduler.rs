//! The engine's thread: takes requests in order and moves one at a time forward, step by step.
//!
//! A step is one prefill chunk or one token. Cancellation is looked at before each, so a request
//! ends within one. The model's sequence is kept between requests: what a prompt shares with the
//! tokens before it is not computed again, which changes no result, since a token's logits depend
//! on the tokens before it alone.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use tercel_nn::Wanted;
use tercel_text::{PromptEnd, ReplyPiece, ReplyStream, ThinkTags, Tokenizer};

use crate::TokenId;
use crate::error::Error;
use crate::model::{MAX_ROWS, Model};
use crate::pipe::{CancelHandle, Sender};
use crate::reply::{Event, Reply, StopReason};
use crate::sampler::Sampler;
use crate::score::log_probability;

/// Work for the engine's thread.
pub(crate) enum Job {
    /// Generate a reply.
    Generate(Generate),
    /// Score a text.
    Score(Score),
}

/// A request whose prompt is checked: not empty, inside the vocabulary, with room for one more
/// token in the context.
pub(crate) struct Generate {
    pub(crate) prompt: Vec<TokenId>,
    /// How the reply marks a thought; nothing where none is looked for.
    pub(crate) tags: Option<ThinkTags>,
    pub(crate) end: PromptEnd,
    /// What ends a thought by force.
    pub(crate) closing: Vec<TokenId>,
    pub(crate) events: Sender,
}

/// Tokens to score: checked like a prompt, and `from` is below the last position.
pub(crate) struct Score {
    pub(crate) tokens: Vec<TokenId>,
    pub(crate) from: usize,
    pub(crate) result: SyncSender<Result<Vec<f64>, Error>>,
}

/// How an engine ends its thread, and learns how it ended.
#[derive(Debug, Default)]
pub(crate) struct Control {
    stopping: AtomicBool,
    running: Mutex<Option<CancelHandle>>,
    failure: OnceLock<String>,
}

impl Control {
    /// Asks the thread to end within one step, whatever it does.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        if let Some(running) = &*self.running.lock().unwrap_or_else(PoisonError::into_inner) {
            running.cancel();
        }
    }

    /// The error of a request that the thread will not take any more.
    pub(crate) fn closed(&self) -> Error {
        match self.failure.get() {
            Some(message) => Error::Internal {
                message: message.clone(),
            },
            None => Error::EngineClosed,
        }
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    fn set_running(&self, request: Option<CancelHandle>) {
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = request.clone();
        // `stop` may have looked just before there was something to cancel.
        if let Some(request) = request.filter(|_| self.is_stopping()) {
            request.cancel();
        }
    }
}

/// One model at work.
pub(crate) struct Scheduler<M> {
    model: M,
    tokenizer: Arc<Tokenizer>,
    control: Arc<Control>,
    /// Tokens that prompt and reply may have together.
    max_context: usize,
    /// The most tokens of a prompt per step.
    prefill_chunk: usize,
    /// The tokens that the model's sequence holds.
    held: Vec<TokenId>,
    sampler: Sampler,
}

impl<M: Model> Scheduler<M> {
    pub(crate) fn new(
        model: M,
        tokenizer: Arc<Tokenizer>,
        control: Arc<Control>,
        max_context: usize,
        prefill_chunk: usize,
    ) -> Self {
        let held = Vec::with_capacity(max_context);
        let sampler = Sampler::default();
        Self {
            model,
            tokenizer,
            control,
            max_context,
            prefill_chunk,
            held,
            sampler,
        }
    }

    /// Works until the engine is dropped, or a fault.
    pub(crate) fn run(mut self, jobs: &Receiver<Job>) {
        while let Ok(job) = jobs.recv() {
            if self.control.is_stopping() {
                cancel(job);
                continue;
            }
            let done = catch_unwind(AssertUnwindSafe(|| self.work(job)));
            self.control.set_running(None);
            if let Err(panic) = done {
                // The waiter of this job has learnt it from its dropped channel.
                let message = format!("the engine's thread panicked: {}", panic_message(&*panic));
                let _ = self.control.failure.set(message);
                jobs.try_iter()
                    .for_each(|job| fail(job, || self.control.closed()));
                return;
            }
        }
    }

    fn work(&mut self, job: Job) {
        match job {
            Job::Generate(request) => self.generate(request),
            Job::Score(request) => {
                let result = self.score(&request);
                // A caller that has gone needs no answer.
                let _ = request.result.send(result);
            }
        }
    }

    fn generate(&mut self, request: Generate) {
        self.control
            .set_running(Some(request.events.cancel_handle()));
        let Some(draft) = request.events.start() else {
            return;
        };
        let (mut active, events) = self.begin(request, draft);
        let end = loop {
            if events.is_cancelled() {
                break Ok(StopReason::Cancelled);
            }
            match self.step(&mut active, &events) {
                Ok(None) => {}
                Ok(Some(reason)) => break Ok(reason),
                Err(error) => break Err(error),
            }
        };
        match end {
            Ok(reason) => {
                let (last, reply) = active.finish(reason, events.accepted());
                events.finish(last, Ok(reply));
            }
            Err(error) => events.finish(None, Err(error)),
        }
    }

    fn begin(&mut self, request: Generate, mut reply: Reply) -> (Active, Sender) {
        let Generate {
            prompt,
            tags,
            end,
            closing,
            events,
        } = request;
        let started = Instant::now();
        // The last prompt token is always computed: its logits are where the reply begins.
        let cached = self.recall(&prompt, prompt.len().saturating_sub(1));
        reply.usage.prompt_tokens = prompt.len();
        reply.usage.cached_tokens = cached;
        reply.timings.queue_seconds = (started - events.accepted()).as_secs_f64();
        self.sampler.begin(&reply.settings, &prompt);
        let text = ReplyStream::new(tags, end, &reply.settings.stop);
        let active = Active {
            reply,
            text,
            closing,
            tokens: prompt,
            started,
            first: None,
            last: None,
        };
        (active, events)
    }

    /// One prefill chunk or one token; the reason where it was the last.
    fn step(&mut self, active: &mut Active, events: &Sender) -> Result<Option<StopReason>, Error> {
        let pending = &active.tokens[self.held.len()..];
        if pending.len() > self.prefill_chunk {
            let chunk = &pending[..self.prefill_chunk];
            self.model
                .append(chunk, Wanted::None, &mut |_, _| {})
                .map_err(Error::Inference)?;
            self.held.extend_from_slice(chunk);
            return Ok(None);
        }
        let step = active.reply.tokens.len() as u64;
        let mut token = None;
        let (sampler, known) = (&mut self.sampler, self.tokenizer.vocab_size());
        self.model
            .append(pending, Wanted::Last, &mut |_, row| {
                // A padded vocabulary has rows that are no token's.
                token = sampler.sample(step, &row[..row.len().min(known)]).ok();
            })
            .map_err(Error::Inference)?;
        self.held.extend_from_slice(pending);
        let token = token.ok_or(Error::InvalidLogits {
            tokens: self.held.len(),
        })?;
        let mut end = self.accept(active, token, events);
        if end.is_none() && active.must_close(self.max_context) {
            let closing = std::mem::take(&mut active.closing);
            end = closing
                .into_iter()
                .find_map(|token| self.accept(active, token, events));
        }
        Ok(end)
    }

    /// Makes `token` part of the reply.
    fn accept(
        &mut self,
        active: &mut Active,
        token: TokenId,
        events: &Sender,
    ) -> Option<StopReason> {
        self.sampler.accept(token);
        let now = Instant::now();
        active.first.get_or_insert(now);
        active.last = Some(now);
        let token_index = active.reply.tokens.len();
        active.reply.tokens.push(token);
        active.tokens.push(token);
        if self.tokenizer.is_end(token) && !active.reply.settings.ignore_eos {
            return Some(StopReason::Eos);
        }
        let was_thinking = active.text.is_thinking();
        let piece = active.text.push(&self.tokenizer, token);
        if was_thinking || active.text.is_thinking() {
            active.reply.usage.thinking_tokens = active.reply.tokens.len();
        }
        let stopped = piece.stopped;
        for event in add(piece, token_index, &mut active.reply) {
            if events.send(event).is_break() {
                return Some(StopReason::Cancelled);
            }
        }
        if let Some(stop) = stopped {
            active.reply.stop_sequence = active.reply.settings.stop.get(stop).cloned();
            Some(StopReason::StopSequence)
        } else if active.reply.tokens.len() >= active.reply.settings.max_new_tokens {
            Some(StopReason::MaxNewTokens)
        } else if active.tokens.len() >= self.max_context {
            Some(StopReason::ContextFull)
        } else {
            None
        }
    }

    fn score(&mut self, request: &Score) -> Result<Vec<f64>, Error> {
        let Score { tokens, from, .. } = request;
        // The last token is only predicted.
        let context = &tokens[..tokens.len() - 1];
        self.recall(context, *from);
        let mut scores = Vec::with_capacity(context.len() - from);
        while self.held.len() < context.len() {
            if self.control.is_stopping() {
                return Err(Error::Cancelled);
            }
            let start = self.held.len();
            let (end, wanted) = if start < *from {
                (
                    from.saturating_sub(start).min(self.prefill_chunk) + start,
                    Wanted::None,
                )
            } else {
                (
                    context.len().min(start + MAX_ROWS.min(self.prefill_chunk)),
                    Wanted::All,
                )
            };
            let mut failed = false;
            let mut row = |i: usize, row: &[f32]| match log_probability(row, tokens[start + i + 1])
            {
                Ok(score) => scores.push(score),
                Err(_) => failed = true,
            };
            self.model
                .append(&context[start..end], wanted, &mut row)
                .map_err(Error::Inference)?;
            self.held.extend_from_slice(&context[start..end]);
            if failed {
                return Err(Error::InvalidLogits {
                    tokens: self.held.len(),
                });
            }
        }
        Ok(scores)
    }

    /// Keeps what the sequence shares with `tokens`, at most `most` tokens of it, and forgets the
    /// rest. Gives how many are kept.
    fn recall(&mut self, tokens: &[TokenId], most: usize) -> usize {
        let shared = self
            .held
            .iter()
            .zip(tokens)
            .take_while(|(a, b)| a == b)
            .count()
            .min(most);
        if shared == self.held.len() {
            return shared;
        }
        // A state that carries all tokens cannot be taken back to any of them.
        let kept = self.model.truncate(shared);
        self.held.truncate(kept);
        kept
    }
}

/// A request at work.
struct Active {
    reply: Reply,
    text: ReplyStream,
    /// What ends the thought by force, once.
    closing: Vec<TokenId>,
    /// Prompt and reply; what the sequence does not hold of them is to be computed.
    tokens: Vec<TokenId>,
    started: Instant,
    /// When the first token came.
    first: Option<Instant>,
    /// When the latest token came.
    last: Option<Instant>,
}

impl Active {
    /// Whether the thought has to end now, for the answer's sake. Where there is no room for an
    /// answer, nothing would be gained.
    fn must_close(&self, max_context: usize) -> bool {
        let Reply {
            settings, usage, ..
        } = &self.reply;
        let of_reply = settings
            .max_new_tokens
            .saturating_sub(self.reply.tokens.len());
        let left = of_reply.min(max_context.saturating_sub(self.tokens.len()));
        let left = left.saturating_sub(self.closing.len());
        let most = settings.max_thinking_tokens;
        let is_over = most.is_some_and(|most| usage.thinking_tokens >= most);
        self.text.is_thinking() && left > 0 && (is_over || left <= settings.min_answer_tokens)
    }

    /// The reply, and the text that was held back until its end.
    fn finish(mut self, reason: StopReason, accepted: Instant) -> (Option<Event>, Reply) {
        let mut reply = self.reply;
        let rest = if reason == StopReason::StopSequence {
            ReplyPiece::default()
        } else {
            self.text.finish()
        };
        // At the end the rest is thought or answer, never both.
        let token_index = reply.tokens.len().saturating_sub(1);
        let last = add(rest, token_index, &mut reply).next();
        reply.stop_reason = reason;
        reply.usage.generated_tokens = reply.tokens.len();
        let timings = &mut reply.timings;
        let now = Instant::now();
        timings.prefill_seconds = (self.first.unwrap_or(now) - self.started).as_secs_f64();
        if let (Some(first), Some(last)) = (self.first, self.last) {
            timings.time_to_first_token = (first - accepted).as_secs_f64();
            timings.decode_seconds = (last - first).as_secs_f64();
        }
        timings.total_seconds = (now - accepted).as_secs_f64();
        timings.set_rates(&reply.usage);
        (last, reply)
    }
}

/// Adds a piece to the reply, and gives its events.
fn add(piece: ReplyPiece, token_index: usize, reply: &mut Reply) -> impl Iterator<Item = Event> {
    let ReplyPiece { thought, text, .. } = piece;
    reply.text.push_str(&text);
    if !thought.is_empty() {
        reply.thinking.get_or_insert_default().push_str(&thought);
    }
    let thinking = (!thought.is_empty()).then_some(Event::Thinking {
        text: thought,
        token_index,
    });
    let delta = (!text.is_empty()).then_some(Event::Delta { text, token_index });
    thinking.into_iter().chain(delta)
}

/// Ends a job that is not going to run because the engine goes.
fn cancel(job: Job) {
    match job {
        Job::Generate(request) => {
            request.events.cancel_handle().cancel();
            request.events.finish(None, Err(Error::EngineClosed));
        }
        Job::Score(request) => fail(Job::Score(request), || Error::EngineClosed),
    }
}

fn fail(job: Job, error: impl Fn() -> Error) {
    match job {
        Job::Generate(request) => request.events.finish(None, Err(error())),
        Job::Score(request) => {
            let _ = request.result.send(Err(error()));
        }
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests;
