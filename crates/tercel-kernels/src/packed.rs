//! A weight matrix in the layout the kernels read.

use std::fmt;
use std::ops::ControlFlow;

use half::{bf16, f16};
use tercel_formats::{Affine, DType, Storage};

use crate::layout::with_layout;
use crate::quant::{EncodeError, Format, PART, formats::*};
use crate::source::Source;
use crate::{AlignedVec, AllocError, Layout, Pool, Target, packing};

/// Rows that a tile interleaves: the lanes of a 256-bit register of floats.
pub const TILE_ROWS: usize = 8;

/// A matrix of `rows` output features by `cols` inputs, packed in tiles.
#[derive(Debug)]
pub struct PackedMatrix {
    layout: Layout,
    rows: usize,
    cols: usize,
    tile_bytes: usize,
    data: AlignedVec<u8>,
}

/// Why a matrix cannot be packed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PackError {
    /// No kernel reads this type.
    Unsupported(DType),
    /// No kernel reads affine codes of this kind.
    Affine {
        /// Bits of a code.
        bits: u32,
        /// Elements of a group.
        group: usize,
    },
    /// A form of storage that this build knows nothing of.
    UnknownStorage,
    /// Nothing here writes this type.
    NotATarget(DType),
    /// The bytes are not `rows * cols` elements of the type.
    Size {
        /// Bytes that the shape needs.
        expected: usize,
        /// Bytes that came.
        found: usize,
    },
    /// One of the arrays of an affine tensor has not what `rows * cols` elements need.
    ArraySize {
        /// `codes`, `scales` or `biases`.
        array: &'static str,
        /// Bytes that the shape needs.
        expected: usize,
        /// Bytes that came.
        found: usize,
    },
    /// A number cannot be quantized.
    Encode {
        /// The row it is in.
        row: usize,
        /// What is wrong with it.
        error: EncodeError,
    },
    /// The packed form does not fit in memory.
    Alloc(AllocError),
    /// Its caller had it stop.
    Stopped,
}

impl fmt::Display for PackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsupported(dtype) => {
                let supported = PackedMatrix::SUPPORTED.map(DType::name).join(", ");
                write!(f, "tensor type {dtype} is not supported, only {supported}")
            }
            Self::Affine { bits, group } => write!(
                f,
                "{bits}-bit codes in groups of {group} are not supported (bits: {:?}; groups: {:?})",
                Affine::BITS,
                Affine::GROUPS
            ),
            Self::UnknownStorage => f.write_str("this form of storage is not supported"),
            Self::NotATarget(dtype) => EncodeError::NotATarget(*dtype).fmt(f),
            Self::Size { expected, found } => {
                write!(
                    f,
                    "the shape needs {expected} bytes, the tensor has {found}"
                )
            }
            Self::ArraySize {
                array,
                expected,
                found,
            } => write!(
                f,
                "the shape needs {expected} bytes of {array}, the tensor has {found}"
            ),
            Self::Encode { row, error } => write!(f, "row {row}: {error}"),
            Self::Alloc(error) => error.fmt(f),
            Self::Stopped => f.write_str("packing was stopped"),
        }
    }
}

impl std::error::Error for PackError {}

/// Calls `$body` with `$format` as the type that implements [`Format`] for a quantized dtype.
macro_rules! with_format {
    ($dtype:expr, $format:ident => $body:expr, float => $float:expr) => {
        match $dtype {
            DType::Q8_0 => {
                type $format = Q8_0;
                $body
            }
            DType::Q6_K => {
                type $format = Q6_K;
                $body
            }
            DType::Q5_K => {
                type $format = Q5_K;
                $body
            }
            DType::Q5_1 => {
                type $format = Q5_1;
                $body
            }
            DType::Q5_0 => {
                type $format = Q5_0;
                $body
            }
            DType::Q4_K => {
                type $format = Q4_K;
                $body
            }
            DType::Q4_1 => {
                type $format = Q4_1;
                $body
            }
            DType::Q4_0 => {
                type $format = Q4_0;
                $body
            }
            DType::IQ4_XS => {
                type $format = IQ4_XS;
                $body
            }
            DType::IQ4_NL => {
                type $format = IQ4_NL;
                $body
            }
            DType::MXFP4 => {
                type $format = MXFP4;
                $body
            }
            DType::Q3_K => {
                type $format = Q3_K;
                $body
            }
            DType::Q2_K => {
                type $format = Q2_K;
                $body
            }
            DType::TQ2_0 => {
                type $format = TQ2_0;
                $body
            }
            DType::TQ1_0 => {
                type $format = TQ1_0;
                $body
            }
            _ => $float,
        }
    };
}
pub(crate) use with_format;

impl PackedMatrix {
    /// The tensor types that can be packed.
    pub const SUPPORTED: [DType; 18] = [
        DType::F32,
        DType::F16,
        DType::BF16,
        DType::Q8_0,
        DType::Q6_K,
        DType::Q5_K,
        DType::Q5_1,
        DType::Q5_0,
        DType::Q4_K,
        DType::Q4_1,
        DType::Q4_0,
        DType::IQ4_XS,
        DType::IQ4_NL,
        DType::MXFP4,
        DType::Q3_K,
        DType::Q2_K,
        DType::TQ2_0,
        DType::TQ1_0,
    ];

    /// Packs a row-major matrix of `rows` by `cols`, as it is stored or as `target` says.
    ///
    /// Beside the result, each thread of the pool needs memory for eight rows at most.
    ///
    /// # Errors
    /// [`PackError`] when the type is not supported, what is stored has another size than
    /// `rows * cols` elements, a number cannot be quantized, or memory is short.
    pub fn pack(
        pool: &mut Pool,
        storage: &Storage<'_>,
        rows: usize,
        cols: usize,
        target: Target,
    ) -> Result<Self, PackError> {
        let mut progress = |_| ControlFlow::Continue(());
        Self::pack_while(pool, storage, (rows, cols), target, &mut progress)
    }

    /// [`Self::pack`] for a matrix of `(rows, cols)` that tells every few milliseconds how many rows,
    /// from the first on, are packed, and stops where it is told to.
    ///
    /// # Errors
    /// Those of [`Self::pack`], and [`PackError::Stopped`].
    pub fn pack_while(
        pool: &mut Pool,
        storage: &Storage<'_>,
        (rows, cols): (usize, usize),
        target: Target,
        progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Self, PackError> {
        let layout = Layout::of(storage, cols, target)?;
        let size = Self::packed_bytes(storage, rows, cols, target)?;
        let tile_bytes = size / rows.div_ceil(TILE_ROWS);
        let source = Source::new(storage, rows, cols)?;
        let mut data = AlignedVec::zeroed(size).map_err(PackError::Alloc)?;
        packing::pack(pool, source, (rows, cols), layout, &mut data, progress)?;
        Ok(Self {
            layout,
            rows,
            cols,
            tile_bytes,
            data,
        })
    }

    /// Bytes that a matrix takes once packed.
    ///
    /// # Errors
    /// [`PackError`] when the type is not supported or the shape impossible.
    pub fn packed_bytes(
        storage: &Storage<'_>,
        rows: usize,
        cols: usize,
        target: Target,
    ) -> Result<usize, PackError> {
        let layout = Layout::of(storage, cols, target)?;
        let tiles = rows.div_ceil(TILE_ROWS);
        let size = layout
            .tile_bytes(cols)
            .and_then(|bytes| bytes.checked_mul(tiles));
        size.filter(|size| *size > 0).ok_or(PackError::Size {
            expected: usize::MAX,
            found: 0,
        })
    }

    /// What the packed numbers are: other than what was asked for where [`Target::Quantize`] had
    /// to fall back.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Output features.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    /// Whether the kernels want the activations as 8-bit blocks.
    pub fn is_quantized(&self) -> bool {
        !self.layout.is_float()
    }

    /// Writes row `row` as floats.
    ///
    /// # Panics
    /// When `row` is out of range or `out` has another length than `cols`.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        assert!(
            row < self.rows && out.len() == self.cols,
            "row {row} of {}",
            self.rows
        );
        let tile = self.tile(row / TILE_ROWS);
        let lane = row % TILE_ROWS;
        with_layout!(self.layout,
            F => {
                let blocks = tile.chunks_exact(F::PACKED_BYTES);
                for (packed, out) in blocks.zip(out.chunks_exact_mut(F::BLOCK_LEN)) {
                    for (part, out) in out.chunks_exact_mut(PART).enumerate() {
                        out.copy_from_slice(&F::part(packed, lane, part).weights());
                    }
                }
            },
            float dtype => {
                let width = dtype.block_bytes();
                for (column, out) in tile.chunks_exact(width * TILE_ROWS).zip(out) {
                    *out = float_at(dtype, &column[width * lane..width * (lane + 1)]);
                }
            }
        );
    }

    /// The tiles of a range of tile indices.
    pub(crate) fn tile(&self, tile: usize) -> &[u8] {
        &self.data[tile * self.tile_bytes..(tile + 1) * self.tile_bytes]
    }

    /// Number of tiles.
    pub(crate) fn tiles(&self) -> usize {
        self.rows.div_ceil(TILE_ROWS)
    }
}

/// A number of a float type, little endian.
pub(crate) fn float_at(dtype: DType, bytes: &[u8]) -> f32 {
    match *bytes {
        [a, b] if dtype == DType::BF16 => bf16::from_le_bytes([a, b]).to_f32(),
        [a, b] => f16::from_le_bytes([a, b]).to_f32(),
        [a, b, c, d] => f32::from_le_bytes([a, b, c, d]),
        _ => f32::NAN,
    }
}
