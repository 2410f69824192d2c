//! Models as short files over a [`Backend`](backend::Backend) of some fifteen operations.
//!
//! Nothing here has a clock, starts a thread of its own, or does input and output: a [`Runner`]
//! is built from a parsed file and turns token ids into logits.
#![forbid(unsafe_code)]

pub mod backend;
mod cpu;
mod error;
mod kv;
mod layers;
pub mod loader;
mod models;
mod planner;
mod runner;
mod survey;
mod workers;

pub use error::NnError;
pub use kv::{Holding, Identity, KvPart, KvType, KvUsage, Miss, Prefix, PrefixCache, SequenceId};
pub use loader::TensorShape;
pub use models::{Naming, architectures};
pub use runner::{Chunk, Logits, Memory, ModelInfo, Options, Packed, Runner, Wanted};
pub use survey::{Function, Packing, PlannedTensor, Survey, Treatment};
pub use tercel_kernels::ops::attention::PAGE;
pub use tercel_kernels::quant::QUANTIZABLE;
pub use tercel_kernels::{PackError, Target, dequantize_row};
pub use workers::Workers;
