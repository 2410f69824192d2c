//! A request at work: what it wants of a pass, and what a pass brings it.

use std::time::Instant;

use smallvec::SmallVec;
use tercel_nn::{Logits, SequenceId, Wanted};
use tercel_text::Tokenizer;

use super::INLINE;
use super::reply::Writing;
use super::watch::{Watch, Watched};
use crate::TokenId;
use crate::draft::{Drafter, Follower, Want};
use crate::embed::Pooled;
use crate::error::Error;
use crate::job::{Embed, Score};
use crate::memory::{Action, Monitor};
use crate::model::Model;
use crate::pace::Pace;
use crate::reply::StopReason;
use crate::score::log_probability;
use crate::speculate::look_up;

/// A request at work.
pub(super) struct Active {
    pub(super) sequence: SequenceId,
    /// Prompt and reply.
    pub(super) tokens: Vec<TokenId>,
    /// Those of the prompt.
    pub(super) prompt: usize,
    /// How many of the tokens the model holds.
    pub(super) held: usize,
    pub(super) priority: i32,
    /// How far the model that guesses has read it.
    pub(super) follower: Option<Follower>,
    pub(super) watched: Watched,
    pub(super) work: Work,
}

pub(super) enum Work {
    Write(Box<Writing>),
    Score { request: Score, scores: Vec<f64> },
    Embed { request: Embed, pooled: Pooled },
}

/// An active request's part of a pass.
pub(super) struct Part {
    pub(super) active: usize,
    /// Tokens after those that are held.
    pub(super) tokens: usize,
    /// How many of them are guesses, the last ones.
    pub(super) guesses: usize,
    /// Whether those are the other model's.
    pub(super) drafted: bool,
    pub(super) wanted: Wanted,
}

/// How a request fares after a pass.
pub(super) struct Outcome {
    pub(super) active: usize,
    /// Tokens of the pass that proved wrong.
    pub(super) wrong: usize,
    pub(super) end: Option<Result<StopReason, Error>>,
}

impl Active {
    /// Looks at the memory now and then, and makes the reply shorter or ends it where the budget
    /// says so.
    pub(super) fn within_budget(
        &mut self,
        watch: &mut Watch,
        model: &impl Model,
    ) -> Option<StopReason> {
        let Work::Write(writing) = &mut self.work else {
            return None;
        };
        let (before, after) = writing.tokens_since();
        let most = writing.reply.settings.max_new_tokens;
        let holding = || model.holding(self.sequence);
        match watch.tokens(&mut self.watched, before, after, most, holding) {
            Action::Ok | Action::LogAndContinue => None,
            Action::ReduceWork => {
                writing.cap(Monitor::reduced_max_new_tokens(after, most));
                None
            }
            Action::StopGeneration => Some(StopReason::ResourceLimit),
        }
    }

    /// Tokens that are still to be computed.
    pub(super) fn pending(&self) -> usize {
        let last = match &self.work {
            Work::Write(_) | Work::Embed { .. } => 0,
            Work::Score { .. } => 1,
        };
        self.tokens.len() - last - self.held
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        match &self.work {
            Work::Write(writing) => writing.next_deadline(),
            Work::Score { .. } | Work::Embed { .. } => None,
        }
    }

    /// Appends guesses to the tokens, up to `most`, and gives how many.
    pub(super) fn guess(&mut self, pace: &Pace, most: usize, max_context: usize) -> usize {
        let most = most.min(self.room_for_guesses(max_context));
        let Work::Write(writing) = &mut self.work else {
            return 0;
        };
        let most = writing.speculation.draft_len(pace, 0.0, most);
        look_up(&mut self.tokens, most)
    }

    /// Guesses that may be appended to the tokens.
    pub(super) fn room_for_guesses(&self, max_context: usize) -> usize {
        let Work::Write(writing) = &self.work else {
            return 0;
        };
        if self.held < self.prompt || self.tokens.len() - self.held != 1 {
            return 0;
        }
        // The last token of a reply is not computed, so a guess there would be for nothing.
        let room = max_context.saturating_sub(self.tokens.len() + 1);
        room.min(writing.left().saturating_sub(1))
    }

    /// Takes what a pass has computed for a part of it: rows of logits, or hidden states.
    pub(super) fn settle(
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
            Work::Embed { pooled, .. } => {
                rows.for_each(|row| pooled.push(logits.hidden(row)));
                let is_done = self.held == self.tokens.len();
                outcome(0, is_done.then_some(Ok(StopReason::Eos)))
            }
            Work::Write(writing) => {
                let mut accepted = 0;
                let mut end = None;
                for (i, row) in rows.enumerate() {
                    let (token, logprob) = match writing.sample(logits.row(row), tokenizer) {
                        Ok(sampled) => sampled,
                        Err(unsampled) => {
                            end = Some(Err(unsampled.after(self.held)));
                            break;
                        }
                    };
                    let before = self.tokens.len();
                    let tokens = &mut self.tokens;
                    let reason = writing.accept(token, logprob, tokens, tokenizer, max_context);
                    end = reason.map_err(Error::Grammar).transpose();
                    let is_right = guesses.get(i) == Some(&token);
                    if end.is_some() || !is_right || self.tokens.len() != before + 1 {
                        break;
                    }
                    accepted += 1;
                    self.held += 1;
                }
                if part.guesses > 0 {
                    let speculation = if part.drafted {
                        &mut writing.drafting
                    } else {
                        &mut writing.speculation
                    };
                    speculation.learn(part.guesses, accepted);
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
    pub(super) fn rows(&self) -> usize {
        match self.wanted {
            Wanted::None | Wanted::Hidden => 0,
            Wanted::Last => 1,
            Wanted::All => self.tokens,
        }
    }

    /// Hidden states that it asks for.
    pub(super) fn hidden(&self) -> usize {
        match self.wanted {
            Wanted::Hidden => self.tokens,
            _ => 0,
        }
    }
}

/// Has `drafter` guess for the replies that have no guesses yet, `most` tokens in all.
pub(super) fn draft(
    active: &mut [Active],
    drafter: &mut Drafter,
    parts: &mut [Part],
    pace: &Pace,
    mut most: usize,
    max_context: usize,
    vocab_size: usize,
) {
    let mut wants: SmallVec<[Want<'_>; INLINE]> = SmallVec::new();
    let mut of: SmallVec<[usize; INLINE]> = SmallVec::new();
    for (i, active) in active.iter_mut().enumerate() {
        let part = parts
            .iter()
            .position(|part| part.active == i && part.guesses == 0);
        let room = active.room_for_guesses(max_context).min(most);
        let (Some(part), Some(follower), Work::Write(writing)) =
            (part, &mut active.follower, &mut active.work)
        else {
            continue;
        };
        let guesses = writing.drafting.draft_len(pace, drafter.seconds(), room);
        if guesses == 0 {
            continue;
        }
        most -= guesses;
        of.push(part);
        wants.push(Want {
            follower,
            tokens: &mut active.tokens,
            step: writing.step(),
            sampler: &mut writing.sampler,
            guesses,
            vocab_size,
        });
    }
    drafter.guess(&mut wants);
    for (want, part) in wants.iter().zip(of) {
        let part = &mut parts[part];
        if want.guesses > 0 {
            part.tokens += want.guesses;
            part.guesses = want.guesses;
            part.drafted = true;
            part.wanted = Wanted::All;
        }
    }
}
