//! Measurements of a model: perplexity, and validation against a reference.
#![forbid(unsafe_code)]

mod perplexity;
mod validate;

pub use perplexity::{ChunkReport, EvalError, Perplexity, PerplexityOptions, perplexity};
pub use validate::{
    GreedyReport, PROMPTS, PositionReport, PromptReport, Reference, ReferenceFile, TOP, Thresholds,
    Triage, ValidateOptions, Validation, compare, triage, validate,
};
