//! What can go wrong between metadata, templates and text.

use crate::tokenizer::TokenId;

/// An error of building a tokenizer or of compiling or rendering a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// The metadata holds a field of the wrong type, or cannot be read.
    #[error("tokenizer metadata: {problem}")]
    Metadata {
        /// The field and what is wrong with it.
        problem: String,
    },
    /// A field that every tokenizer of this kind needs is absent.
    #[error("tokenizer metadata: `{field}` is missing")]
    MissingField {
        /// The metadata key.
        field: &'static str,
    },
    /// The tokenizer is of a kind that this build cannot run.
    #[error("tokenizer model `{name}` is not supported (supported: {supported})")]
    UnknownModel {
        /// What the file says.
        name: String,
        /// The kinds this build knows, comma separated.
        supported: String,
    },
    /// The pre-tokenizer is none of those this build knows. Guessing would change every id.
    #[error("pre-tokenizer `{name}` is not supported (supported: {supported})")]
    UnknownPreTokenizer {
        /// What the file says.
        name: String,
        /// The names this build knows, comma separated.
        supported: String,
    },
    /// A tokenizer file is not of the shape that its kind has.
    #[error("`{file}`: {problem}")]
    File {
        /// The name of the file, such as `tokenizer.json`.
        file: &'static str,
        /// What is wrong with it, and where.
        problem: String,
    },
    /// A part of a tokenizer that this build cannot run. Leaving it out would change the ids.
    #[error("{part} `{name}` is not supported")]
    UnsupportedPart {
        /// What it is a kind of, such as `pre_tokenizer`.
        part: &'static str,
        /// What the file says.
        name: String,
    },
    /// A list has another length than the list of tokens.
    #[error("`{field}` has {found} entries, expected one for each of the {expected} tokens")]
    Length {
        /// The metadata key.
        field: &'static str,
        /// The number of tokens.
        expected: usize,
        /// The number of entries in the list.
        found: usize,
    },
    /// A token id in the metadata is outside the vocabulary.
    #[error("`{field}` is {id}, outside the vocabulary of {vocab_size} tokens")]
    TokenId {
        /// The metadata key.
        field: &'static str,
        /// What the file says.
        id: TokenId,
        /// The number of tokens.
        vocab_size: usize,
    },
    /// An entry of a list cannot be used.
    #[error("`{field}` entry {index}: {problem}")]
    Entry {
        /// The metadata key.
        field: &'static str,
        /// The entry's position, from 0.
        index: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// The vocabulary as a whole cannot be used.
    #[error("vocabulary: {problem}")]
    Vocabulary {
        /// What is wrong with it.
        problem: String,
    },
    /// A template does not compile, or failed while it ran.
    #[error("chat template{}: {message}", line.map(|line| format!(", line {line}")).unwrap_or_default())]
    Template {
        /// What went wrong, on one line.
        message: String,
        /// The line of the template, from 1, where it is known.
        line: Option<usize>,
    },
    /// Every character that could keep user text apart from control tokens occurs in the input.
    #[error(
        "the messages use all 32 noncharacters U+FDD0 to U+FDEF; remove one of them from the text"
    )]
    NoSentinel,
}
