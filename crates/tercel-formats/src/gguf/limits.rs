//! Every limit the reader and the writer keep, in one place.
//!
//! A count or a length from a file is compared with its limit, then with the bytes that remain,
//! and only then used. The two count limits are chosen so that the views of a file never take more
//! than twice the size of the file plus one megabyte.

/// The oldest version that is read: the first with 64-bit counts.
pub const MIN_VERSION: u32 = 2;

/// The newest version that is read, and the one that is written.
pub const MAX_VERSION: u32 = 3;

/// Metadata entries in a file. Real files have fewer than a hundred.
pub const MAX_METADATA: u64 = 16_384;

/// Tensors in a file. The largest published models have a few thousand.
pub const MAX_TENSORS: u64 = 32_768;

/// Bytes of a metadata key (the specification's limit); the shortest key has one.
pub const MAX_KEY_BYTES: u64 = 65_535;

/// Bytes of a string value. The largest known use is a whole `tokenizer.json`, some 35 MB.
pub const MAX_STRING_BYTES: u64 = 64 << 20;

/// Elements of one array. Vocabularies and merge lists stay below a million.
pub const MAX_ARRAY_LEN: u64 = 16 << 20;

/// Arrays inside arrays, the outermost included.
pub const MAX_ARRAY_DEPTH: usize = 4;

/// Bytes of a tensor name (the specification's limit); the shortest name has one.
pub const MAX_TENSOR_NAME_BYTES: u64 = 64;

/// Dimensions of a tensor; there is at least one, and none is zero.
pub const MAX_DIMS: u32 = 4;

/// Elements of a tensor; byte sizes are bounded by the file.
pub const MAX_ELEMENTS: usize = isize::MAX as usize;

/// Alignment of tensor data when `general.alignment` is absent.
pub const DEFAULT_ALIGNMENT: u32 = 32;

/// The largest alignment. Any power of two up to it is read, as llama.cpp does, although the
/// specification asks for multiples of 8.
pub const MAX_ALIGNMENT: u32 = 1 << 20;

/// Bytes of the shortest metadata entry: key length, one byte of key, type, one byte of value.
pub(super) const MIN_ENTRY_BYTES: u64 = 8 + 1 + 4 + 1;

/// Bytes of the shortest tensor entry: name length, one byte of name, dimension count, one
/// dimension, type, offset.
pub(super) const MIN_TENSOR_BYTES: u64 = 8 + 1 + 4 + 8 + 4 + 8;
