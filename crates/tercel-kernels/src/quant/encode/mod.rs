//! Floats to the blocks of a GGUF file.
//!
//! A row is encoded by itself, with nothing random, so the same numbers give the same bytes on
//! any machine and with any number of threads.

mod blocks;
mod k_blocks;
mod search;
#[cfg(test)]
mod tests;

use std::fmt;

use half::f16;
use tercel_formats::DType;

/// The types that rows of floats can be written in.
pub const QUANTIZABLE: [DType; 9] = [
    DType::F16,
    DType::Q8_0,
    DType::Q4_0,
    DType::Q4_1,
    DType::Q5_0,
    DType::Q5_1,
    DType::Q4_K,
    DType::Q5_K,
    DType::Q6_K,
];

/// Why a row cannot be written in a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncodeError {
    /// Nothing here writes this type.
    NotATarget(DType),
    /// The row is no whole number of blocks, or the output has not the bytes of the row.
    Size {
        /// What was to be written.
        dtype: DType,
        /// Numbers in the row.
        numbers: usize,
        /// Bytes of the output.
        bytes: usize,
    },
    /// NaN or infinite.
    NotFinite {
        /// Index of the number in the row.
        at: usize,
    },
    /// A scale that does not fit a half float.
    TooLarge {
        /// What was to be written.
        dtype: DType,
        /// Index of the first number of the block.
        at: usize,
    },
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotATarget(dtype) => write!(
                f,
                "cannot quantize to {dtype} (can: {})",
                QUANTIZABLE.map(DType::name).join(", ")
            ),
            Self::Size {
                dtype,
                numbers,
                bytes,
            } => write!(f, "{numbers} numbers as {dtype} do not make {bytes} bytes"),
            Self::NotFinite { at } => write!(
                f,
                "number {at} is NaN or infinite, so the checkpoint is damaged: get it again, or \
                 load it without quantization to see where it leads"
            ),
            Self::TooLarge { dtype, at } => write!(
                f,
                "numbers from {at} on are too large for {dtype}, whose scales are half floats: \
                 load without quantization"
            ),
        }
    }
}

impl std::error::Error for EncodeError {}

/// The type that rows of `cols` numbers get where `dtype` was asked for.
///
/// It is `dtype` itself where its block divides a row. Otherwise, as llama.cpp does it, Q5_0 stands
/// in for Q4_K, Q5_1 for Q5_K and Q8_0 for Q6_K, and F16 for every type whose block of 32 does not
/// divide a row either.
pub fn fallback(dtype: DType, cols: usize) -> DType {
    if cols.is_multiple_of(dtype.block_len()) {
        return dtype;
    }
    match dtype {
        DType::Q4_K => fallback(DType::Q5_0, cols),
        DType::Q5_K => fallback(DType::Q5_1, cols),
        DType::Q6_K => fallback(DType::Q8_0, cols),
        _ => DType::F16,
    }
}

/// Writes a row as blocks of `dtype`, one of [`QUANTIZABLE`].
///
/// The formats with blocks of 32 get the bytes that the `gguf` Python package writes. Those with
/// blocks of 256 are searched for the scales with the least weighted squared error.
///
/// # Errors
/// [`EncodeError`]; `out` is then partly written.
pub fn quantize_row(dtype: DType, row: &[f32], out: &mut [u8]) -> Result<(), EncodeError> {
    if !QUANTIZABLE.contains(&dtype) {
        return Err(EncodeError::NotATarget(dtype));
    }
    if dtype.bytes_for(row.len()) != Some(out.len()) {
        return Err(EncodeError::Size {
            dtype,
            numbers: row.len(),
            bytes: out.len(),
        });
    }
    let encode = match dtype {
        DType::Q8_0 => blocks::q8_0,
        DType::Q4_0 => blocks::q4_0,
        DType::Q4_1 => blocks::q4_1,
        DType::Q5_0 => blocks::q5_0,
        DType::Q5_1 => blocks::q5_1,
        DType::Q4_K => k_blocks::q4_k,
        DType::Q5_K => k_blocks::q5_k,
        DType::Q6_K => k_blocks::q6_k,
        _ => blocks::f16,
    };
    let pairs = row
        .chunks_exact(dtype.block_len())
        .zip(out.chunks_exact_mut(dtype.block_bytes()));
    for (i, (block, out)) in pairs.enumerate() {
        let first = i * dtype.block_len();
        if let Some(at) = block.iter().position(|x| !x.is_finite()) {
            return Err(EncodeError::NotFinite { at: first + at });
        }
        encode(block, out).map_err(|TooLarge| EncodeError::TooLarge { dtype, at: first })?;
    }
    Ok(())
}

/// A scale of the block does not fit a half float.
struct TooLarge;

/// The half float next to a number.
fn half(x: f32) -> Result<f16, TooLarge> {
    let half = f16::from_f32(x);
    if half.is_finite() {
        Ok(half)
    } else {
        Err(TooLarge)
    }
}

/// Writes a number as a half float.
fn put_half(x: f32, out: &mut [u8]) -> Result<(), TooLarge> {
    out[..2].copy_from_slice(&half(x)?.to_le_bytes());
    Ok(())
}
