//! Filling the tiles of a packed matrix, in parallel.

use std::ops::{ControlFlow, Range};
use std::sync::{Mutex, PoisonError};

use tercel_formats::{Affine, DType};

use crate::layout::with_affine;
use crate::ops::SharedMut;
use crate::packed::with_format;
use crate::quant::affine::Groups;
use crate::quant::{EncodeError, Format, formats::*, quantize_row};
use crate::source::Source;
use crate::{AlignedVec, Layout, PackError, Pool, TILE_ROWS};

/// Packed bytes between two questions whether to go on: some milliseconds of work.
const STRIDE_BYTES: usize = 2 << 20;

/// Packs what is stored, `(rows, cols)`, into the tiles of `layout`, for as long as `progress`,
/// which is told how many rows are packed, says so.
pub(crate) fn pack(
    pool: &mut Pool,
    source: Source<'_>,
    (rows, cols): (usize, usize),
    layout: Layout,
    packed: &mut [u8],
    progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<(), PackError> {
    let mut tiles = Tiles {
        rows,
        bytes: packed.len() / rows.div_ceil(TILE_ROWS),
        packed: SharedMut::new(packed),
        progress,
    };
    match (source, layout) {
        (
            Source::Plain {
                dtype,
                data,
                row_bytes,
            },
            Layout::Plain(to),
        ) if dtype == to => {
            let zeros = AlignedVec::zeroed(row_bytes).map_err(PackError::Alloc)?;
            let row = |row: Option<usize>| match row {
                Some(row) => &data[row * row_bytes..(row + 1) * row_bytes],
                None => &zeros,
            };
            tiles.fill(pool, |_, rows, packed| {
                pack_tile(dtype, rows.map(row), packed);
            })
        }
        (Source::Affine { affine, .. }, Layout::Affine { bits, group }) => {
            tiles.fill(pool, |_, rows, packed| {
                with_affine!((bits, group), F => affine_tile::<F>(&affine, cols, rows, packed));
            })
        }
        (source, Layout::Plain(dtype)) => convert(pool, source, cols, dtype, &mut tiles),
        (Source::Plain { dtype, .. }, Layout::Affine { .. }) => Err(PackError::NotATarget(dtype)),
    }
}

/// The tiles of a matrix, which threads fill each its own.
struct Tiles<'a> {
    rows: usize,
    /// Of one tile.
    bytes: usize,
    packed: SharedMut<'a, u8>,
    progress: &'a mut dyn FnMut(usize) -> ControlFlow<()>,
}

impl Tiles<'_> {
    /// Calls `fill(thread, rows, bytes)` for every tile; the last may lack rows.
    fn fill(
        &mut self,
        pool: &mut Pool,
        fill: impl Fn(usize, [Option<usize>; TILE_ROWS], &mut [u8]) + Sync,
    ) -> Result<(), PackError> {
        let &mut Self {
            rows,
            bytes,
            ref packed,
            ref mut progress,
        } = self;
        let tiles = rows.div_ceil(TILE_ROWS);
        let stride = (STRIDE_BYTES / bytes).max(pool.threads());
        for first in (0..tiles).step_by(stride) {
            let here = stride.min(tiles - first);
            pool.run(here, 1, |thread, range| {
                for tile in first + range.start..first + range.end {
                    let row = |i| Some(tile * TILE_ROWS + i).filter(|row| *row < rows);
                    // SAFETY: each tile belongs to exactly one range, so no other thread touches
                    // these bytes.
                    let packed = unsafe { packed.slice(tile * bytes..(tile + 1) * bytes) };
                    fill(thread, std::array::from_fn(row), packed);
                }
            });
            if progress(rows.min((first + here) * TILE_ROWS)).is_break() {
                return Err(PackError::Stopped);
            }
        }
        Ok(())
    }
}

/// Packs eight rows as a file has them.
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

fn affine_tile<F: Format>(
    affine: &Affine<'_>,
    cols: usize,
    rows: [Option<usize>; TILE_ROWS],
    packed: &mut [u8],
) {
    /// Bytes of the largest group.
    const SPACE: usize = 136;
    const { assert!(F::SOURCE_BYTES <= SPACE) };
    let mut space = [[0; SPACE]; TILE_ROWS];
    for (index, packed) in packed.chunks_exact_mut(F::PACKED_BYTES).enumerate() {
        for (row, out) in rows.iter().zip(&mut space) {
            if let Some(row) = *row {
                Groups::new(affine, cols, row).write(index, &mut out[..F::SOURCE_BYTES]);
            }
        }
        F::pack(
            space.each_ref().map(|group| &group[..F::SOURCE_BYTES]),
            packed,
        );
    }
}

/// Packs rows as `dtype` by way of their floats. A thread holds one row of floats and eight of
/// `dtype`.
fn convert(
    pool: &mut Pool,
    source: Source<'_>,
    cols: usize,
    dtype: DType,
    tiles: &mut Tiles<'_>,
) -> Result<(), PackError> {
    let row_bytes = dtype.bytes_for(cols).unwrap_or(0);
    let threads = pool.threads();
    let mut floats = AlignedVec::zeroed(threads.saturating_mul(cols)).map_err(PackError::Alloc)?;
    let encoded_len = (threads * TILE_ROWS).saturating_mul(row_bytes);
    let mut encoded = AlignedVec::zeroed(encoded_len).map_err(PackError::Alloc)?;
    let floats = SharedMut::new(&mut floats);
    let encoded = SharedMut::new(&mut encoded);
    let of = |thread: usize, len: usize| -> Range<usize> { thread * len..(thread + 1) * len };
    let first_error = Mutex::new(None);
    let filled = tiles.fill(pool, |thread, rows, packed| {
        // SAFETY: no two calls with the same thread number run at the same time.
        let (floats, encoded) = unsafe {
            (
                floats.slice(of(thread, cols)),
                encoded.slice(of(thread, TILE_ROWS * row_bytes)),
            )
        };
        for (row, out) in rows.iter().zip(encoded.chunks_exact_mut(row_bytes)) {
            let Some(row) = *row else {
                out.fill(0);
                continue;
            };
            source.floats(row, floats);
            if let Err(error) = encode(dtype, floats, out) {
                let mut first = first_error.lock().unwrap_or_else(PoisonError::into_inner);
                if first.is_none_or(|(other, _)| row < other) {
                    *first = Some((row, error));
                }
            }
        }
        let row = |i: usize| &encoded[i * row_bytes..(i + 1) * row_bytes];
        pack_tile(dtype, std::array::from_fn(row), packed);
    });
    match first_error
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
    {
        Some((row, error)) => Err(PackError::Encode { row, error }),
        None => filled,
    }
}

fn encode(dtype: DType, row: &[f32], out: &mut [u8]) -> Result<(), EncodeError> {
    if dtype != DType::F32 {
        return quantize_row(dtype, row, out);
    }
    for (x, out) in row.iter().zip(out.chunks_exact_mut(4)) {
        out.copy_from_slice(&x.to_le_bytes());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
