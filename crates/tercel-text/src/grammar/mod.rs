//! What the text of a reply must be: a JSON schema, a pattern or a grammar, compiled for one
//! vocabulary.
//!
//! A [`Grammar`] is what is asked for, [`Grammars`] compiles it, and a [`Constraint`] follows one
//! reply: which tokens may come next, which must. Masks are those of `llguidance`.

mod calls;
mod compile;
mod constraint;
mod gbnf;
mod schema;
mod vocabulary;

use std::fmt;

use serde_json::Value;

pub use calls::{Calls, ToolGrammar};
pub use compile::Grammars;
pub use constraint::{Constraint, Mask};

/// What the text of a reply must be, from its first character to its last.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Grammar {
    /// A JSON object.
    Json,
    /// A JSON value that a schema (JSON Schema, draft 2020-12 and before) describes. Keywords that
    /// cannot be kept to are refused, not left out.
    JsonSchema(Value),
    /// A text that a regular expression matches as a whole.
    Regex(String),
    /// A text of a context-free grammar in the form of Lark, which begins at `start`.
    Lark(String),
    /// A text of a context-free grammar in the form of GBNF, which begins at `root`.
    Gbnf(String),
}

/// Limits on what is compiled.
pub mod limits {
    /// Bytes of a grammar, or of a schema written out as JSON.
    pub const MAX_BYTES: usize = 128 << 10;
    /// Arrays and objects of a schema in each other.
    pub const MAX_NESTING: usize = 64;
    /// Values of a schema, its arrays and objects included.
    pub const MAX_VALUES: usize = 10_000;
    /// Names of one object of a schema, or values of one list: the compiler compares them.
    pub const MAX_NAMES: usize = 1000;
    /// Patterns of property names in a schema, each of which the compiler compares with all others.
    pub const MAX_NAME_PATTERNS: usize = 16;
    /// Characters of a text that may have to come as it stands.
    pub const MAX_TEXT: usize = 4096;
    /// Tools that one reply may choose from.
    pub const MAX_TOOLS: usize = 128;
    /// Calls in one reply that keeps to schemas.
    pub const MAX_CALLS: usize = 16;
    /// Brackets of a grammar in each other.
    pub const MAX_BRACKETS: usize = 100;
}

/// Why there is no text to be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GrammarError {
    /// It is no grammar, or one that cannot be kept to.
    #[error("{kind}: {problem}")]
    Invalid {
        /// What was given: `JSON schema`, `regular expression` or `grammar`.
        kind: &'static str,
        /// What is wrong with it, and where.
        problem: String,
    },
    /// It is too large to be worked on.
    #[error("{kind} is too large: {problem}")]
    TooLarge {
        /// What was given.
        kind: &'static str,
        /// The limit that it is over.
        problem: String,
    },
    /// To go on in the text is too much work.
    #[error("the constraint cannot be kept to any further: {problem}")]
    Stuck {
        /// Why not.
        problem: String,
    },
    /// The vocabulary has no token that ends a reply.
    #[error("the model's vocabulary has no token that ends a reply, which constraints need")]
    NoEnd,
}

impl Grammar {
    /// A grammar in either form: GBNF defines with `::=`, Lark with `:`.
    pub fn of(text: impl Into<String>) -> Self {
        let text = text.into();
        if text.contains("::=") {
            Self::Gbnf(text)
        } else {
            Self::Lark(text)
        }
    }

    /// What it is called in errors.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Json => "JSON",
            Self::JsonSchema(_) => "JSON schema",
            Self::Regex(_) => "regular expression",
            Self::Lark(_) | Self::Gbnf(_) => "grammar",
        }
    }

    fn invalid(&self, problem: impl fmt::Display) -> GrammarError {
        GrammarError::Invalid {
            kind: self.kind(),
            problem: one_line(&problem.to_string()),
        }
    }
}

/// The parts of a message that are for people who write grammars, on one line of bounded length.
fn one_line(message: &str) -> String {
    const MOST: usize = 400;
    let message = message.split("<state>").next().unwrap_or(message);
    let message = message.split("<backtrace>").next().unwrap_or(message);
    // A pattern is quoted with the place of its fault below it, and then the fault is named.
    let message = message.rsplit("error: ").next().unwrap_or(message);
    let lines = message
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty());
    let text = lines.collect::<Vec<_>>().join("; ");
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
