//! Untrusted bytes to typed views: GGUF, safetensors, and the block layouts of every tensor type.
//!
//! Everything here takes a byte slice it does not trust and gives back borrowed views whose
//! bounds were checked once. Nothing here allocates more than the input justifies, starts a
//! thread, or touches the file system.
#![forbid(unsafe_code)]

pub mod checkpoint;
mod dtype;
pub mod gguf;
mod storage;

pub use checkpoint::{Checkpoint, CheckpointError};
pub use dtype::DType;
pub use gguf::{Gguf, GgufError};
pub use storage::{Affine, Storage};
