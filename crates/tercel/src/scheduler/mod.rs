//! The engine's thread: takes requests and moves all that are open forward, pass by pass.
//!
//! A pass has the next token of each reply, and pieces of prompts: a request joins with the next
//! pass and leaves with its last token. What else is in a pass changes no result, since a token's
//! logits depend on the tokens before it alone, bit for bit. Cancellation and deadlines are looked
//! at between passes.

mod control;
mod reply;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;
use tercel_nn::{Chunk, Identity, Logits, NnError, SequenceId, Wanted};
use tercel_text::Tokenizer;

use crate::TokenId;
use crate::error::Error;
use crate::job::{Job, Score};
use crate::model::{MAX_ROWS, Model};
use crate::pace::Pace;
use crate::queue::{Queue, Waiting};
use crate::reply::StopReason;
use crate::score::log_probability;
use crate::speculate::look_up;
pub(crate) use control::Control;
use reply::Writing;

/// Sequences that a pass handles without touching the heap.
const INLINE: usize = 16;

/// How many requests are at work at once, and how long to wait for company.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caps {
    /// Tokens that prompt and reply may have together.
    pub(crate) max_context: usize,
    /// The most tokens of prompts in a pass.
    pub(crate) prefill_chunk: usize,
    /// Requests at work at once.
    pub(crate) max_sequences: usize,
    /// Tokens that their prompts may have together; a longer one works alone.
    pub(crate) max_batch_tokens: usize,
    /// How long an idle engine waits for more requests before it begins.
    pub(crate) max_batch_wait: Duration,
}

/// One model at work.
pub(crate) struct Scheduler<M> {
    model: M,
    tokenizer: Arc<Tokenizer>,
    control: Arc<Control>,
    queue: Arc<Queue>,
    caps: Caps,
    /// In the order they began.
    active: Vec<Active>,
    pace: Pace,
    /// When a first request came to an idle engine.
    gathering: Option<Instant>,
}

/// A request at work.
struct Active {
    sequence: SequenceId,
    /// Prompt and reply.
    tokens: Vec<TokenId>,
    /// Those of the prompt.
    prompt: usize,
    /// How many of the tokens the model holds.
    held: usize,
    priority: i32,
    work: Work,
}

enum Work {
    Write(Box<Writing>),
    Score { request: Score, scores: Vec<f64> },
}

/// An active request's part of a pass.
struct Part {
    active: usize,
    /// Tokens after those that are held.
    tokens: usize,
    /// How many of them are guesses, the last ones.
    guesses: usize,
    wanted: Wanted,
}

/// How a request fares after a pass.
struct Outcome {
    active: usize,
    /// Tokens of the pass that proved wrong.
    wrong: usize,
    end: Option<Result<StopReason, Error>>,
}

impl<M: Model> Scheduler<M> {
    pub(crate) fn new(
        model: M,
        tokenizer: Arc<Tokenizer>,
        control: Arc<Control>,
        queue: Arc<Queue>,
        caps: Caps,
    ) -> Self {
        Self {
            model,
            tokenizer,
            control,
            queue,
            caps,
            active: Vec::with_capacity(caps.max_sequences),
            pace: Pace::default(),
            gathering: None,
        }
    }

    /// Works until the engine is dropped, or a fault.
    pub(crate) fn run(mut self) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.work())) {
            let message = format!("the engine's thread panicked: {}", panic_message(&*panic));
            self.control.fail(message);
        }
        // Who waits for a request at work learns it from its dropped channel.
        for job in self.queue.close() {
            let error = self.control.closed();
            if let Job::Generate(request) = &job {
                request.events.cancel_handle().cancel();
            }
            job.fail(error);
        }
    }

    fn work(&mut self) {
        while !self.control.is_stopping() {
            for task in self.queue.take_tasks() {
                task(&mut self.model);
            }
            self.sweep();
            let wait = self.admit();
            if !self.pass() {
                let deadlines = self.active.iter().filter_map(Active::next_deadline);
                let until = deadlines
                    .chain(self.queue.next_deadline())
                    .chain(wait)
                    .min();
                self.queue.wake().wait(until);
            }
        }
        for active in std::mem::take(&mut self.active) {
            match active.work {
                Work::Write(writing) => writing.finish(StopReason::Cancelled),
                Work::Score { request, .. } => Job::Score(request).fail(Error::EngineClosed),
            }
        }
    }

    /// Ends what was cancelled or is too late, at work or waiting.
    fn sweep(&mut self) {
        let now = Instant::now();
        for i in (0..self.active.len()).rev() {
            let Work::Write(writing) = &self.active[i].work else {
                continue;
            };
            if let Some(reason) = writing.interrupted(now) {
                self.end(i, Ok(reason));
            }
        }
        let is_late = |job: &Job| job.deadline().is_some_and(|deadline| deadline <= now);
        for job in self
            .queue
            .take_out(|job| job.is_cancelled() || is_late(job))
        {
            if let Job::Generate(request) = job {
                // Of a cancelled one the reader knows already.
                reply::expire(*request);
            }
        }
    }

    /// Begins waiting requests while there is room for them. Gives until when to wait for more.
    fn admit(&mut self) -> Option<Instant> {
        if self.active.is_empty() && !self.caps.max_batch_wait.is_zero() {
            let waiting = self.queue.len();
            if waiting == 0 {
                self.gathering = None;
                return None;
            }
            let since = *self.gathering.get_or_insert_with(Instant::now);
            let until = since + self.caps.max_batch_wait;
            if waiting < self.caps.max_sequences && Instant::now() < until {
                return Some(until);
            }
            self.gathering = None;
        }
        while self.active.len() < self.caps.max_sequences {
            let waiting = self.queue.pop()?;
            if let Err(waiting) = self.begin(waiting) {
                self.queue.put_back(waiting);
                break;
            }
        }
        None
    }

    /// Begins a request; gives it back where it has to wait for others to end.
    fn begin(&mut self, waiting: Waiting) -> Result<(), Waiting> {
        let (tokens, reusable, room, identity) = match &waiting.job {
            Job::Generate(request) => {
                let prompt = &request.prompt;
                // The last token is always computed: its logits are where the reply begins.
                let reusable = prompt.len() - 1;
                let room = request.room;
                (prompt, reusable, room, request.identity)
            }
            // The last token is only predicted.
            Job::Score(request) => (&request.tokens, request.from, 0, Identity::default()),
        };
        let together: usize = self.active.iter().map(|active| active.prompt).sum();
        if !self.active.is_empty() && together + tokens.len() > self.caps.max_batch_tokens {
            return Err(waiting);
        }
        let max_len = tokens.len().saturating_add(room);
        let (sequence, prefix) = match self.model.open(tokens, reusable, max_len, identity) {
            Ok(opened) => opened,
            Err(NnError::KvBusy { .. } | NnError::TooManySequences { .. })
                if !self.active.is_empty() =>
            {
                return Err(waiting);
            }
            Err(error) => {
                waiting.job.fail(Error::Inference(error));
                return Ok(());
            }
        };
        let priority = waiting.job.priority();
        let (tokens, work) = match waiting.job {
            Job::Generate(mut request) => {
                let Some(draft) = request.events.start() else {
                    self.model.close(sequence);
                    return Ok(());
                };
                request.terms.speculation &= self.model.can_roll_back();
                let (mut writing, tokens) = Writing::new(*request, draft, prefix.tokens);
                writing.reply.usage.cache_miss = prefix.miss.map(Into::into);
                (tokens, Work::Write(Box::new(writing)))
            }
            Job::Score(mut request) => {
                let tokens = std::mem::take(&mut request.tokens);
                let scores = Vec::with_capacity(tokens.len() - request.from);
                (tokens, Work::Score { request, scores })
            }
        };
        let mut active = Active {
            sequence,
            prompt: tokens.len(),
            tokens,
            held: prefix.tokens,
            priority,
            work,
        };
        let most = self.caps.max_context.saturating_sub(active.tokens.len());
        active
            .tokens
            .reserve(room.min(most) + crate::speculate::MAX_DRAFT);
        self.active.push(active);
        Ok(())
    }

    /// Computes one pass; whether there was anything to compute.
    fn pass(&mut self) -> bool {
        let (parts, replies) = self.plan();
        if parts.is_empty() {
            return false;
        }
        let chunks: SmallVec<[Chunk<'_>; INLINE]> = parts
            .iter()
            .map(|part| {
                let active = &self.active[part.active];
                Chunk {
                    sequence: active.sequence,
                    tokens: &active.tokens[active.held..active.held + part.tokens],
                    wanted: part.wanted,
                }
            })
            .collect();
        let total: usize = chunks.iter().map(|chunk| chunk.tokens.len()).sum();
        let begun = Instant::now();
        let computed = self.model.forward(&chunks);
        drop(chunks);
        let took = begun.elapsed();
        let mut outcomes: SmallVec<[Outcome; INLINE]> = SmallVec::new();
        match computed {
            Ok(logits) => {
                let mut row = 0;
                for part in &parts {
                    let active = &mut self.active[part.active];
                    let rows = row..row + part.rows();
                    row = rows.end;
                    let settled =
                        active.settle(part, &logits, rows, &self.tokenizer, self.caps.max_context);
                    outcomes.push(settled);
                }
                self.pace.record(replies, total - replies, took);
            }
            Err(error) => {
                // Nothing was appended. What is wrong with the pass is wrong with each part.
                outcomes.extend(parts.iter().map(|part| {
                    let active = &mut self.active[part.active];
                    let known = active.tokens.len() - part.guesses;
                    active.tokens.truncate(known);
                    Outcome {
                        active: part.active,
                        wrong: 0,
                        end: Some(Err(Error::Inference(error.clone()))),
                    }
                }));
            }
        }
        for outcome in &outcomes {
            if outcome.wrong > 0 {
                let sequence = self.active[outcome.active].sequence;
                self.model.roll_back(sequence, outcome.wrong);
            }
        }
        outcomes.sort_unstable_by_key(|outcome| std::cmp::Reverse(outcome.active));
        for outcome in outcomes {
            if let Some(end) = outcome.end {
                self.end(outcome.active, end);
            }
        }
        true
    }

    /// Chooses what goes into the next pass, and counts the tokens of replies in it.
    fn plan(&mut self) -> (SmallVec<[Part; INLINE]>, usize) {
        let (max_tokens, max_rows) = self.model.limits();
        let mut parts: SmallVec<[Part; INLINE]> = SmallVec::new();
        let mut prompts: SmallVec<[(usize, usize); INLINE]> = SmallVec::new();
        let (mut tokens, mut rows) = (0, 0);
        for (i, active) in self.active.iter().enumerate() {
            let pending = active.pending();
            match &active.work {
                Work::Write(writing) if active.held >= active.prompt => {
                    // A lagging reader makes its own reply wait, and no other.
                    let n = pending.min(max_tokens - tokens);
                    if n > 0 && writing.events.has_room() {
                        let wanted = if n == pending {
                            Wanted::Last
                        } else {
                            Wanted::None
                        };
                        let part = Part {
                            active: i,
                            tokens: n,
                            guesses: 0,
                            wanted,
                        };
                        (tokens, rows) = (tokens + n, rows + part.rows());
                        parts.push(part);
                    }
                }
                _ if pending > 0 => prompts.push((i, pending)),
                _ => {}
            }
        }
        let replies = tokens;
        let is_decoding = prompts.is_empty();
        if !is_decoding {
            let most = self.caps.prefill_chunk.min(max_tokens - tokens);
            let allowed = self.pace.allowance(replies, most);
            self.share(&mut prompts, allowed);
        }
        for (i, mut n) in prompts {
            let active = &self.active[i];
            let wanted = match &active.work {
                Work::Write(_) if n == active.pending() => Wanted::Last,
                Work::Score { request, .. } if active.held >= request.from => {
                    n = n.min(MAX_ROWS).min(max_rows.saturating_sub(rows));
                    Wanted::All
                }
                Work::Score { request, .. } => {
                    n = n.min(request.from - active.held);
                    Wanted::None
                }
                Work::Write(_) => Wanted::None,
            };
            if n == 0 || (wanted == Wanted::Last && rows == max_rows) {
                continue;
            }
            let part = Part {
                active: i,
                tokens: n,
                guesses: 0,
                wanted,
            };
            (tokens, rows) = (tokens + n, rows + part.rows());
            parts.push(part);
        }
        // Guesses take what is left.
        for part in parts.iter_mut().filter(|_| is_decoding) {
            let active = &mut self.active[part.active];
            let most = (max_rows - rows).min(max_tokens - tokens);
            let n = active.guess(&self.pace, most, self.caps.max_context);
            if n > 0 {
                part.tokens += n;
                part.guesses = n;
                part.wanted = Wanted::All;
                (tokens, rows) = (tokens + n, rows + n);
            }
        }
        (parts, replies)
    }

    /// Divides what a pass may take of prompts: half goes to the one that began first among the
    /// most urgent, so that it ends; then the short ones have theirs, so that they need not wait
    /// for the long.
    fn share(&self, prompts: &mut SmallVec<[(usize, usize); INLINE]>, allowed: usize) {
        let urgency = |i: usize| std::cmp::Reverse(self.active[i].priority);
        let first = prompts
            .iter()
            .map(|(i, _)| *i)
            .min_by_key(|i| (urgency(*i), *i));
        prompts.sort_unstable_by_key(|(i, pending)| (urgency(*i), *pending, *i));
        let limit = |i: usize, n: usize| n.min(self.model.until_stop(self.active[i].sequence));
        let mut left = allowed;
        let mut kept = 0;
        if let Some(first) = first
            && let Some((i, pending)) = prompts.iter().find(|(i, _)| *i == first)
        {
            kept = limit(*i, (*pending).min(allowed.div_ceil(2)));
            left -= kept;
        }
        for (i, pending) in prompts.iter_mut() {
            let own = if Some(*i) == first { kept } else { 0 };
            let n = limit(*i, (*pending).min(left + own));
            left = left + own - n;
            *pending = n;
        }
        prompts.retain(|(_, n)| *n > 0);
    }

    /// Ends a request at work.
    fn end(&mut self, active: usize, end: Result<StopReason, Error>) {
        let Active { sequence, work, .. } = self.active.remove(active);
        self.model.close(sequence);
        match (work, end) {
            (Work::Write(writing), Ok(reason)) => writing.finish(reason),
            (Work::Write(writing), Err(error)) => writing.events.finish(None, Err(error)),
            (Work::Score { request, scores }, end) => {
                // A caller that has gone needs no answer.
                let _ = request.result.send(end.map(|_| scores));
            }
        }
    }
}

impl Active {
    /// Tokens that are still to be computed.
    fn pending(&self) -> usize {
        let last = match &self.work {
            Work::Write(_) => 0,
            Work::Score { .. } => 1,
        };
        self.tokens.len() - last - self.held
    }

    fn next_deadline(&self) -> Option<Instant> {
        match &self.work {
            Work::Write(writing) => writing.next_deadline(),
            Work::Score { .. } => None,
        }
    }

    /// Appends guesses to the tokens, up to `most`, and gives how many.
    fn guess(&mut self, pace: &Pace, most: usize, max_context: usize) -> usize {
        let Work::Write(writing) = &mut self.work else {
            return 0;
        };
        if self.held < self.prompt || self.tokens.len() - self.held != 1 {
            return 0;
        }
        // The last token of a reply is not computed, so a guess there would be for nothing.
        let room = max_context.saturating_sub(self.tokens.len() + 1);
        let most = most.min(room).min(writing.left().saturating_sub(1));
        let most = writing.speculation.draft_len(pace, most);
        look_up(&mut self.tokens, most)
    }

    /// Takes what a pass has computed for a part of it.
    fn settle(
        &mut self,
        part: &Part,
        logits: &Logits<'_>,
        rows: std::ops::Range<usize>,
        tokenizer: &Tokenizer,
        max_context: usize,
    ) -> Outcome {
        let outcome = |wrong, end| Outcome {
            active: part.active,
            wrong,
            end,
        };
        let known = self.tokens.len() - part.guesses;
        let guesses: SmallVec<[TokenId; 8]> = self.tokens.drain(known..).collect();
        let computed = part.tokens - part.guesses;
        self.held += computed;
        match &mut self.work {
            Work::Score { request, scores } => {
                for (i, row) in rows.enumerate() {
                    let next = self.tokens[self.held - computed + i + 1];
                    match log_probability(logits.row(row), next) {
                        Ok(score) => scores.push(score),
                        Err(_) => {
                            let tokens = self.held;
                            return outcome(0, Some(Err(Error::InvalidLogits { tokens })));
                        }
                    }
                }
                let is_done = self.held + 1 == self.tokens.len() && self.held > request.from;
                outcome(0, is_done.then_some(Ok(StopReason::Eos)))
            }
            Work::Write(writing) => {
                let mut accepted = 0;
                let mut end = None;
                for (i, row) in rows.enumerate() {
                    let row = logits.row(row);
                    // A padded vocabulary has rows that are no token's.
                    let row = &row[..row.len().min(tokenizer.vocab_size())];
                    let Ok(token) = writing.sampler.sample(writing.step(), row) else {
                        let tokens = self.held;
                        end = Some(Err(Error::InvalidLogits { tokens }));
                        break;
                    };
                    let before = self.tokens.len();
                    let reason = writing.accept(token, &mut self.tokens, tokenizer, max_context);
                    end = reason.map(Ok);
                    let is_right = guesses.get(i) == Some(&token);
                    if end.is_some() || !is_right || self.tokens.len() != before + 1 {
                        break;
                    }
                    accepted += 1;
                    self.held += 1;
                }
                if part.guesses > 0 {
                    writing.speculation.learn(part.guesses, accepted);
                    writing.reply.usage.drafted_tokens += part.guesses;
                    writing.reply.usage.accepted_draft_tokens += accepted;
                }
                outcome(part.guesses - accepted, end)
            }
        }
    }
}

impl Part {
    /// Rows of logits that it asks for.
    fn rows(&self) -> usize {
        match self.wanted {
            Wanted::None => 0,
            Wanted::Last => 1,
            Wanted::All => self.tokens,
        }
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
