//! How the room of a context is divided, and the account of it.

use serde::{Deserialize, Serialize};

/// How the tokens of a context are to be spent. See [`ContextBuilder`](super::ContextBuilder).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ContextBudget {
    /// Tokens that prompt and reply may have together; by default 4096.
    pub max_context_tokens: usize,
    /// Tokens kept free for the reply; by default 512.
    pub max_new_tokens: usize,
    /// Tokens that nobody gets: 16 to 64 where counts are estimates, by default 0.
    pub margin_tokens: usize,
    /// The most tokens of the summary; no limit by default.
    pub summary_tokens: Option<usize>,
    /// The most tokens of tool outputs; no limit by default.
    pub tool_outputs: Option<ToolBudget>,
    /// The most turns, from the latest; no limit by default.
    pub window_turns: Option<usize>,
    /// The most tokens of turns together, from the latest; no limit by default.
    pub window_tokens: Option<usize>,
}

/// The most tokens of tool outputs, and of how many outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolBudget {
    /// The most tokens.
    pub tokens: usize,
    /// Of what.
    pub scope: ToolScope,
}

/// What a limit on tool outputs is a limit of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolScope {
    /// Each output by itself.
    PerOutput,
    /// All outputs of the prompt together.
    PerRequest,
}

impl ContextBudget {
    /// A budget without limits but that of the context.
    pub fn new(max_context_tokens: usize, max_new_tokens: usize) -> Self {
        Self {
            max_context_tokens,
            max_new_tokens,
            margin_tokens: 0,
            summary_tokens: None,
            tool_outputs: None,
            window_turns: None,
            window_tokens: None,
        }
    }

    /// Tokens that a prompt may have; 0 where reply and margin take all.
    pub fn prompt_tokens(&self) -> usize {
        self.max_context_tokens
            .saturating_sub(self.max_new_tokens)
            .saturating_sub(self.margin_tokens)
    }
}

impl Default for ContextBudget {
    fn default() -> Self {
        Self::new(4096, 512)
    }
}

/// What became of each block of a prompt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BudgetReport {
    /// Tokens that the prompt may have.
    pub budget_tokens: usize,
    /// Tokens that it has.
    pub prompt_tokens: usize,
    /// Tokens that are left over.
    pub remaining_tokens: usize,
    /// The blocks in the order in which they were given room: system, summary, the latest message,
    /// turns from the latest, tool outputs.
    pub blocks: Vec<BlockReport>,
}

/// What became of one block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BlockReport {
    /// What it is.
    #[serde(rename = "type")]
    pub kind: BlockKind,
    /// The number of a turn, from 1, or the name of a tool.
    pub name: Option<String>,
    /// Whether it stays whatever happens; a summary only loses lines.
    pub protected: bool,
    /// What became of it.
    pub outcome: BlockOutcome,
    /// Why it is not whole.
    pub reason: Option<BlockLimit>,
    /// Tokens of its whole text.
    pub tokens: usize,
    /// Tokens that it takes of the prompt, with what the template puts around it.
    pub kept_tokens: usize,
    /// Lines of a summary, or chunks of an output, that were left out.
    pub dropped_parts: usize,
    /// Tokens of the budget that are left after it.
    pub remaining_tokens: usize,
}

/// What a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BlockKind {
    /// The instructions.
    System,
    /// What is known of older turns: the state.
    Summary,
    /// What the user says now.
    User,
    /// What the user said, and the answer.
    Turn,
    /// What a tool returned.
    Tool,
}

/// What became of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BlockOutcome {
    /// It is in the prompt, whole.
    Kept,
    /// A part of it is.
    Shortened,
    /// It is not.
    Dropped,
}

/// What a block exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BlockLimit {
    /// [`ContextBudget::summary_tokens`].
    SummaryTokens,
    /// [`ContextBudget::tool_outputs`].
    ToolOutputs,
    /// [`ContextBudget::window_turns`].
    WindowTurns,
    /// [`ContextBudget::window_tokens`].
    WindowTokens,
    /// [`ContextBudget::prompt_tokens`].
    Context,
}

macro_rules! names {
    ($type:ty: $($variant:ident $name:literal),*) => {
        impl $type {
            /// The name in JSON and logs.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}
names!(BlockKind: System "system", Summary "summary", User "user", Turn "turn", Tool "tool");
names!(BlockOutcome: Kept "kept", Shortened "shortened", Dropped "dropped");
names!(
    BlockLimit: SummaryTokens "summary_tokens", ToolOutputs "tool_outputs",
    WindowTurns "window_turns", WindowTokens "window_tokens", Context "context"
);
