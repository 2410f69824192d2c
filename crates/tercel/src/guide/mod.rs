//! What leads a reply along a grammar: which tokens may come, which must.
//!
//! Masks are computed on a thread of their own while the model computes the next pass, so that a
//! constrained token takes hardly longer than a free one.

mod guides;
mod masks;
#[cfg(test)]
mod tests;

use tercel_text::grammar::{Constraint, GrammarError, Mask};

use crate::TokenId;
pub(crate) use guides::{Guides, Room};
use masks::{Masks, Pending};

/// Leads one reply.
pub(crate) struct Guide {
    masks: Masks,
    place: Place,
    phase: Phase,
    /// What may come in a thought: anything but an end of the reply, which owes an answer.
    in_thought: Mask,
}

/// Where a reply's constraint is.
enum Place {
    Here(Box<Constraint>),
    /// On its way to a mask.
    Away(Pending),
    /// A fault was told.
    Lost,
}

/// How far a reply is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Before the first token: it may begin a thought with this token, where there is one.
    Start(Option<TokenId>),
    /// In the thought, which is free.
    Thought,
    Answer,
}

impl Guide {
    /// Of a reply whose prompt ends in a thought (`is_thinking`), or which may begin one.
    pub(crate) fn new(
        masks: Masks,
        constraint: Constraint,
        is_thinking: bool,
        opens_thought: Option<TokenId>,
        in_thought: Mask,
    ) -> Self {
        Self {
            masks,
            place: Place::Here(Box::new(constraint)),
            phase: match is_thinking {
                true => Phase::Thought,
                false => Phase::Start(opens_thought),
            },
            in_thought,
        }
    }

    /// What may come next.
    pub(crate) fn allowed(&mut self) -> Result<Mask, GrammarError> {
        let thought = match self.phase {
            Phase::Thought => return Ok(self.in_thought.clone()),
            Phase::Start(thought) => thought,
            Phase::Answer => None,
        };
        let mut mask = self.mask()?;
        if let Some(token) = thought {
            mask.allow(token);
        }
        Ok(mask)
    }

    /// Goes on with a token that was allowed, after which the reply is in a thought or not. Gives
    /// the tokens that must come now, at most so many.
    pub(crate) fn accept(
        &mut self,
        token: TokenId,
        is_thinking: bool,
        most: usize,
    ) -> Result<Vec<TokenId>, GrammarError> {
        let is_answer = match self.phase {
            Phase::Thought => false,
            Phase::Start(thought) => thought != Some(token),
            Phase::Answer => true,
        };
        self.phase = if is_answer || !is_thinking {
            Phase::Answer
        } else {
            Phase::Thought
        };
        if self.phase == Phase::Thought {
            return Ok(Vec::new());
        }
        let constraint = self.constraint()?;
        if is_answer {
            constraint.accept(token)?;
        }
        let mut forced = Vec::new();
        if !constraint.is_over()? {
            forced = constraint.forced()?;
            forced.truncate(most);
            for token in &forced {
                constraint.accept(*token)?;
            }
        }
        Ok(forced)
    }

    /// Whether the answer is complete and nothing can follow it.
    pub(crate) fn is_over(&mut self) -> Result<bool, GrammarError> {
        Ok(self.phase == Phase::Answer && self.constraint()?.is_over()?)
    }

    /// Has the next mask computed, while something else is.
    pub(crate) fn look_ahead(&mut self) {
        if self.phase == Phase::Thought {
            return;
        }
        self.place = match std::mem::replace(&mut self.place, Place::Lost) {
            Place::Here(constraint) => self
                .masks
                .begin(constraint)
                .map_or_else(Place::Here, Place::Away),
            place => place,
        };
    }

    fn mask(&mut self) -> Result<Mask, GrammarError> {
        match std::mem::replace(&mut self.place, Place::Lost) {
            Place::Here(mut constraint) => {
                let mask = constraint.mask()?;
                self.place = Place::Here(constraint);
                Ok(mask)
            }
            Place::Away(pending) => {
                let (constraint, mask) = pending.wait().ok_or_else(lost)?;
                self.place = Place::Here(constraint);
                mask
            }
            Place::Lost => Err(lost()),
        }
    }

    /// The constraint; a mask that nobody asked for is dropped.
    fn constraint(&mut self) -> Result<&mut Constraint, GrammarError> {
        if let Place::Away(_) = self.place {
            self.mask()?;
        }
        match &mut self.place {
            Place::Here(constraint) => Ok(constraint),
            Place::Away(_) | Place::Lost => Err(lost()),
        }
    }
}

fn lost() -> GrammarError {
    GrammarError::Stuck {
        problem: "it failed before".to_owned(),
    }
}
