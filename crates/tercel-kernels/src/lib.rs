//! CPU maths: quantized matrix products, norms, rotary embedding, attention, and the worker pool.
//!
//! # Layout
//! A weight matrix is packed once, at load, into tiles of [`TILE_ROWS`] rows that are interleaved
//! along the inner dimension ([`PackedMatrix`]). A kernel broadcasts a few activations to all
//! lanes, so lanes are rows and no sum across lanes is ever needed. The same layout serves one
//! column (decode) and many (prefill).
//!
//! # Same order, same bits
//! Every output element is accumulated block by block along the inner dimension, by the same
//! operations whatever the tile shape, the number of columns in a call, or the number of threads.
//! Attention walks the cache in fixed blocks from position 0, in splits with fixed boundaries. So
//! results never depend on how work was divided; the tests of each operation say so bit for bit.
//!
//! # Instruction sets
//! [`Isa`] is a value that exists only when the processor can run it. An operation has a scalar
//! reference, written to be read, and, where the compiler alone does not do as well, an AVX2
//! version; both are tested against each other.

mod aligned;
mod dispatch;
mod layout;
pub mod ops;
mod packed;
mod packing;
mod pool;
pub mod quant;
mod source;
mod sync;

pub use aligned::{AlignedVec, AllocError, Plain};
pub use dispatch::{Isa, UnknownIsa};
pub use layout::{Layout, Target};
pub use packed::{PackError, PackedMatrix, TILE_ROWS};
pub use pool::Pool;
pub use source::dequantize_row;
