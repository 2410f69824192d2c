//! What a verification finds.

use std::path::PathBuf;

use serde::Serialize;

use crate::TokenId;

/// How a check went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outcome {
    /// Nothing is wrong.
    #[default]
    Ok,
    /// The model can be used, but something is odd.
    Warn,
    /// The model cannot be used, or not be trusted.
    Fail,
}

impl Outcome {
    /// `ok`, `warn` or `fail`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Check {
    /// What was looked at.
    pub check: &'static str,
    /// How it went.
    pub outcome: Outcome,
    /// What was found. Holds text of the files.
    pub detail: String,
}

/// The ids of the tokens with a role, where the tokenizer has such.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SpecialTokenIds {
    /// Begin of sequence.
    pub bos_token_id: Option<TokenId>,
    /// End of sequence.
    pub eos_token_id: Option<TokenId>,
    /// Padding.
    pub pad_token_id: Option<TokenId>,
    /// Unknown.
    pub unk_token_id: Option<TokenId>,
}

/// A prompt, there and back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PromptCheck {
    /// The prompt.
    pub prompt: String,
    /// Its tokens.
    pub tokens: usize,
    /// The largest id.
    pub max_id: TokenId,
    /// The first 80 characters of what the ids stand for, special tokens by name.
    pub decoded: String,
}

/// The checks of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Verification {
    /// The file, the first part, or the directory.
    pub path: PathBuf,
    /// Tokens that the configuration, or else the embedding, has.
    pub expected_vocab: Option<usize>,
    /// Tokens that the tokenizer has.
    pub tokenizer_vocab_size: Option<usize>,
    /// The tokens with a role.
    pub special_token_ids: SpecialTokenIds,
    /// Every id that ends a reply.
    pub end_token_ids: Vec<TokenId>,
    /// The prompts that were tried.
    pub prompts: Vec<PromptCheck>,
    /// The checks, in the order they were made.
    pub checks: Vec<Check>,
}

impl Verification {
    /// The worst outcome of a check.
    pub fn outcome(&self) -> Outcome {
        let outcomes = self.checks.iter().map(|check| check.outcome);
        outcomes.max().unwrap_or_default()
    }

    pub(super) fn ok(&mut self, check: &'static str, detail: impl Into<String>) {
        self.push(check, Outcome::Ok, detail.into());
    }

    pub(super) fn warn(&mut self, check: &'static str, detail: impl Into<String>) {
        self.push(check, Outcome::Warn, detail.into());
    }

    pub(super) fn fail(&mut self, check: &'static str, detail: impl Into<String>) {
        self.push(check, Outcome::Fail, detail.into());
    }

    fn push(&mut self, check: &'static str, outcome: Outcome, detail: String) {
        self.checks.push(Check {
            check,
            outcome,
            detail,
        });
    }
}
