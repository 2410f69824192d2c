//! What a template may cost. A template comes with a model file, so nobody has vouched for it.

/// Longest template source, in bytes. Published ones stay below 40,000.
pub const SOURCE_BYTES: usize = 256 * 1024;

/// Longest rendered prompt, in bytes.
pub const OUTPUT_BYTES: usize = 16 * 1024 * 1024;

/// Bytes that the string operations of one render may touch together, before those for its input.
pub const WORK_BYTES: usize = 16 * 1024 * 1024;

/// Further bytes for each byte of the input: a template may handle a message many times.
pub const WORK_PER_INPUT_BYTE: usize = 16;

/// Further bytes for each message, for templates that keep lists of them.
pub const WORK_PER_MESSAGE: usize = 64 * 1024;

/// Steps that a render may take, before those for its messages.
pub const STEPS: u64 = 500_000;

/// Further steps for each message.
pub const STEPS_PER_MESSAGE: u64 = 10_000;

/// How deep loops, macros and the like may nest.
pub const DEPTH: usize = 120;

/// How deep a value may nest that a template turns into JSON.
pub const JSON_DEPTH: usize = 64;

/// Names, literals and operators in one tag. The parser takes some stack for each operator of a
/// chain, on whatever thread it is called; published templates have at most some dozens in a tag.
pub const TAG_TOKENS: usize = 400;

/// Branches (`elif`) in a whole template, for the same reason.
pub const BRANCHES: usize = 300;
