//! Block formats of quantized weights: how eight rows of a block are packed, and what the packed
//! bytes mean. This is the scalar truth that every kernel is tested against.
//!
//! A packed block holds the same block of [`TILE_ROWS`] rows. Codes of four consecutive `k` of
//! each row lie together (a *group*: 8 rows x 4 codes = 32 codes, row by row), so that a kernel
//! can multiply a group by four broadcast activations.

pub(crate) mod affine;
mod encode;
mod nibbles;
mod q4_0;
mod q4_1;
mod q4_k;
mod q5_0;
mod q6_k;
mod q8_0;

use half::f16;

pub use affine::AffineGroup;
pub use encode::{EncodeError, QUANTIZABLE, fallback, quantize_row};
pub(crate) use nibbles::NIBBLE_PLANE;
pub use q4_0::Q4_0;
pub use q4_1::Q4_1;
pub use q4_k::Q4_K;
pub use q5_0::Q5_0;
pub use q6_k::Q6_K;
pub use q8_0::Q8_0;

use crate::TILE_ROWS;

/// Elements of `k` that share one activation scale; every format's block is a multiple.
pub const PART: usize = 32;

/// A quantized format in its packed form.
pub trait Format {
    /// Elements of `k` in one block.
    const BLOCK_LEN: usize;
    /// Bytes of one block of one row as [`pack`](Self::pack) takes it: as in a GGUF file, where it
    /// can be in one.
    const SOURCE_BYTES: usize;
    /// Bytes of one packed block of eight rows.
    const PACKED_BYTES: usize;

    /// Packs the same block of eight rows. Each source slice has `SOURCE_BYTES`, `packed` has
    /// `PACKED_BYTES`.
    fn pack(rows: [&[u8]; TILE_ROWS], packed: &mut [u8]);

    /// The meaning of elements `32 * part ..` of row `row` in a packed block.
    fn part(packed: &[u8], row: usize, part: usize) -> Part;

    /// The same elements as floats, rounded as those who defined the format round.
    fn weights(packed: &[u8], row: usize, part: usize) -> [f32; PART] {
        Self::part(packed, row, part).weights()
    }
}

/// Thirty-two weights of one row: `w[i] = scale * codes[i] + min`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Part {
    /// Integer codes, zero points already taken off.
    pub codes: [i8; PART],
    /// One scale for all 32, or one for each 16.
    pub scale: Scale,
    /// Added to every weight; `None` for symmetric formats.
    pub min: Option<f32>,
}

/// Scales of a [`Part`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scale {
    /// All 32 elements share it.
    One(f32),
    /// The first 16 elements, the last 16.
    Halves(f32, f32),
}

impl Part {
    /// The weights as floats, rounded after the product and after the sum as GGUF defines them.
    pub fn weights(&self) -> [f32; PART] {
        std::array::from_fn(|i| {
            let scale = match self.scale {
                Scale::One(scale) => scale,
                Scale::Halves(low, high) => {
                    if i < PART / 2 {
                        low
                    } else {
                        high
                    }
                }
            };
            let weight = scale * f32::from(self.codes[i]);
            // Without a minimum nothing is added: a zero keeps its sign.
            self.min.map_or(weight, |min| weight + min)
        })
    }
}

/// The half float at byte `at`.
fn half_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// Copies the two bytes at `from` of each row to consecutive places.
fn pack_halves(rows: [&[u8]; TILE_ROWS], from: usize, packed: &mut [u8]) {
    for (row, out) in rows.iter().zip(packed.chunks_exact_mut(2)) {
        out.copy_from_slice(&row[from..from + 2]);
    }
}

#[cfg(test)]
mod tests;
