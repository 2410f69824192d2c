//! The engine's thread: takes requests and moves all that are open forward, pass by pass.
//!
//! A pass has the next token of each reply, and pieces of prompts: a request joins with the next
//! pass and leaves with its last token. What else is in a pass changes no result, since a token's
//! logits depend on the tokens before it alone, bit for bit. Cancellation and deadlines are looked
//! at between passes.

mod active;
mod control;
mod reply;
#[cfg(test)]
mod tests;
mod watch;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;
use tercel_nn::{Chunk, Identity, KvUsage, NnError, Wanted};
use tercel_text::Tokenizer;

use crate::draft::Drafter;
use crate::embed::{Pooled, Pooling};
use crate::error::Error;
use crate::job::Job;
use crate::model::{MAX_ROWS, Model};
use crate::pace::Pace;
use crate::queue::{Queue, Waiting};
use crate::reply::StopReason;
use active::{Active, Outcome, Part, Work, draft};
pub(crate) use control::Control;
use reply::Writing;
use watch::Watch;

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
    /// Bytes that the process may hold.
    pub(crate) memory_budget: Option<u64>,
}

/// One model at work.
pub(crate) struct Scheduler<M> {
    model: M,
    drafter: Option<Drafter>,
    tokenizer: Arc<Tokenizer>,
    control: Arc<Control>,
    queue: Arc<Queue>,
    caps: Caps,
    /// In the order they began.
    active: Vec<Active>,
    pace: Pace,
    watch: Watch,
    /// When a first request came to an idle engine.
    gathering: Option<Instant>,
}

impl<M: Model> Scheduler<M> {
    pub(crate) fn new(
        model: M,
        tokenizer: Arc<Tokenizer>,
        control: Arc<Control>,
        queue: Arc<Queue>,
        caps: Caps,
    ) -> Self {
        control.note(0, model.usage());
        Self {
            model,
            drafter: None,
            tokenizer,
            control,
            queue,
            caps,
            active: Vec::with_capacity(caps.max_sequences),
            pace: Pace::default(),
            watch: Watch::new(caps.memory_budget),
            gathering: None,
        }
    }

    /// Lets another model guess what this one says.
    pub(crate) fn with_drafter(mut self, drafter: Option<Drafter>) -> Self {
        self.drafter = drafter;
        self
    }

    /// Works until the engine is dropped, or a fault.
    pub(crate) fn run(mut self) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.work())) {
            let message = format!("the engine's thread panicked: {}", panic_message(&*panic));
            self.control.fail(message);
        }
        self.control.note(0, KvUsage::default());
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
            self.note();
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
                Work::Embed { request, .. } => Job::Embed(request).fail(Error::EngineClosed),
            }
        }
    }

    /// Lets those who ask know how much is at work.
    fn note(&self) {
        self.control.note(self.active.len(), self.model.usage());
    }

    /// Ends what was cancelled or is too late, at work or waiting.
    fn sweep(&mut self) {
        let now = Instant::now();
        for i in (0..self.active.len()).rev() {
            let interrupted = match &self.active[i].work {
                Work::Write(writing) => writing.interrupted(now),
                Work::Embed { request, .. } => {
                    let is_abandoned = request.answer.is_abandoned();
                    is_abandoned.then_some(StopReason::Cancelled)
                }
                Work::Score { .. } => None,
            };
            if let Some(reason) = interrupted {
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
        while self.active.len() < self.watch.concurrency(self.caps.max_sequences) {
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
            Job::Embed(request) => {
                let tokens = &request.tokens;
                // What the cache holds of a token is not its hidden state.
                let reusable = match request.pooling {
                    Pooling::Mean => 0,
                    Pooling::Last => tokens.len() - 1,
                };
                (tokens, reusable, 0, Identity::default())
            }
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
        let (prompt, holding) = (tokens.len(), self.model.holding(sequence));
        let watched = match self.watch.begin(prompt, room, &prefix, holding) {
            Ok(watched) => watched,
            Err(error) => {
                self.model.close(sequence);
                waiting.job.fail(error);
                return Ok(());
            }
        };
        let (tokens, work) = match waiting.job {
            Job::Generate(mut request) => {
                let Some(draft) = request.events.start() else {
                    self.watch.end(&watched, 0, self.model.holding(sequence));
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
            Job::Embed(mut request) => {
                let tokens = std::mem::take(&mut request.tokens);
                let pooled = Pooled::new(request.pooling);
                (tokens, Work::Embed { request, pooled })
            }
        };
        let follower = match (&mut self.drafter, &work) {
            (Some(drafter), Work::Write(writing)) if writing.drafting.is_on() => {
                drafter.follow(max_len.min(self.caps.max_context))
            }
            _ => None,
        };
        let mut active = Active {
            sequence,
            follower,
            watched,
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
                let (mut row, mut hidden) = (0, 0);
                for part in &parts {
                    let active = &mut self.active[part.active];
                    // A part has rows of one kind.
                    let (next, n) = match part.wanted {
                        Wanted::Hidden => (&mut hidden, part.hidden()),
                        _ => (&mut row, part.rows()),
                    };
                    let rows = *next..*next + n;
                    *next = rows.end;
                    let settled =
                        active.settle(part, &logits, rows, &self.tokenizer, self.caps.max_context);
                    outcomes.push(settled);
                }
                for outcome in outcomes.iter_mut().filter(|outcome| outcome.end.is_none()) {
                    let active = &mut self.active[outcome.active];
                    outcome.end = active.within_budget(&mut self.watch, &self.model).map(Ok);
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
            let active = &mut self.active[outcome.active];
            if outcome.wrong > 0 {
                self.model.roll_back(active.sequence, outcome.wrong);
            }
            if let (Some(drafter), Some(follower)) = (&mut self.drafter, &mut active.follower) {
                drafter.take_back(follower, active.held);
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
                            drafted: false,
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
            self.share(&mut prompts, allowed, self.pace.burst().min(most));
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
                Work::Embed { request, .. }
                    if request.pooling == Pooling::Mean || n == active.pending() =>
                {
                    Wanted::Hidden
                }
                Work::Write(_) | Work::Embed { .. } => Wanted::None,
            };
            if n == 0 || (wanted == Wanted::Last && rows == max_rows) {
                continue;
            }
            let part = Part {
                active: i,
                tokens: n,
                guesses: 0,
                drafted: false,
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
        if is_decoding && let Some(drafter) = &mut self.drafter {
            let most = (max_rows - rows).min(max_tokens - tokens);
            let (pace, context) = (&self.pace, self.caps.max_context);
            let vocab_size = self.tokenizer.vocab_size();
            draft(
                &mut self.active,
                drafter,
                &mut parts,
                pace,
                most,
                context,
                vocab_size,
            );
        }
        (parts, replies)
    }

    /// Divides what a pass may take of prompts: half goes to the one that began first among the
    /// most urgent, so that it ends; then the short ones have theirs, so that they need not wait
    /// for the long.
    ///
    /// Short ones go on at once, as long as all together are no more than a `burst`: a pass more to
    /// wait for is worth less to the replies than a first token that comes early.
    fn share(
        &self,
        prompts: &mut SmallVec<[(usize, usize); INLINE]>,
        allowed: usize,
        burst: usize,
    ) {
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
        // Now and then replies are alone, so that what they cost is known.
        let mut more = if allowed == 0 {
            0
        } else {
            burst.saturating_sub(allowed)
        };
        for (i, pending) in prompts.iter_mut() {
            let own = if Some(*i) == first { kept } else { 0 };
            let n = limit(*i, (*pending).min(left + own));
            left = left + own - n;
            let rest = limit(*i, *pending) - n;
            let early = if *pending <= burst { rest.min(more) } else { 0 };
            more -= early;
            *pending = n + early;
        }
        prompts.retain(|(_, n)| *n > 0);
    }

    /// Ends a request at work.
    fn end(&mut self, active: usize, end: Result<StopReason, Error>) {
        let Active {
            sequence,
            follower,
            watched,
            prompt,
            work,
            ..
        } = self.active.remove(active);
        let tokens = match &work {
            Work::Write(writing) => writing.reply.tokens.len(),
            Work::Score { scores, .. } => scores.len(),
            Work::Embed { .. } => 0,
        };
        self.watch
            .end(&watched, tokens, self.model.holding(sequence));
        self.model.close(sequence);
        if let (Some(drafter), Some(follower)) = (&mut self.drafter, follower) {
            drafter.leave(&follower);
        }
        // Whoever has read the end finds it gone.
        self.note();
        match (work, end) {
            (Work::Write(writing), Ok(reason)) => writing.finish(reason),
            (Work::Write(writing), Err(error)) => writing.events.finish(None, Err(error)),
            (Work::Score { request, scores }, end) => {
                // A caller that has gone needs no answer.
                let _ = request.result.send(end.map(|_| scores));
            }
            (Work::Embed { request, pooled }, end) => {
                let invalid = |_| Error::InvalidLogits { tokens: prompt };
                let pooled = end.and_then(|_| pooled.finish().map_err(invalid));
                request.answer.give(pooled);
            }
        }
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
