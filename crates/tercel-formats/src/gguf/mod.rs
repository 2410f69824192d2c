//! Reads and writes GGUF, the file format of llama.cpp and its relatives.
//!
//! [`Gguf::parse`] checks a whole file once and gives back views into its bytes: nothing is
//! copied, arrays are walked where they lie, and every tensor's extent is inside the file before
//! anyone sees it. [`Writer`] makes files that the reader accepts. The rules both keep are the
//! constants of [`limits`].
//!
//! A file is, in little-endian order: the magic `GGUF`, the version, the counts of tensors and of
//! metadata entries; the metadata entries (key, type, value); the tensor entries (name,
//! dimensions, type, offset); padding; and the tensor data the offsets point into.

mod cursor;
mod error;
pub mod limits;
mod metadata;
mod owned;
mod reader;
mod tensor;
mod value;
mod writer;

pub use error::GgufError;
pub use metadata::Metadata;
pub use owned::{OwnedArray, OwnedValue};
pub use reader::Gguf;
pub use tensor::Tensor;
pub use value::{Array, Kind, Strings, Value};
pub use writer::Writer;

/// The first bytes of every file.
const MAGIC: [u8; 4] = *b"GGUF";

/// The key that sets the alignment of tensor data.
const ALIGNMENT_KEY: &str = "general.alignment";
