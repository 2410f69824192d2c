//! How the numbers of one tensor lie in a file.

use std::ops::Range;

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
    /// Numbers of a type that no matrix or vector of a model has.
    Opaque {
        /// The type as its format names it, such as `F8_E4M3`.
        kind: &'static str,
        /// As they lie in the file.
        data: &'a [u8],
    },
}

impl<'a> Storage<'a> {
    /// Name of the type for people: `Q4_K`, `BF16`, `affine 4-bit, groups of 64`.
    pub fn kind(&self) -> String {
        match self {
            Self::Plain { dtype, .. } => dtype.to_string(),
            Self::Affine(affine) => {
                format!("affine {}-bit, groups of {}", affine.bits, affine.group)
            }
            Self::Opaque { kind, .. } => (*kind).to_owned(),
        }
    }

    /// Bytes in the file.
    pub fn bytes(&self) -> usize {
        self.parts().iter().map(|part| part.len()).sum()
    }

    /// The arrays of bytes it is made of; some may be empty.
    pub fn parts(&self) -> [&'a [u8]; 3] {
        match *self {
            Self::Plain { data, .. } | Self::Opaque { data, .. } => [data, &[], &[]],
            Self::Affine(affine) => [affine.codes, affine.scales, affine.biases],
        }
    }

    /// Some of its `total` rows: one expert of a stack of matrices, or one of several matrices that
    /// were put into one. `None` when there are no such rows, or the bytes are not so many rows.
    #[must_use]
    pub fn rows(&self, range: Range<usize>, total: usize) -> Option<Self> {
        let cut = |bytes: &'a [u8]| {
            let row = bytes.len().checked_div(total)?;
            bytes.len().is_multiple_of(total).then_some(())?;
            bytes.get(row.checked_mul(range.start)?..row.checked_mul(range.end)?)
        };
        Some(match *self {
            Self::Plain { dtype, data } => Self::Plain {
                dtype,
                data: cut(data).filter(|part| part.len().is_multiple_of(dtype.block_bytes()))?,
            },
            Self::Opaque { kind, data } => Self::Opaque {
                kind,
                data: cut(data)?,
            },
            Self::Affine(affine) => Self::Affine(Affine {
                codes: cut(affine.codes)?,
                scales: cut(affine.scales)?,
                biases: cut(affine.biases)?,
                ..affine
            }),
        })
    }
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
