//! What fits a context, and what becomes of the rest.
//!
//! A request whose prompt is too long is cut as its [`ContextOverflow`] says, and the reply tells
//! what was cut ([`ContextReport`]). [`ContextBuilder`] puts a prompt together within a
//! [`ContextBudget`] before there is a request.

mod budget;
mod builder;
mod conversation;
mod counter;
mod fit;
mod ledger;
mod overflow;
mod parts;
mod plan;
mod points;
mod search;
mod turns;

pub use budget::{
    BlockKind, BlockLimit, BlockOutcome, BlockReport, BudgetReport, ContextBudget, ToolBudget,
    ToolScope,
};
pub use builder::{Block, ContextBuilder};
pub use counter::{PromptCounter, TokenCounter};
pub(crate) use fit::Fit;
pub use overflow::{ContextOverflow, ContextReport, Cut, CutKind};
pub(crate) use turns::turn_starts;

#[cfg(test)]
mod tests;
