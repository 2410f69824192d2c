//! Models as short files over a [`Backend`](backend::Backend) of some fifteen operations.
//!
//! Nothing here has a clock, starts a thread of its own, or does input and output: a [`Runner`]
//! is built from a parsed file and turns token ids into logits.
#![forbid(unsafe_code)]

mod error;
mod runner;

pub use error::NnError;
pub use runner::{Chunk, Logits, Memory, ModelInfo, Options, Runner, SequenceId, Wanted};
