//! Block formats of quantized weights: how eight rows of a block are packed, and what the packed
//! bytes mean. This is the scalar truth that every kernel is tested against.
//!
//! A packed block holds the same block of [`TILE_ROWS`] rows: first eight scales `d`, then eight
//! minimums `m` where the format has them, then its parts of 32 elements. A packed part is the
//! codes, then the factors of the scales and those of the minimums, eight bytes a step. Codes of
//! four consecutive `k` of each row lie together (a *group*: 8 rows x 4 codes = 32 codes, row by
//! row), so that a kernel can multiply a group by four broadcast activations.
//!
//! So a format is a row of constants and the reading of its blocks; kernels are written once for
//! each kind of [`Codes`].

pub(crate) mod affine;
mod codes;
mod encode;
mod iq4_nl;
mod iq4_xs;
mod mxfp4;
mod q2_k;
mod q3_k;
mod q4_0;
mod q4_1;
mod q4_k;
mod q5_0;
mod q5_1;
mod q5_k;
mod q6_k;
mod q8_0;
mod tq1_0;
mod tq2_0;

use std::marker::PhantomData;

use tercel_formats::DType;

pub use affine::AffineGroup;
pub(crate) use codes::GROUPS;
pub use codes::{Bits, Bytes, Codes, Lookup, Signed, Values};
pub use encode::{EncodeError, QUANTIZABLE, fallback, quantize_row};
pub use formats::*;

/// The formats, by the names of their tensor types.
pub mod formats {
    pub use super::iq4_nl::IQ4_NL;
    pub use super::iq4_xs::IQ4_XS;
    pub use super::mxfp4::MXFP4;
    pub use super::q2_k::Q2_K;
    pub use super::q3_k::Q3_K;
    pub use super::q4_0::Q4_0;
    pub use super::q4_1::Q4_1;
    pub use super::q4_k::Q4_K;
    pub use super::q5_0::Q5_0;
    pub use super::q5_1::Q5_1;
    pub use super::q5_k::Q5_K;
    pub use super::q6_k::Q6_K;
    pub use super::q8_0::Q8_0;
    pub use super::tq1_0::TQ1_0;
    pub use super::tq2_0::TQ2_0;
}

use crate::TILE_ROWS;
use crate::packed::float_at;

/// Elements of `k` that share one activation scale; every format's block is a multiple.
pub const PART: usize = 32;

/// A quantized format in its packed form.
pub trait Format: Sized {
    /// How the codes are stored.
    type Codes: Codes;
    /// Elements of `k` in one block.
    const BLOCK_LEN: usize;
    /// Bytes of one block of one row as [`pack_row`](Self::pack_row) takes it: as in a GGUF file,
    /// where it can be in one.
    const SOURCE_BYTES: usize;
    /// What shares a scale.
    const SCALES: Grain;
    /// What shares a minimum; `None` for formats without.
    const MINS: Option<Grain> = None;
    /// The float type of `d` and `m`: F16, BF16 or F32.
    const HEAD: DType = DType::F16;

    /// Packs one row of a block out of its `SOURCE_BYTES`.
    fn pack_row(source: &[u8], packed: &mut RowMut<'_, Self>);

    /// Parts of a block.
    const PARTS: usize = Self::BLOCK_LEN / PART;
    /// Bytes of eight `d` or `m`.
    const HEAD_BYTES: usize = TILE_ROWS * head_width(Self::HEAD);
    /// Offset of the first part in a packed block.
    const FIRST_PART: usize = Self::HEAD_BYTES * (1 + Self::MINS.is_some() as usize);
    /// Offsets of the factors in a packed part.
    const SCALE_BYTES: usize = Self::Codes::BYTES;
    /// See [`SCALE_BYTES`](Self::SCALE_BYTES).
    const MIN_BYTES: usize = Self::SCALE_BYTES + TILE_ROWS * Self::SCALES.factors();
    /// Bytes of one packed part.
    const PART_BYTES: usize = Self::MIN_BYTES
        + TILE_ROWS
            * match Self::MINS {
                Some(grain) => grain.factors(),
                None => 0,
            };
    /// Bytes of one packed block of eight rows.
    const PACKED_BYTES: usize = Self::FIRST_PART + Self::PARTS * Self::PART_BYTES;

    /// Packs the same block of eight rows. Each source slice has `SOURCE_BYTES`, `packed` has
    /// `PACKED_BYTES`.
    fn pack(rows: [&[u8]; TILE_ROWS], packed: &mut [u8]) {
        for (row, source) in rows.into_iter().enumerate() {
            let format = PhantomData;
            #[rustfmt::skip]
            Self::pack_row(source, &mut RowMut { packed, row, format });
        }
    }

    /// The meaning of elements `32 * part ..` of row `row` in a packed block.
    fn part(packed: &[u8], row: usize, part: usize) -> Part {
        let bytes = &packed[Self::FIRST_PART + part * Self::PART_BYTES..][..Self::PART_BYTES];
        let width = head_width(Self::HEAD);
        let head = |at: usize| float_at(Self::HEAD, &packed[at + width * row..][..width]);
        let (d, scales) = (head(0), &bytes[Self::SCALE_BYTES..]);
        Part {
            codes: std::array::from_fn(|k| Self::Codes::value(bytes, row, k)),
            scale: Self::SCALES.times(d, scales, row),
            min: Self::MINS
                .map(|grain| grain.times(head(Self::HEAD_BYTES), &bytes[Self::MIN_BYTES..], row)),
        }
    }
}

/// What shares a scale or a minimum of a format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grain {
    /// The block: the scale is `d`.
    Block,
    /// Each 32 elements: `d` times a signed byte.
    Part,
    /// Each 16 elements: `d` times a signed byte.
    Half,
}

impl Grain {
    /// Factors for each row of a part.
    const fn factors(self) -> usize {
        match self {
            Self::Block => 0,
            Self::Part => 1,
            Self::Half => 2,
        }
    }

    fn times(self, d: f32, factors: &[u8], row: usize) -> Scale {
        let times = |half: usize| d * f32::from(factors[half * TILE_ROWS + row] as i8);
        match self {
            Self::Block => Scale::One(d),
            Self::Part => Scale::One(times(0)),
            Self::Half => Scale::Halves(times(0), times(1)),
        }
    }
}

/// Thirty-two weights of one row: `w[i] = scale * codes[i] + min`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Part {
    /// Integer codes, zero points already taken off.
    pub codes: [i16; PART],
    /// What the codes are multiplied by.
    pub scale: Scale,
    /// Added to every weight; `None` for symmetric formats.
    pub min: Option<Scale>,
}

/// A number for the elements of a [`Part`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scale {
    /// All 32 elements share it.
    One(f32),
    /// The first 16 elements, the last 16.
    Halves(f32, f32),
}

impl Scale {
    /// The number of element `i`.
    pub fn at(self, i: usize) -> f32 {
        match self {
            Self::Halves(_, high) if i >= PART / 2 => high,
            Self::One(low) | Self::Halves(low, _) => low,
        }
    }
}

impl Part {
    /// The weights as floats, rounded after the product and after the sum as GGUF defines them.
    pub fn weights(&self) -> [f32; PART] {
        std::array::from_fn(|i| {
            let weight = self.scale.at(i) * f32::from(self.codes[i]);
            // Without a minimum nothing is added: a zero keeps its sign.
            self.min.map_or(weight, |min| weight + min.at(i))
        })
    }
}

/// One row of a packed block, to be filled.
#[derive(Debug)]
pub struct RowMut<'a, F> {
    packed: &'a mut [u8],
    row: usize,
    format: PhantomData<F>,
}

/// Bytes of a float type.
const fn head_width(dtype: DType) -> usize {
    match dtype {
        DType::F32 => 4,
        _ => 2,
    }
}

impl<F: Format> RowMut<'_, F> {
    /// Sets `d` to the float at the start of `source`, of type [`Format::HEAD`].
    pub fn set_scale(&mut self, source: &[u8]) {
        self.set_head(0, source);
    }

    /// Sets `m` to the float at the start of `source`, of type [`Format::HEAD`].
    pub fn set_min(&mut self, source: &[u8]) {
        self.set_head(F::HEAD_BYTES, source);
    }

    fn set_head(&mut self, at: usize, source: &[u8]) {
        let width = head_width(F::HEAD);
        self.packed[at + width * self.row..][..width].copy_from_slice(&source[..width]);
    }

    /// Sets `m` to the negative of the two bytes at the start of `source`: formats that take a
    /// minimum off.
    pub fn set_negative_min(&mut self, source: &[u8]) {
        self.set_min(&[source[0], source[1] ^ 0x80]);
    }

    /// Sets the codes of a part: of its eight groups, each the four bytes of a word.
    pub fn set_codes(&mut self, part: usize, group: impl FnMut(usize) -> u32) {
        let row = self.row;
        F::Codes::pack(self.part(part), row, std::array::from_fn(group));
    }

    /// Sets the factors of the scales of a part, one or two as [`Format::SCALES`] says.
    pub fn set_scale_factors<const N: usize>(&mut self, part: usize, factors: [u8; N]) {
        self.set_factors(part, F::SCALE_BYTES, factors);
    }

    /// Sets the factors of the minimums of a part, one or two as [`Format::MINS`] says.
    pub fn set_min_factors<const N: usize>(&mut self, part: usize, factors: [u8; N]) {
        self.set_factors(part, F::MIN_BYTES, factors);
    }

    fn set_factors<const N: usize>(&mut self, part: usize, at: usize, factors: [u8; N]) {
        let row = self.row;
        for (out, factor) in self.part(part)[at..]
            .chunks_exact_mut(TILE_ROWS)
            .zip(factors)
        {
            out[row] = factor;
        }
    }

    fn part(&mut self, part: usize) -> &mut [u8] {
        &mut self.packed[F::FIRST_PART + part * F::PART_BYTES..][..F::PART_BYTES]
    }
}

#[cfg(test)]
mod tests;
