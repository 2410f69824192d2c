//! Rows of a stored matrix: where they lie, and the floats they stand for.

use tercel_formats::{Affine, DType, Storage};

use crate::packed::{float_at, with_format};
use crate::quant::{Format, PART, affine, formats::*};
use crate::{Layout, PackError, TILE_ROWS, Target};

/// Writes row `row` of a stored matrix of `rows` by `cols` as floats, without packing it. They are
/// those of [`PackedMatrix::row`](crate::PackedMatrix::row).
///
/// # Errors
/// [`PackError`] when no kernel reads what is stored, or it has another size than the shape.
///
/// # Panics
/// When `row` is out of range or `out` has another length than `cols`.
pub fn dequantize_row(
    storage: &Storage<'_>,
    rows: usize,
    cols: usize,
    row: usize,
    out: &mut [f32],
) -> Result<(), PackError> {
    assert!(row < rows && out.len() == cols, "row {row} of {rows}");
    Source::new(storage, rows, cols)?.floats(row, out);
    Ok(())
}

/// A storage that has the size its shape asks for.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    Plain {
        dtype: DType,
        data: &'a [u8],
        row_bytes: usize,
    },
    Affine {
        affine: Affine<'a>,
        cols: usize,
    },
}

impl<'a> Source<'a> {
    pub(crate) fn new(storage: &Storage<'a>, rows: usize, cols: usize) -> Result<Self, PackError> {
        Layout::of(storage, cols, Target::AsStored)?;
        match *storage {
            Storage::Plain { dtype, data } => {
                let row_bytes = dtype.bytes_for(cols).unwrap_or(0);
                let expected = row_bytes.saturating_mul(rows);
                if expected == 0 || data.len() != expected {
                    return Err(PackError::Size {
                        expected,
                        found: data.len(),
                    });
                }
                Ok(Self::Plain {
                    dtype,
                    data,
                    row_bytes,
                })
            }
            Storage::Affine(affine) => {
                let groups = if cols.is_multiple_of(affine.group) {
                    rows.saturating_mul(cols / affine.group)
                } else {
                    0
                };
                let code_bytes = affine.group / 8 * affine.bits as usize;
                let scale_bytes = affine.scale_type.block_bytes();
                let arrays = [
                    ("codes", affine.codes, code_bytes),
                    ("scales", affine.scales, scale_bytes),
                    ("biases", affine.biases, scale_bytes),
                ];
                for (array, bytes, of_group) in arrays {
                    let expected = groups.saturating_mul(of_group);
                    if expected == 0 || bytes.len() != expected {
                        return Err(PackError::ArraySize {
                            array,
                            expected,
                            found: bytes.len(),
                        });
                    }
                }
                Ok(Self::Affine { affine, cols })
            }
            _ => Err(PackError::UnknownStorage),
        }
    }

    /// Writes row `row` as floats.
    pub(crate) fn floats(&self, row: usize, out: &mut [f32]) {
        match *self {
            Self::Plain {
                dtype,
                data,
                row_bytes,
            } => dequantize(dtype, &data[row * row_bytes..(row + 1) * row_bytes], out),
            Self::Affine { affine, cols } => affine::dequantize_row(&affine, cols, row, out),
        }
    }
}

/// Writes a row as a file has it as floats.
pub(crate) fn dequantize(dtype: DType, row: &[u8], out: &mut [f32]) {
    with_format!(dtype,
        F => dequantize_blocks::<F>(row, out),
        float => {
            for (bytes, out) in row.chunks_exact(dtype.block_bytes()).zip(out) {
                *out = float_at(dtype, bytes);
            }
        }
    );
}

/// The meaning of a block is that of its packed form, so eight blocks in a row are packed as if
/// they were one block of eight rows.
fn dequantize_blocks<F: Format>(row: &[u8], out: &mut [f32]) {
    /// More than any format's packed block.
    const SPACE: usize = 4096;
    const { assert!(F::PACKED_BYTES <= SPACE) };
    let mut space = [0; SPACE];
    let packed = &mut space[..F::PACKED_BYTES];
    let eight = row.chunks(TILE_ROWS * F::SOURCE_BYTES);
    for (blocks, out) in eight.zip(out.chunks_mut(TILE_ROWS * F::BLOCK_LEN)) {
        let block = |i: usize| blocks.chunks_exact(F::SOURCE_BYTES).nth(i);
        let first = &blocks[..F::SOURCE_BYTES];
        F::pack(std::array::from_fn(|i| block(i).unwrap_or(first)), packed);
        for (lane, out) in out.chunks_exact_mut(F::BLOCK_LEN).enumerate() {
            for (part, out) in out.chunks_exact_mut(PART).enumerate() {
                out.copy_from_slice(&F::part(packed, lane, part).weights());
            }
        }
    }
}
