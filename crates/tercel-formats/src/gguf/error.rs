//! What can be wrong with a GGUF file.

use crate::DType;

/// Why a GGUF file cannot be read or written, naming the field, tensor or offset at fault.
///
/// Every message is one line: names taken from a file are escaped and cut to a readable length.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GgufError {
    /// The magic bytes are absent.
    #[error("not a GGUF file (it starts with {start})")]
    NotGguf {
        /// The first bytes, escaped and quoted.
        start: String,
    },
    /// A file for big-endian machines.
    #[error("a big-endian GGUF file is not supported; convert the model to little-endian")]
    BigEndian,
    /// A version that is not read.
    #[error("GGUF version {version} is not supported, 2 and 3 are; convert the model again")]
    Version {
        /// The version the file states.
        version: u32,
    },
    /// A field reaches past the end of the file.
    #[error("truncated: `{field}` needs {needed} bytes at offset {offset}, the file ends at {end}")]
    Truncated {
        /// The field.
        field: String,
        /// Bytes it needs, at least.
        needed: u64,
        /// Where it starts, in bytes from the start of the file.
        offset: usize,
        /// Bytes in the file.
        end: usize,
    },
    /// A count or a length beyond a limit of [`limits`](super::limits).
    #[error("`{field}` is {found}, the limit is {limit}")]
    Limit {
        /// The count or length.
        field: String,
        /// What the file states.
        found: u64,
        /// The most that is allowed.
        limit: u64,
    },
    /// A key or a tensor name of no bytes.
    #[error("`{field}` is empty")]
    Empty {
        /// The field.
        field: String,
    },
    /// Text that is not UTF-8.
    #[error("`{field}` at offset {offset} is not valid UTF-8")]
    NotUtf8 {
        /// The field.
        field: String,
        /// Where the text starts, in bytes from the start of the file.
        offset: usize,
    },
    /// A value type the format does not have.
    #[error("`{field}` has the unknown value type {id}")]
    UnknownKind {
        /// The field.
        field: String,
        /// The type id in the file.
        id: u32,
    },
    /// A truth value that is neither 0 nor 1.
    #[error("`{field}` is the truth value {value}, 0 or 1 is needed")]
    NotBool {
        /// The field.
        field: String,
        /// The byte in the file.
        value: u8,
    },
    /// Two metadata entries of one key.
    #[error("the key `{key}` appears twice")]
    DuplicateKey {
        /// The key.
        key: String,
    },
    /// Two tensors of one name.
    #[error("the tensor `{tensor}` appears twice")]
    DuplicateTensor {
        /// The name.
        tensor: String,
    },
    /// `general.alignment` is not a usable alignment.
    #[error("`general.alignment` is {found}, a u32 power of two up to {limit} is needed")]
    Alignment {
        /// The value or its type.
        found: String,
        /// The largest alignment allowed.
        limit: u32,
    },
    /// A tensor with no dimensions or too many.
    #[error("tensor `{tensor}` has {dims} dimensions, 1 to {limit} are possible")]
    Dimensions {
        /// The tensor.
        tensor: String,
        /// Its dimension count.
        dims: usize,
        /// The most that is allowed.
        limit: u32,
    },
    /// A tensor without elements.
    #[error("tensor `{tensor}` has the shape {shape:?}, no dimension may be zero")]
    ZeroDimension {
        /// The tensor.
        tensor: String,
        /// Its shape, fastest dimension first.
        shape: Vec<u64>,
    },
    /// A tensor whose element count or byte size does not fit.
    #[error("tensor `{tensor}` of shape {shape:?} is larger than any memory")]
    TooLarge {
        /// The tensor.
        tensor: String,
        /// Its shape, fastest dimension first.
        shape: Vec<u64>,
    },
    /// A tensor type that is not known.
    #[error("tensor `{tensor}` has the unknown type {id}; a newer version may read it")]
    UnknownDType {
        /// The tensor.
        tensor: String,
        /// The type id in the file.
        id: u32,
    },
    /// Rows that are not a whole number of blocks.
    #[error("tensor `{tensor}` has rows of {row} elements, {dtype} needs a multiple of {block}", block = dtype.block_len())]
    PartialBlock {
        /// The tensor.
        tensor: String,
        /// Its type.
        dtype: DType,
        /// Elements in a row.
        row: u64,
    },
    /// Tensor data that does not start on the alignment.
    #[error(
        "tensor `{tensor}` has the data offset {offset}, not a multiple of the alignment {alignment}"
    )]
    Misaligned {
        /// The tensor.
        tensor: String,
        /// Its offset from the start of the data section.
        offset: u64,
        /// The alignment of the file.
        alignment: usize,
    },
    /// Tensor data that reaches past the end of the file.
    #[error(
        "tensor `{tensor}` needs {needed} bytes at offset {offset} of the data section, which has {present}"
    )]
    Outside {
        /// The tensor.
        tensor: String,
        /// Bytes of its data.
        needed: usize,
        /// Its offset from the start of the data section.
        offset: u64,
        /// Bytes in the data section.
        present: usize,
    },
    /// Two tensors that share bytes.
    #[error("the tensors `{first}` and `{second}` overlap")]
    Overlap {
        /// The tensor that starts first.
        first: String,
        /// The tensor that starts inside it.
        second: String,
    },
    /// A value of another type than the one asked for.
    #[error("`{key}` is of type {found}, {wanted} is needed")]
    WrongKind {
        /// The key.
        key: String,
        /// The type in the file.
        found: String,
        /// The type asked for.
        wanted: &'static str,
    },
    /// A number that does not fit the type asked for.
    #[error("`{field}` is {found}, which does not fit {wanted}")]
    OutOfRange {
        /// The key, with an index for an element of an array.
        field: String,
        /// The number.
        found: String,
        /// The type asked for.
        wanted: &'static str,
    },
    /// Bytes given to the writer that are not the size of the tensor.
    #[error("tensor `{tensor}` got {found} bytes, its shape and type need {needed}")]
    DataLength {
        /// The tensor.
        tensor: String,
        /// Bytes its shape and type need.
        needed: usize,
        /// Bytes given.
        found: usize,
    },
}

/// A name from a file as it may be shown: one line, escaped, and not long.
pub(super) fn shown(name: &str) -> String {
    const SHOWN_CHARS: usize = 96;
    let mut text: String = name
        .chars()
        .take(SHOWN_CHARS)
        .flat_map(char::escape_debug)
        .collect();
    if name.chars().nth(SHOWN_CHARS).is_some() {
        text.push_str("...");
    }
    text
}
