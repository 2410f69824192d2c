//! What a packed matrix holds, and how that follows from what is stored and what is wanted.

use std::fmt;

use tercel_formats::{Affine, DType, Storage};

use crate::quant::{Format, QUANTIZABLE, fallback, formats::*};
use crate::{PackError, PackedMatrix, TILE_ROWS};

/// What a matrix becomes when it is packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Target {
    /// The numbers as they are stored.
    #[default]
    AsStored,
    /// Every number as F32, so that products take activations as they are and not as 8-bit codes:
    /// the reference path.
    Exact,
    /// Floats are quantized to this type, one of [`QUANTIZABLE`], or to what stands in for it
    /// where its block does not divide a row ([`fallback`]). What is quantized already stays as it
    /// is stored.
    Quantize(DType),
}

/// How the numbers of a packed matrix are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// Elements or blocks of this type.
    Plain(DType),
    /// Groups of codes, each with its scale and bias.
    Affine {
        /// Bits of a stored code.
        bits: u32,
        /// Elements of a group.
        group: usize,
    },
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(dtype) => dtype.fmt(f),
            Self::Affine { bits, group } => write!(f, "{bits}-bit groups of {group}"),
        }
    }
}

/// Calls `$body` with `$format` as the type that implements [`Format`] for a quantized layout, or
/// `$float` with `$dtype` as the type of its elements.
macro_rules! with_layout {
    ($layout:expr, $format:ident => $body:expr, float $dtype:ident => $float:expr) => {
        match $layout {
            $crate::Layout::Affine { bits, group } => {
                $crate::layout::with_affine!((bits, group), $format => $body)
            }
            $crate::Layout::Plain($dtype) => {
                $crate::packed::with_format!($dtype, $format => $body, float => $float)
            }
        }
    };
}
pub(crate) use with_layout;

/// Calls `$body` with `$format` as the type for affine codes of `(bits, group)`.
macro_rules! with_affine {
    ($affine:expr, $format:ident => $body:expr) => {
        match $affine {
            (2, group) => $crate::layout::with_affine!($crate::quant::Bits<2, 0, 0>, group, $format => $body),
            (3, group) => $crate::layout::with_affine!($crate::quant::Bits<2, 1, 0>, group, $format => $body),
            (4, group) => $crate::layout::with_affine!($crate::quant::Bits<4, 0, 0>, group, $format => $body),
            (5, group) => $crate::layout::with_affine!($crate::quant::Bits<4, 1, 0>, group, $format => $body),
            (6, group) => $crate::layout::with_affine!($crate::quant::Bits<4, 2, 0>, group, $format => $body),
            (_, group) => $crate::layout::with_affine!($crate::quant::Bytes, group, $format => $body),
        }
    };
    ($codes:ty, $group:expr, $format:ident => $body:expr) => {
        match $group {
            32 => {
                type $format = $crate::quant::AffineGroup<$codes, 32>;
                $body
            }
            64 => {
                type $format = $crate::quant::AffineGroup<$codes, 64>;
                $body
            }
            _ => {
                type $format = $crate::quant::AffineGroup<$codes, 128>;
                $body
            }
        }
    };
}
pub(crate) use with_affine;

impl Layout {
    /// The layout that rows of `cols` numbers get.
    ///
    /// # Errors
    /// [`PackError`] when no kernel reads what is stored, or nothing here can write `target`.
    pub fn of(storage: &Storage<'_>, cols: usize, target: Target) -> Result<Self, PackError> {
        let stored = Self::stored(storage)?;
        match target {
            Target::Exact => Ok(Self::Plain(DType::F32)),
            Target::Quantize(dtype) if !QUANTIZABLE.contains(&dtype) => {
                Err(PackError::NotATarget(dtype))
            }
            Target::Quantize(dtype) if stored.is_float() => {
                let dtype = fallback(dtype, cols);
                Self::supported(dtype)?;
                Ok(Self::Plain(dtype))
            }
            Target::AsStored | Target::Quantize(_) => Ok(stored),
        }
    }

    /// The layout of a matrix that is packed as it is stored.
    fn stored(storage: &Storage<'_>) -> Result<Self, PackError> {
        match storage {
            Storage::Plain { dtype, .. } => {
                Self::supported(*dtype)?;
                Ok(Self::Plain(*dtype))
            }
            Storage::Affine(Affine {
                bits,
                group,
                scale_type,
                ..
            }) => {
                let (bits, group) = (*bits, *group);
                if !Affine::BITS.contains(&bits) || !Affine::GROUPS.contains(&group) {
                    return Err(PackError::Affine { bits, group });
                }
                if !is_float(*scale_type) {
                    return Err(PackError::Unsupported(*scale_type));
                }
                Ok(Self::Affine { bits, group })
            }
            _ => Err(PackError::UnknownStorage),
        }
    }

    fn supported(dtype: DType) -> Result<(), PackError> {
        if PackedMatrix::SUPPORTED.contains(&dtype) {
            Ok(())
        } else {
            Err(PackError::Unsupported(dtype))
        }
    }

    /// Bytes of a tile of rows of `cols` numbers; `None` when they are no whole number of blocks.
    pub(crate) fn tile_bytes(self, cols: usize) -> Option<usize> {
        let (len, bytes) = with_layout!(self, F => (F::BLOCK_LEN, F::PACKED_BYTES),
            float dtype => (1, TILE_ROWS * dtype.block_bytes()));
        let blocks = cols.is_multiple_of(len).then_some(cols / len)?;
        blocks.checked_mul(bytes)
    }

    /// Whether this is an array of float numbers.
    pub fn is_float(self) -> bool {
        matches!(self, Self::Plain(dtype) if is_float(dtype))
    }
}

fn is_float(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F16 | DType::BF16)
}
