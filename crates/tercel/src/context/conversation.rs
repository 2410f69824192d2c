//! Conversations that are too long: what goes, and what stays.

use std::ops::Range;

use tercel_text::{Message, Role, Tokenizer};

use super::fit::{Fit, MARK};
use super::points::Points;
use super::search::largest;
use super::turns::parts;
use super::{Cut, CutKind};
use crate::error::Error;
use crate::request::{Prompt, Prompter};
use crate::thinking::Thinking;

/// A conversation whose prompt has more tokens than there is room for.
pub(super) struct Conversation<'a> {
    messages: &'a [Message],
    thinking: Thinking,
    /// Tokens of its prompt.
    before: usize,
    prompter: &'a Prompter<'a>,
    fit: &'a Fit,
}

/// A prompt that fits, and the conversation it was rendered from.
struct Found<'a> {
    prompt: Prompt,
    /// In the order of their messages.
    shortened: Vec<Shortened<'a>>,
}

/// What is left of a message that lost its middle.
struct Shortened<'a> {
    /// The index of the message.
    index: usize,
    head: &'a str,
    /// What stands in the place of the middle.
    mark: &'static str,
    tail: &'a str,
}

impl<'a> Conversation<'a> {
    pub(super) fn new(
        messages: &'a [Message],
        thinking: Thinking,
        before: usize,
        prompter: &'a Prompter<'a>,
        fit: &'a Fit,
    ) -> Self {
        Self {
            messages,
            thinking,
            before,
            prompter,
            fit,
        }
    }

    /// See [`ContextOverflow::DropOldestTurns`](super::ContextOverflow::DropOldestTurns).
    pub(super) fn drop_oldest(&self) -> Result<(Prompt, Vec<Cut>), Error> {
        let (older, latest) = parts(self.messages);
        let mut least = self.before;
        match self.whole_turns(&older, latest.start, &mut least)? {
            Some((kept, found)) => {
                let start = start_of(&older, &latest, kept);
                Ok((found.prompt, self.cuts(start, &[])))
            }
            None => Err(self.fit.refusal(least)),
        }
    }

    /// See [`ContextOverflow::SlidingWindow`](super::ContextOverflow::SlidingWindow).
    pub(super) fn slide(&self) -> Result<(Prompt, Vec<Cut>), Error> {
        let (older, latest) = parts(self.messages);
        let mut least = self.before;
        let whole = self.whole_turns(&older, latest.start, &mut least)?;
        // The turn that did not fit whole.
        let edge = match &whole {
            Some((kept, _)) => older[older.len() - kept - 1].clone(),
            None => latest.clone(),
        };
        let fixed = whole.as_ref().map(|(_, found)| found.prompt.tokens.len());
        let cut = self.window(edge.clone(), fixed.unwrap_or(0), &mut least)?;
        match (cut, whole) {
            (Some(found), _) => {
                let cuts = self.cuts(edge.start, &found.shortened);
                Ok((found.prompt, cuts))
            }
            (None, Some((_, found))) => Ok((found.prompt, self.cuts(edge.end, &[]))),
            (None, None) => Err(self.fit.refusal(least)),
        }
    }

    /// See [`ContextOverflow::TruncateMiddle`](super::ContextOverflow::TruncateMiddle).
    pub(super) fn truncate_middle(&self) -> Result<(Prompt, Vec<Cut>), Error> {
        let texts = self.texts(0..self.messages.len());
        let mark = Points::of(MARK, self.tokenizer()).pieces();
        let longest = texts.iter().map(|(_, points)| points.pieces()).max();
        let mut least = self.before;
        let guess = self.fit.room() / texts.len().max(1);
        // The length that the longest messages are cut to.
        let found = largest(2..=longest.unwrap_or(0), guess, |length| {
            let shorten = |(index, points): &(usize, Points<'a>)| {
                if points.pieces() <= length.saturating_add(mark) {
                    return None;
                }
                let (head, tail) = points.without_middle(length.div_ceil(2), length / 2)?;
                Some(Shortened {
                    index: *index,
                    head,
                    mark: MARK,
                    tail,
                })
            };
            let shortened = texts.iter().filter_map(shorten).collect();
            self.attempt(0, shortened, &mut least)
        })?;
        match found {
            Some((_, found)) => {
                let cuts = self.cuts(0, &found.shortened);
                Ok((found.prompt, cuts))
            }
            None => Err(self.fit.refusal(least)),
        }
    }

    /// The most of `older`, from the newest, that fit whole before the turn that begins at
    /// `latest`.
    fn whole_turns(
        &self,
        older: &[Range<usize>],
        latest: usize,
        least: &mut usize,
    ) -> Result<Option<(usize, Found<'a>)>, Error> {
        // With all of them it is known not to fit.
        let Some(most) = older.len().checked_sub(1) else {
            return Ok(None);
        };
        let share = self.fit.room() as f64 / self.before as f64;
        let guess = (older.len() as f64 * share) as usize;
        largest(0..=most, guess, |kept| {
            let start = start_of(older, &(latest..latest), kept);
            self.attempt(start, Vec::new(), least)
        })
    }

    /// As many of the most recent tokens of the turn `edge` as fit, after the first ones of each
    /// of its messages. `fixed` is how many tokens there are without the turn.
    fn window(
        &self,
        edge: Range<usize>,
        fixed: usize,
        least: &mut usize,
    ) -> Result<Option<Found<'a>>, Error> {
        let start = edge.start;
        let texts = self.texts(edge);
        let first = self.fit.keep_first;
        let all: usize = texts.iter().map(|(_, points)| points.pieces()).sum();
        let guess = self.fit.room().saturating_sub(fixed);
        let found = largest(1..=all.saturating_sub(1), guess, |recent| {
            let mut left = recent;
            let mut shortened = Vec::new();
            for (index, points) in texts.iter().rev() {
                let tail = left.min(points.pieces());
                left -= tail;
                if let Some((head, tail)) = points.without_middle(first, tail) {
                    shortened.push(Shortened {
                        index: *index,
                        head,
                        mark: "",
                        tail,
                    });
                }
            }
            shortened.reverse();
            self.attempt(start, shortened, least)
        })?;
        Ok(found.map(|(_, found)| found))
    }

    /// The prompt of the system messages and of all messages from `start` on, some shortened; nothing
    /// where there is no room for it.
    fn attempt(
        &self,
        start: usize,
        shortened: Vec<Shortened<'a>>,
        least: &mut usize,
    ) -> Result<Option<Found<'a>>, Error> {
        let stays =
            |(index, message): &(usize, &Message)| *index >= start || message.role == Role::System;
        let mut contents = shortened.iter().peekable();
        let messages = self.messages.iter().enumerate().filter(stays);
        let messages = messages.map(|(index, message)| {
            let mut message = message.clone();
            if let Some(left) = contents.next_if(|left| left.index == index) {
                message.content = [left.head, left.mark, left.tail].concat();
            }
            message
        });
        let messages: Vec<Message> = messages.collect();
        let prompt = self.prompter.chat(&messages, self.thinking)?;
        *least = (*least).min(prompt.tokens.len());
        if prompt.tokens.len() > self.fit.room() {
            return Ok(None);
        }
        Ok(Some(Found { prompt, shortened }))
    }

    /// What went: the turns before `start`, and what `shortened` lost.
    fn cuts(&self, start: usize, shortened: &[Shortened<'_>]) -> Vec<Cut> {
        let count = |text: &str| self.tokenizer().encode(text).len();
        let mut shortened = shortened.iter().peekable();
        let mut cuts = Vec::new();
        for (index, message) in self.messages.iter().enumerate() {
            let (what, kept) = if let Some(left) = shortened.next_if(|left| left.index == index) {
                (CutKind::Tokens, count(left.head) + count(left.tail))
            } else if index < start && message.role != Role::System {
                (CutKind::Turn, 0)
            } else {
                continue;
            };
            cuts.push(Cut {
                what,
                message: Some(index),
                role: Some(message.role),
                tokens: count(&message.content).saturating_sub(kept),
            });
        }
        cuts
    }

    /// The messages of a range that may be cut, with the places where.
    fn texts(&self, range: Range<usize>) -> Vec<(usize, Points<'a>)> {
        let messages = self.messages.iter().enumerate();
        let messages = messages.take(range.end).skip(range.start);
        messages
            .filter(|(_, message)| message.role != Role::System)
            .map(|(index, message)| (index, Points::of(&message.content, self.tokenizer())))
            .collect()
    }

    fn tokenizer(&self) -> &'a Tokenizer {
        self.prompter.tokenizer
    }
}

/// Where the conversation begins with the newest `kept` of the older turns.
fn start_of(older: &[Range<usize>], latest: &Range<usize>, kept: usize) -> usize {
    let first = older.len().saturating_sub(kept);
    older.get(first).map_or(latest.start, |turn| turn.start)
}
