//! Measurements of a model: speed, perplexity, and validation against a reference.
#![forbid(unsafe_code)]

mod bench;
mod perplexity;
mod validate;

pub use bench::{
    BenchOptions, BenchReport, BenchRun, Knob, Measured, Percentiles, Stage, Stages, Suspect,
    Target, Trace, Verdict, bench, best, core_sets, estimate, search, suspects, verdict,
};
pub use perplexity::{ChunkReport, EvalError, Perplexity, PerplexityOptions, perplexity};
pub use validate::{
    GreedyReport, PROMPTS, PositionReport, PromptReport, Reference, ReferenceFile, TOP, Thresholds,
    Triage, ValidateOptions, Validation, compare, triage, validate,
};
