//! Inputs: the same numbers on every machine.

use tercel_formats::{DType, Storage};
use tercel_kernels::quant::quantize_row;
use tercel_kernels::{PackedMatrix, Pool, Target};

use crate::Problem;

/// A fixed sequence of floats for each seed, in -1..1.
pub(crate) fn random(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// The bytes of a matrix whose rows are all the same. No kernel looks at what it multiplies, and to
/// quantize one row takes less time than to quantize all.
pub(crate) fn matrix(dtype: DType, rows: usize, cols: usize) -> Result<Vec<u8>, Problem> {
    let bytes = dtype.bytes_for(cols).ok_or("no whole number of blocks")?;
    let mut row = vec![0; bytes];
    quantize_row(dtype, &random(1, cols), &mut row)?;
    Ok(row.repeat(rows))
}

/// [`matrix`], packed.
pub(crate) fn packed(
    pool: &mut Pool,
    dtype: DType,
    (rows, cols): (usize, usize),
) -> Result<PackedMatrix, Problem> {
    let data = &matrix(dtype, rows, cols)?;
    let storage = Storage::Plain { dtype, data };
    let target = Target::AsStored;
    Ok(PackedMatrix::pack(pool, &storage, rows, cols, target)?)
}
