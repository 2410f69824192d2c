//! What is done with a prompt that is too long, and the report of it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tercel_text::Role;

use crate::error::Error;

/// What becomes of a prompt that leaves too little of the context to the reply.
///
/// A prompt is too long where its tokens and those reserved for the reply are more than the context
/// holds. Reserved is what `reserve_tokens` says; left out, 1 token with [`ContextOverflow::Error`],
/// else `max_new_tokens` but at most a quarter of the context, so that the usual `max_new_tokens`
/// never forces a cut in a small context. (A reply may still use all that is left.)
///
/// What is cut is reported in [`Reply::context`](crate::Reply::context). A conversation is always
/// rendered again after a cut, so that its marks stay whole; counts are those of the model's own
/// tokenizer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ContextOverflow {
    /// Nothing is cut: the request is refused with the counts.
    #[default]
    Error,
    /// Whole turns go, the oldest first: what the user said and all up to what they said next. The
    /// system text and the latest turn always stay. For conversations alone.
    DropOldestTurns,
    /// The most recent tokens stay. Of a conversation, the system text stays too, whole turns go
    /// from the oldest, and each message of the oldest that stays (which may be the latest) loses
    /// tokens after its first `keep_first_tokens`, by default 4. A prompt without turns keeps its
    /// first `keep_first_tokens`, a begin token among them.
    SlidingWindow,
    /// The longest messages lose their middle, down to one common length; a mark stands in its
    /// place. The system text stays whole. A prompt without turns is cut as one message.
    TruncateMiddle,
}

impl ContextOverflow {
    const ALL: [Self; 4] = [
        Self::Error,
        Self::DropOldestTurns,
        Self::SlidingWindow,
        Self::TruncateMiddle,
    ];

    /// The name in flags, JSON and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::DropOldestTurns => "drop_oldest_turns",
            Self::SlidingWindow => "sliding_window",
            Self::TruncateMiddle => "truncate_middle",
        }
    }
}

impl fmt::Display for ContextOverflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ContextOverflow {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let found = Self::ALL.into_iter().find(|policy| policy.name() == name);
        found.ok_or_else(|| {
            let range = "error, drop_oldest_turns, sliding_window or truncate_middle";
            Error::invalid_parameter("context_overflow", name, range)
        })
    }
}

/// What was cut of a prompt so that it fits the context.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ContextReport {
    /// How it was cut.
    pub policy: ContextOverflow,
    /// Tokens of the whole prompt.
    pub prompt_tokens_before: usize,
    /// Tokens of the prompt that ran.
    pub prompt_tokens_after: usize,
    /// Tokens that were kept free for the reply.
    pub reserve_tokens: usize,
    /// Everything that was cut, in the order of the prompt.
    pub cuts: Vec<Cut>,
}

/// One thing that was cut of a prompt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Cut {
    /// How much of it.
    pub what: CutKind,
    /// The index of the message in the request; none for a prompt without messages.
    pub message: Option<usize>,
    /// Who said it; none for a prompt without messages.
    pub role: Option<Role>,
    /// Tokens of text that went, without those that the template puts around a message.
    pub tokens: usize,
}

/// How much of something was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CutKind {
    /// All of it, with its turn.
    Turn,
    /// Some tokens, from the middle or after the first ones.
    Tokens,
}

impl fmt::Display for ContextReport {
    /// One line for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let turns = self.cuts.iter().filter(|cut| cut.what == CutKind::Turn);
        let (dropped, shortened) = (turns.count(), self.cuts.len());
        let shortened = shortened - dropped;
        let plural = |count: usize| if count == 1 { "" } else { "s" };
        let mut parts = Vec::new();
        if dropped > 0 {
            parts.push(format!("{dropped} message{} left out", plural(dropped)));
        }
        if shortened > 0 && self.cuts.iter().all(|cut| cut.message.is_none()) {
            parts.push("the prompt shortened".to_owned());
        } else if shortened > 0 {
            parts.push(format!(
                "{shortened} message{} shortened",
                plural(shortened)
            ));
        }
        write!(
            f,
            "the context was full ({}): {}; {} of {} prompt tokens ran",
            self.policy,
            parts.join(", "),
            self.prompt_tokens_after,
            self.prompt_tokens_before
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_have_one_name_everywhere() {
        for policy in ContextOverflow::ALL {
            assert_eq!(
                policy.name().parse::<ContextOverflow>().expect("known"),
                policy
            );
            let json = serde_json::to_value(policy).expect("serializes");
            assert_eq!(json, policy.to_string());
            assert_eq!(
                serde_json::from_value::<ContextOverflow>(json).expect("read"),
                policy
            );
        }
        let error = "drop".parse::<ContextOverflow>().expect_err("unknown");
        assert_eq!(error.kind(), "invalid_parameter");
        assert!(error.to_string().contains("sliding_window"), "{error}");
    }
}
