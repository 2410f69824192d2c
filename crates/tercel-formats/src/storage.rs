//! How the numbers of one tensor lie in a file.

use crate::DType;

/// The stored form of a tensor, whatever file it came from. All rows lie one after the other.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Storage<'a> {
    /// One array of elements or of blocks.
    Plain {
        /// What it is an array of.
        dtype: DType,
        /// Little endian.
        data: &'a [u8],
    },
    /// Codes with scales and biases in arrays of their own, as MLX writes them.
    Affine(Affine<'a>),
}

/// Affine quantization by groups: `w = scale * code + bias`.
///
/// Each `group` consecutive elements of a row share a scale and a bias. The codes of a row are one
/// stream of bits, lowest first, in little-endian 32-bit words (`mlx.core.quantize`). A row is a
/// whole number of groups.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Affine<'a> {
    /// Bits of a code: 2, 3, 4, 5, 6 or 8.
    pub bits: u32,
    /// Elements of a group: 32, 64 or 128.
    pub group: usize,
    /// `(rows, cols * bits / 8)` bytes.
    pub codes: &'a [u8],
    /// `(rows, cols / group)` numbers of type `scale_type`.
    pub scales: &'a [u8],
    /// As `scales`.
    pub biases: &'a [u8],
    /// [`DType::F32`], [`DType::F16`] or [`DType::BF16`].
    pub scale_type: DType,
}

impl Affine<'_> {
    /// The widths that exist.
    pub const BITS: [u32; 6] = [2, 3, 4, 5, 6, 8];
    /// The groups that exist.
    pub const GROUPS: [usize; 3] = [32, 64, 128];
}
