//! The parts of a prompt that is put together within a budget.

use serde::{Deserialize, Deserializer, Serialize};
use tercel_text::Message;

use super::budget::{BudgetReport, ContextBudget};
use super::counter::TokenCounter;
use super::plan::Plan;
use crate::error::Error;

/// A prompt to put together within a [`ContextBudget`].
///
/// As JSON: `budget`, `system`, `summary`, `turns` of `user` and `assistant`, `tools` of `name` and
/// `text` or `chunks`, `user`. A text is a string, or an object of `text` and `tokens`.
///
/// The system text and the latest message always stay. The summary loses lines from its end where
/// it has more than its share. Turns that the window does not cover go, and each output that has
/// more than its share keeps its first chunks: paragraphs, fields of a JSON object, items of an
/// array. If all this is still too long, outputs are trimmed, the last chunk first; then turns go,
/// the oldest first; then lines of the summary. What is left must fit.
///
/// ```
/// use tercel::{ContextBudget, ContextBuilder};
///
/// let words = |text: &str| text.split_whitespace().count();
/// let builder = ContextBuilder::new(ContextBudget::new(24, 10))
///     .system("Answer briefly.")
///     .turn("What is the capital of France?", "Paris.")
///     .turn("And of Italy?", "Rome.")
///     .user("Which is larger?");
/// let (messages, report) = builder.messages(&words)?;
/// assert_eq!(messages.len(), 4);
/// assert_eq!((report.prompt_tokens, report.remaining_tokens), (9, 5));
/// # Ok::<(), tercel::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ContextBuilder {
    pub(super) budget: ContextBudget,
    pub(super) system: Block,
    pub(super) summary: Block,
    pub(super) turns: Vec<Exchange>,
    pub(super) tools: Vec<Output>,
    pub(super) user: Block,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Exchange {
    pub(super) user: Block,
    pub(super) assistant: Block,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Output {
    pub(super) name: String,
    #[serde(default)]
    pub(super) text: Block,
    #[serde(default)]
    pub(super) chunks: Vec<Block>,
}

impl ContextBuilder {
    /// An empty prompt.
    pub fn new(budget: ContextBudget) -> Self {
        Self {
            budget,
            ..Self::default()
        }
    }

    /// The budget, to read or to change.
    pub fn budget_mut(&mut self) -> &mut ContextBudget {
        &mut self.budget
    }

    /// The instructions.
    #[must_use]
    pub fn system(mut self, text: impl Into<Block>) -> Self {
        self.system = text.into();
        self
    }

    /// What is known of turns that are not there any more, a fact a line, the most important first.
    #[must_use]
    pub fn summary(mut self, lines: impl Into<Block>) -> Self {
        self.summary = lines.into();
        self
    }

    /// One more turn, later than those before.
    #[must_use]
    pub fn turn(mut self, user: impl Into<Block>, assistant: impl Into<Block>) -> Self {
        self.turns.push(Exchange {
            user: user.into(),
            assistant: assistant.into(),
        });
        self
    }

    /// What a tool returned, the most important output first.
    #[must_use]
    pub fn tool_output(mut self, name: impl Into<String>, text: impl Into<Block>) -> Self {
        self.tools.push(Output {
            name: name.into(),
            text: text.into(),
            chunks: Vec::new(),
        });
        self
    }

    /// What a tool returned, in chunks that are kept or left out whole.
    #[must_use]
    pub fn tool_chunks(mut self, name: impl Into<String>, chunks: Vec<Block>) -> Self {
        self.tools.push(Output {
            name: name.into(),
            text: Block::default(),
            chunks,
        });
        self
    }

    /// What the user says now.
    #[must_use]
    pub fn user(mut self, text: impl Into<Block>) -> Self {
        self.user = text.into();
        self
    }

    /// The prompt as a conversation for a chat template: one system message with the summary under
    /// `State:`, the turns, and the latest message after the outputs of tools.
    ///
    /// # Errors
    /// [`Error::EmptyPrompt`] without a latest message, [`Error::InvalidParameter`] for a budget
    /// that leaves nothing to the prompt, [`Error::ContextReserve`] where not even system text and
    /// latest message fit, and those of [`TokenCounter::count_messages`].
    pub fn messages(
        &self,
        counter: &dyn TokenCounter,
    ) -> Result<(Vec<Message>, BudgetReport), Error> {
        let plan = Plan::new(self, counter, true)?;
        let (kept, report) = plan.fit()?;
        Ok((plan.messages(&kept), report))
    }

    /// The prompt as a plain text: `System:`, `State:`, the turns as `User:` and `Assistant:`, the
    /// outputs of tools, and `User:` with the latest message.
    ///
    /// # Errors
    /// Those of [`ContextBuilder::messages`].
    pub fn text(&self, counter: &dyn TokenCounter) -> Result<(String, BudgetReport), Error> {
        let plan = Plan::new(self, counter, false)?;
        let (kept, report) = plan.fit()?;
        Ok((plan.text(&kept), report))
    }
}

/// A text, with its tokens where these are known already.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Block {
    /// What it says.
    pub text: String,
    /// Its tokens; counted where left out.
    pub tokens: Option<usize>,
}

impl Block {
    /// A text whose tokens are known.
    pub fn counted(text: impl Into<String>, tokens: usize) -> Self {
        Self {
            text: text.into(),
            tokens: Some(tokens),
        }
    }
}

impl<T: Into<String>> From<T> for Block {
    fn from(text: T) -> Self {
        Self {
            text: text.into(),
            tokens: None,
        }
    }
}

impl<'de> Deserialize<'de> for Block {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Wire {
            Text(String),
            Counted(Counted),
        }

        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Counted {
            #[serde(default)]
            text: String,
            tokens: Option<usize>,
        }

        Ok(match Wire::deserialize(from)? {
            Wire::Text(text) => Self { text, tokens: None },
            Wire::Counted(Counted { text, tokens }) => Self { text, tokens },
        })
    }
}

#[cfg(test)]
mod tests;
