//! What can go wrong between a parsed file and its logits.

use tercel_kernels::UnknownIsa;

/// An error of loading or running a model.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NnError {
    /// The architecture is none of those this build knows.
    #[error("architecture `{name}` is not supported (supported: {supported})")]
    UnknownArchitecture {
        /// What the file says.
        name: String,
        /// The names this build knows, comma separated.
        supported: String,
    },
    /// A tensor the architecture needs is not in the file.
    #[error("tensor `{name}` is missing")]
    MissingTensor {
        /// The tensor's name.
        name: String,
    },
    /// The file has a tensor that the architecture has no use for.
    #[error(
        "tensor `{name}` (and {others} others) have no place in the architecture `{architecture}`; \
         leaving them out would give wrong answers"
    )]
    UnusedTensor {
        /// The first such tensor's name.
        name: String,
        /// What the file says it is.
        architecture: String,
        /// How many more there are.
        others: usize,
    },
    /// A tensor has another shape than the configuration says.
    #[error("tensor `{name}` has shape {found:?}, expected {expected:?}")]
    Shape {
        /// The tensor's name.
        name: String,
        /// Rows first.
        expected: Vec<usize>,
        /// Rows first.
        found: Vec<usize>,
    },
    /// A tensor is stored in a type that this build cannot compute with.
    #[error("tensor `{name}` is stored as {kind}, which is not supported (supported: {supported})")]
    UnsupportedType {
        /// The tensor's name.
        name: String,
        /// Its type.
        kind: String,
        /// The types this build computes with, comma separated.
        supported: String,
    },
    /// A metadata field is missing or out of range.
    #[error("field `{field}`: {problem}")]
    Config {
        /// The metadata key.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The instruction set that was asked for cannot run here.
    #[error(transparent)]
    Isa(#[from] UnknownIsa),
    /// The operating system gave no threads.
    #[error("could not start the worker threads: {message}")]
    Threads {
        /// What it said.
        message: String,
    },
    /// A pass is empty, or larger than the options allow.
    #[error(
        "a pass of {tokens} tokens and {outputs} outputs is not within 1 to {max_batch_tokens} \
         tokens and {max_outputs} outputs"
    )]
    BatchSize {
        /// Tokens in the pass.
        tokens: usize,
        /// Tokens it may have.
        max_batch_tokens: usize,
        /// Rows of logits wanted.
        outputs: usize,
        /// Rows it may give.
        max_outputs: usize,
    },
    /// A sequence appears twice in a pass.
    #[error("a sequence appears twice in one pass")]
    RepeatedSequence,
    /// A sequence was removed, or never was.
    #[error("there is no such sequence")]
    UnknownSequence,
    /// All places for sequences are taken.
    #[error("all {capacity} sequences are in use")]
    TooManySequences {
        /// Sequences that fit.
        capacity: usize,
    },
    /// The KV cache has no room for the tokens.
    #[error("the KV cache holds {capacity} tokens, {needed} are needed")]
    KvFull {
        /// Tokens that fit.
        capacity: usize,
        /// Tokens that were asked for.
        needed: usize,
    },
    /// Keys and values cannot be stored that way.
    #[error(
        "keys and values of heads of {head_dim} elements cannot be stored as 8-bit blocks, which \
         need a multiple of 32"
    )]
    KvType {
        /// Elements of a head.
        head_dim: usize,
    },
    /// What was saved of a sequence cannot be taken back.
    #[error("the saved state cannot be used: {problem}")]
    SavedState {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Open sequences may need all the pages there are. Nothing is wrong: one has to end first.
    #[error("the KV cache has no room for {tokens} tokens beside the sequences that are open")]
    KvBusy {
        /// Tokens that the sequence may get.
        tokens: usize,
    },
    /// A token id is outside the vocabulary.
    #[error("token id {id} is outside the vocabulary of {vocab_size}")]
    TokenOutOfRange {
        /// The id.
        id: u32,
        /// Number of tokens the model has.
        vocab_size: usize,
    },
    /// Memory could not be had.
    #[error("could not allocate {bytes} bytes for {what}")]
    OutOfMemory {
        /// The size asked for.
        bytes: usize,
        /// What it was for.
        what: &'static str,
    },
    /// The caller asked to stop while loading.
    #[error("loading was cancelled")]
    Cancelled,
}
