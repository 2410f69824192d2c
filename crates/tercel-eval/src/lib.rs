//! Measurements of a model: perplexity.
#![forbid(unsafe_code)]

mod perplexity;

pub use perplexity::{ChunkReport, EvalError, Perplexity, PerplexityOptions, perplexity};
