//! A reply while it is written.

use std::time::{Duration, Instant};

use tercel_text::grammar::GrammarError;
use tercel_text::{ReplyPiece, ReplyStream, Tokenizer};

use crate::TokenId;
use crate::error::Error;
use crate::guide::Guide;
use crate::job::{Generate, Terms};
use crate::logprobs::TokenLogprob;
use crate::pipe::Sender;
use crate::reply::{Event, Reply, StopReason};
use crate::sampler::{InvalidLogits, Sampler};
use crate::speculate::Speculation;
use crate::tools::Calls;

/// A reply, and all it takes to go on with it.
pub(super) struct Writing {
    pub(super) reply: Reply,
    text: ReplyStream,
    /// What ends the thought by force, once.
    closing: Vec<TokenId>,
    /// What leads it along a grammar.
    guide: Option<Guide>,
    /// What reads its calls of tools.
    calls: Option<Calls>,
    pub(super) sampler: Sampler,
    pub(super) speculation: Speculation,
    /// How the guesses of a smaller model do.
    pub(super) drafting: Speculation,
    pub(super) events: Sender,
    terms: Terms,
    started: Instant,
    /// How many alternatives of each token to tell, where anything is told.
    logprobs: Option<usize>,
    /// How many log-probabilities the reader was sent.
    sent_logprobs: usize,
    /// Tokens at the last look at the memory.
    looked_at: usize,
    /// Whether the memory budget has made the reply shorter.
    is_capped: bool,
    /// When the first token came.
    first: Option<Instant>,
    /// When the latest token came.
    last: Option<Instant>,
}

impl Writing {
    /// Begins a reply with the prompt's tokens.
    pub(super) fn new(request: Generate, mut reply: Reply, cached: usize) -> (Self, Vec<TokenId>) {
        let Generate {
            prompt,
            tags,
            end,
            closing,
            terms,
            logprobs,
            mut guide,
            mut calls,
            events,
            ..
        } = request;
        if let Some(guide) = &mut guide {
            guide.look_ahead();
        }
        let started = Instant::now();
        reply.usage.prompt_tokens = prompt.len();
        reply.usage.cached_tokens = cached;
        reply.timings.set_start(started - events.accepted());
        let mut text = ReplyStream::new(tags, end, &reply.settings.stop);
        if let Some(calls) = &mut calls {
            calls.begin(reply.settings.seed, &prompt);
            text = text.with_calls(calls.format());
        }
        let mut sampler = Sampler::default();
        sampler.begin(&reply.settings, &prompt);
        let most = reply.settings.max_new_tokens.min(1024);
        reply.tokens.reserve(most);
        if logprobs.is_some() {
            reply.logprobs.reserve(most);
        }
        let writing = Self {
            text,
            reply,
            closing,
            guide,
            calls,
            sampler,
            speculation: Speculation::new(terms.speculation),
            drafting: Speculation::new(terms.speculation),
            events,
            terms,
            started,
            logprobs,
            sent_logprobs: 0,
            looked_at: 0,
            is_capped: false,
            first: None,
            last: None,
        };
        (writing, prompt)
    }

    /// The index of the next token.
    pub(super) fn step(&self) -> u64 {
        self.reply.tokens.len() as u64
    }

    /// Tokens at the last call, and now.
    pub(super) fn tokens_since(&mut self) -> (usize, usize) {
        let now = self.reply.tokens.len();
        (std::mem::replace(&mut self.looked_at, now), now)
    }

    /// Makes the reply end after `most` tokens.
    pub(super) fn cap(&mut self, most: usize) {
        self.is_capped |= most < self.reply.settings.max_new_tokens;
        self.reply.settings.max_new_tokens = most;
    }

    /// Tokens that the reply may still get.
    pub(super) fn left(&self) -> usize {
        let most = self.reply.settings.max_new_tokens;
        most.saturating_sub(self.reply.tokens.len())
    }

    /// Why it has to end now, whatever comes.
    pub(super) fn interrupted(&self, now: Instant) -> Option<StopReason> {
        if self.events.is_cancelled() {
            return Some(StopReason::Cancelled);
        }
        let is_late = |since: Instant, most: Option<Duration>| {
            most.is_some_and(|most| now.saturating_duration_since(since) >= most)
        };
        let waits_since = self.last.unwrap_or(self.started);
        let late = is_late(self.events.accepted(), self.terms.deadline)
            // A reader that does not read is not the model's fault.
            || (self.events.has_room() && is_late(waits_since, self.terms.token_timeout));
        late.then_some(StopReason::Timeout)
    }

    /// When [`interrupted`](Self::interrupted) is to be asked at the latest.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let deadline = self.terms.deadline;
        let whole = deadline.and_then(|most| self.events.accepted().checked_add(most));
        let waits_since = self.last.unwrap_or(self.started);
        let token = self.terms.token_timeout;
        let token = token.and_then(|most| waits_since.checked_add(most));
        [whole, token].into_iter().flatten().min()
    }

    /// Draws the next token from a row of logits, and says how likely it was where that is wanted.
    pub(super) fn sample(
        &mut self,
        row: &[f32],
        tokenizer: &Tokenizer,
    ) -> Result<(TokenId, Option<TokenLogprob>), Unsampled> {
        let started = Instant::now();
        // A padded vocabulary has rows that are no token's.
        let logits = &row[..row.len().min(tokenizer.vocab_size())];
        let step = self.step();
        let allowed = self.guide.as_mut().map(Guide::allowed).transpose()?;
        let token = match allowed {
            None => self.sampler.sample(step, logits)?,
            Some(allowed) => self.sampler.sample_allowed(step, logits, &allowed)?,
        };
        let of = |top| TokenLogprob::of(token, row, top, &mut self.sampler, tokenizer);
        let logprob = self.logprobs.map(of).transpose()?;
        self.reply.timings.sampling_seconds += started.elapsed().as_secs_f64();
        Ok((token, logprob))
    }

    /// Makes `token` part of the reply, and whatever must follow it. `tokens` are those of prompt
    /// and reply. Gives why the reply ends, where it does.
    pub(super) fn accept(
        &mut self,
        token: TokenId,
        logprob: Option<TokenLogprob>,
        tokens: &mut Vec<TokenId>,
        tokenizer: &Tokenizer,
        max_context: usize,
    ) -> Result<Option<StopReason>, GrammarError> {
        let mut end = self.add(token, logprob, tokens, tokenizer, max_context);
        if end.is_none() && self.must_close(tokens.len(), max_context) {
            let closing = std::mem::take(&mut self.closing);
            end = self.add_given(closing, tokens, tokenizer, max_context);
        }
        if end.is_some() {
            return Ok(end);
        }
        let room = self.left().min(max_context.saturating_sub(tokens.len()));
        let Some(guide) = &mut self.guide else {
            return Ok(None);
        };
        let forced = guide.accept(token, self.text.is_thinking(), room)?;
        let is_over = guide.is_over()?;
        if !is_over {
            guide.look_ahead();
        }
        let end = self.add_given(forced, tokens, tokenizer, max_context);
        Ok(end.or(is_over.then_some(StopReason::Eos)))
    }

    /// Makes tokens part of the reply that were not chosen, up to its end.
    fn add_given(
        &mut self,
        given: Vec<TokenId>,
        tokens: &mut Vec<TokenId>,
        tokenizer: &Tokenizer,
        max_context: usize,
    ) -> Option<StopReason> {
        given.into_iter().find_map(|token| {
            let logprob = self.logprobs.map(|_| TokenLogprob::given(token, tokenizer));
            self.add(token, logprob, tokens, tokenizer, max_context)
        })
    }

    fn add(
        &mut self,
        token: TokenId,
        logprob: Option<TokenLogprob>,
        tokens: &mut Vec<TokenId>,
        tokenizer: &Tokenizer,
        max_context: usize,
    ) -> Option<StopReason> {
        self.sampler.accept(token);
        let now = Instant::now();
        self.first.get_or_insert(now);
        self.last = Some(now);
        let reply = &mut self.reply;
        let token_index = reply.tokens.len();
        reply.tokens.push(token);
        reply.logprobs.extend(logprob);
        tokens.push(token);
        if tokenizer.is_end(token) && !reply.settings.ignore_eos {
            return Some(StopReason::Eos);
        }
        let was_thinking = self.text.is_thinking();
        let piece = self.text.push(tokenizer, token);
        reply.timings.detokenize_seconds += now.elapsed().as_secs_f64();
        if was_thinking || self.text.is_thinking() {
            reply.usage.thinking_tokens = reply.tokens.len();
        }
        let stopped = piece.stopped;
        let mut events = split(piece, token_index, reply, self.calls.as_mut()).peekable();
        if events.peek().is_some() {
            self.send_logprobs();
        }
        for event in events {
            if self.events.send(event).is_break() {
                return Some(StopReason::Cancelled);
            }
        }
        let reply = &mut self.reply;
        if let Some(stop) = stopped {
            reply.stop_sequence = reply.settings.stop.get(stop).cloned();
            Some(StopReason::StopSequence)
        } else if self.calls.as_ref().is_some_and(Calls::are_enough) {
            Some(StopReason::ToolCall)
        } else if reply.tokens.len() >= reply.settings.max_new_tokens {
            Some(if self.is_capped {
                StopReason::ResourceLimit
            } else {
                StopReason::MaxNewTokens
            })
        } else if tokens.len() >= max_context {
            Some(StopReason::ContextFull)
        } else {
            None
        }
    }

    /// Whether the thought has to end now, for the answer's sake. Where there is no room for an
    /// answer, nothing would be gained.
    fn must_close(&self, tokens: usize, max_context: usize) -> bool {
        let Reply {
            settings, usage, ..
        } = &self.reply;
        let left = self.left().min(max_context.saturating_sub(tokens));
        let left = left.saturating_sub(self.closing.len());
        let most = settings.max_thinking_tokens;
        let is_over = most.is_some_and(|most| usage.thinking_tokens >= most);
        self.text.is_thinking() && left > 0 && (is_over || left <= settings.min_answer_tokens)
    }

    /// Sends the log-probabilities that were not sent yet. Whether the reader has gone is told by
    /// what is sent next.
    fn send_logprobs(&mut self) {
        if !self.events.is_streaming() {
            return;
        }
        let all = &self.reply.logprobs;
        let first_token_index = std::mem::replace(&mut self.sent_logprobs, all.len());
        let logprobs = all[first_token_index..].to_vec();
        if !logprobs.is_empty() {
            let _ = self.events.send(Event::Logprobs {
                logprobs,
                first_token_index,
            });
        }
    }

    /// Ends the reply, with the text that was held back until now.
    pub(super) fn finish(mut self, reason: StopReason) {
        self.send_logprobs();
        let mut reply = self.reply;
        let rest = if reason == StopReason::StopSequence {
            ReplyPiece::default()
        } else {
            self.text.finish()
        };
        let token_index = reply.tokens.len().saturating_sub(1);
        let last = split(rest, token_index, &mut reply, self.calls.as_mut());
        let mut last: Vec<Event> = last.collect();
        reply.stop_reason = reason;
        if let Some(calls) = &mut self.calls {
            let (text, events) = calls.finish(token_index);
            reply.text.push_str(&text);
            last.extend(events);
            reply.tool_calls = calls.whole();
            reply.tool_parse_error = calls.error();
            if reason == StopReason::Eos && !reply.tool_calls.is_empty() {
                reply.stop_reason = StopReason::ToolCall;
            }
        }
        reply.usage.generated_tokens = reply.tokens.len();
        let accepted = self.events.accepted();
        let timings = &mut reply.timings;
        let now = Instant::now();
        timings.prefill_seconds = (self.first.unwrap_or(now) - self.started).as_secs_f64();
        if let (Some(first), Some(last)) = (self.first, self.last) {
            timings.time_to_first_token = (first - accepted).as_secs_f64();
            timings.decode_seconds = (last - first).as_secs_f64();
        }
        timings.total_seconds = (now - accepted).as_secs_f64();
        timings.set_rates(&reply.usage);
        let end = last.pop();
        for event in last {
            // Whether anyone reads it makes no difference any more.
            let _ = self.events.send(event);
        }
        self.events.finish(end, Ok(reply));
    }
}

/// Why there is no next token.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unsampled {
    #[error(transparent)]
    Logits(#[from] InvalidLogits),
    #[error(transparent)]
    Grammar(#[from] GrammarError),
}

impl Unsampled {
    /// The error of a request that has seen so many tokens.
    pub(super) fn after(self, tokens: usize) -> Error {
        match self {
            Self::Logits(InvalidLogits) => Error::InvalidLogits { tokens },
            Self::Grammar(error) => Error::Grammar(error),
        }
    }
}

/// Ends a request that was too late before it began.
pub(super) fn expire(request: Generate) {
    let Some(mut reply) = request.events.start() else {
        return;
    };
    reply.stop_reason = StopReason::Timeout;
    let waited = request.events.accepted().elapsed();
    reply.timings.set_start(waited);
    reply.timings.total_seconds = waited.as_secs_f64();
    request.events.finish(None, Ok(reply));
}

/// Adds a piece to the reply, and gives its events.
fn split(
    piece: ReplyPiece,
    token_index: usize,
    reply: &mut Reply,
    calls: Option<&mut Calls>,
) -> impl Iterator<Item = Event> + use<> {
    let ReplyPiece { thought, text, .. } = piece;
    if !thought.is_empty() {
        reply.thinking.get_or_insert_default().push_str(&thought);
    }
    let thinking = (!thought.is_empty()).then_some(Event::Thinking {
        text: thought,
        token_index,
    });
    let (text, events) = match calls {
        Some(calls) => calls.push(&text, token_index),
        None => (text, Vec::new()),
    };
    reply.text.push_str(&text);
    // The events of calls have the text among them.
    let is_told = !events.is_empty() || text.is_empty();
    let delta = (!is_told).then_some(Event::Delta { text, token_index });
    thinking.into_iter().chain(delta).chain(events)
}
