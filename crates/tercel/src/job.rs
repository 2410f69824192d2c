//! Work for the engine's thread.

use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use tercel_nn::Identity;
use tercel_text::{PromptEnd, ThinkTags};

use crate::TokenId;
use crate::answer::Answer;
use crate::embed::Pooling;
use crate::error::Error;
use crate::guide::Guide;
use crate::model::Model;
use crate::pipe::Sender;
use crate::tools::Calls;

/// A request.
pub(crate) enum Job {
    /// Generate a reply.
    Generate(Box<Generate>),
    /// Score a text.
    Score(Score),
    /// Make a vector of a text.
    Embed(Embed),
}

/// Something to be done to the model between two passes.
pub(crate) type Task = Box<dyn FnOnce(&mut dyn Model) + Send>;

/// A request whose prompt is checked: not empty, inside the vocabulary, with room for one more
/// token in the context.
pub(crate) struct Generate {
    pub(crate) prompt: Vec<TokenId>,
    /// What the prompt's tokens do not say of it.
    pub(crate) identity: Identity,
    /// How the reply marks a thought; nothing where none is looked for.
    pub(crate) tags: Option<ThinkTags>,
    pub(crate) end: PromptEnd,
    /// What ends a thought by force.
    pub(crate) closing: Vec<TokenId>,
    /// Tokens that the reply may have.
    pub(crate) room: usize,
    pub(crate) terms: Terms,
    /// How many alternatives of each token to tell, where anything is told.
    pub(crate) logprobs: Option<usize>,
    /// What leads the reply along a grammar.
    pub(crate) guide: Option<Guide>,
    /// What reads its calls of tools.
    pub(crate) calls: Option<Calls>,
    pub(crate) events: Sender,
}

/// How urgent a request is, and how long it may take.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Terms {
    pub(crate) priority: i32,
    /// From acceptance to the end.
    pub(crate) deadline: Option<Duration>,
    /// From one token to the next, and from the start of the work to the first.
    pub(crate) token_timeout: Option<Duration>,
    /// Whether tokens may be guessed and checked several at a time.
    pub(crate) speculation: bool,
}

/// Tokens to score: checked like a prompt, and `from` is below the last position.
pub(crate) struct Score {
    pub(crate) tokens: Vec<TokenId>,
    pub(crate) from: usize,
    pub(crate) result: SyncSender<Result<Vec<f64>, Error>>,
}

/// Tokens to make a vector of: checked like a prompt, and no more than the context holds.
pub(crate) struct Embed {
    pub(crate) tokens: Vec<TokenId>,
    pub(crate) pooling: Pooling,
    pub(crate) answer: Answer<Result<Vec<f32>, Error>>,
}

impl Job {
    /// Higher ones go first.
    pub(crate) fn priority(&self) -> i32 {
        match self {
            Self::Generate(request) => request.terms.priority,
            Self::Score(_) | Self::Embed(_) => 0,
        }
    }

    /// When it is too late for an answer.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Generate(request) => request.deadline(),
            Self::Score(_) | Self::Embed(_) => None,
        }
    }

    /// Whether nobody waits for the answer any more.
    pub(crate) fn is_cancelled(&self) -> bool {
        match self {
            Self::Generate(request) => request.events.is_cancelled(),
            Self::Score(_) => false,
            Self::Embed(request) => request.answer.is_abandoned(),
        }
    }

    /// Ends it with an error before it began.
    pub(crate) fn fail(self, error: Error) {
        match self {
            Self::Generate(request) => request.events.finish(None, Err(error)),
            Self::Score(request) => {
                // A caller that has gone needs no answer.
                let _ = request.result.send(Err(error));
            }
            Self::Embed(request) => request.answer.give(Err(error)),
        }
    }
}

impl Generate {
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let deadline = self.terms.deadline?;
        self.events.accepted().checked_add(deadline)
    }
}
