//! A weight matrix in the layout the kernels read.

use std::fmt;
use std::ops::Range;

use half::{bf16, f16};
use tercel_formats::DType;

use crate::quant::{Format, PART, formats::*};
use crate::{AlignedVec, AllocError, Pool};

/// Rows that a tile interleaves: the lanes of a 256-bit register of floats.
pub const TILE_ROWS: usize = 8;

/// A matrix of `rows` output features by `cols` inputs, packed in tiles.
#[derive(Debug)]
pub struct PackedMatrix {
    dtype: DType,
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
    /// The bytes are not `rows * cols` elements of the type.
    Size {
        /// Bytes that the shape needs.
        expected: usize,
        /// Bytes that came.
        found: usize,
    },
    /// The packed form does not fit in memory.
    Alloc(AllocError),
}

impl fmt::Display for PackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsupported(dtype) => {
                let supported = PackedMatrix::SUPPORTED.map(DType::name).join(", ");
                write!(f, "tensor type {dtype} is not supported, only {supported}")
            }
            Self::Size { expected, found } => {
                write!(
                    f,
                    "the shape needs {expected} bytes, the tensor has {found}"
                )
            }
            Self::Alloc(error) => error.fmt(f),
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

    /// Packs a row-major matrix as it lies in a file.
    ///
    /// # Errors
    /// [`PackError`] when the type is not supported, `source` has another size than
    /// `rows * cols` elements, or memory is short.
    pub fn pack(
        pool: &mut Pool,
        dtype: DType,
        rows: usize,
        cols: usize,
        source: &[u8],
    ) -> Result<Self, PackError> {
        let size = Self::packed_bytes(dtype, rows, cols)?;
        let row_bytes = dtype.bytes_for(cols).unwrap_or(0);
        let expected = row_bytes.saturating_mul(rows);
        if expected == 0 || source.len() != expected {
            return Err(PackError::Size {
                expected,
                found: source.len(),
            });
        }
        let mut data = AlignedVec::zeroed(size).map_err(PackError::Alloc)?;
        let tiles = rows.div_ceil(TILE_ROWS);
        let tile_bytes = size / tiles;
        let zeros = vec![0; row_bytes];
        let out = crate::ops::SharedMut::new(&mut data);
        pool.run(tiles, 1, |_, range| {
            for tile in range {
                let row = |i: usize| source.chunks_exact(row_bytes).nth(tile * TILE_ROWS + i);
                let rows: [&[u8]; TILE_ROWS] = std::array::from_fn(|i| row(i).unwrap_or(&zeros));
                // SAFETY: each tile belongs to exactly one range, so no other thread touches
                // these bytes.
                let packed = unsafe { out.slice(tile * tile_bytes..(tile + 1) * tile_bytes) };
                pack_tile(dtype, rows, packed);
            }
        });
        Ok(Self {
            dtype,
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
    pub fn packed_bytes(dtype: DType, rows: usize, cols: usize) -> Result<usize, PackError> {
        if !Self::SUPPORTED.contains(&dtype) {
            return Err(PackError::Unsupported(dtype));
        }
        let block = with_format!(dtype, F => (F::BLOCK_LEN, F::PACKED_BYTES),
            float => (1, TILE_ROWS * dtype.block_bytes()));
        let impossible = PackError::Size {
            expected: usize::MAX,
            found: 0,
        };
        if rows == 0 || cols == 0 || !cols.is_multiple_of(block.0) {
            return Err(impossible);
        }
        let tile = (cols / block.0)
            .checked_mul(block.1)
            .ok_or(impossible.clone())?;
        rows.div_ceil(TILE_ROWS).checked_mul(tile).ok_or(impossible)
    }

    /// How the elements were stored before packing.
    pub fn dtype(&self) -> DType {
        self.dtype
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
        with_format!(self.dtype, F => F::BLOCK_LEN >= PART, float => false)
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
        with_format!(self.dtype,
            F => {
                let blocks = tile.chunks_exact(F::PACKED_BYTES);
                for (packed, out) in blocks.zip(out.chunks_exact_mut(F::BLOCK_LEN)) {
                    for (part, out) in out.chunks_exact_mut(PART).enumerate() {
                        out.copy_from_slice(&F::part(packed, lane, part).weights());
                    }
                }
            },
            float => {
                let width = self.dtype.block_bytes();
                for (column, out) in tile.chunks_exact(width * TILE_ROWS).zip(out) {
                    *out = float_at(self.dtype, &column[width * lane..width * (lane + 1)]);
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

    /// The rows of a tile; the last tile may be partial.
    pub(crate) fn tile_rows(&self, tile: usize) -> Range<usize> {
        tile * TILE_ROWS..((tile + 1) * TILE_ROWS).min(self.rows)
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

fn pack_tile(dtype: DType, rows: [&[u8]; TILE_ROWS], packed: &mut [u8]) {
    with_format!(dtype,
        F => {
            for (block, packed) in packed.chunks_exact_mut(F::PACKED_BYTES).enumerate() {
                let at = block * F::SOURCE_BYTES;
                F::pack(rows.map(|row| &row[at..at + F::SOURCE_BYTES]), packed);
            }
        },
        float => {
            let width = dtype.block_bytes();
            for (k, column) in packed.chunks_exact_mut(width * TILE_ROWS).enumerate() {
                for (row, out) in rows.iter().zip(column.chunks_exact_mut(width)) {
                    out.copy_from_slice(&row[k * width..(k + 1) * width]);
                }
            }
        }
    );
}
