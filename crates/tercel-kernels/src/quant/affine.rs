//! Affine groups, as MLX quantizes: codes of 2 to 8 bits without a sign, a scale and a bias for
//! each group, `w = scale * code + bias`.
//!
//! Scales and biases are kept as they were stored, as F32, and the weights are computed in F32.
//! MLX computes in the type of the scales, so a weight of a model with 16-bit scales can differ
//! from its own by one unit in the last place of that type; with F32 scales they are the same.

use tercel_formats::Affine;

use super::nibbles::{NIBBLE_PLANE, high, lane, low, pack_high, pack_low, word};
use super::{Format, PART, Part, Scale};
use crate::TILE_ROWS;
use crate::packed::float_at;

/// A packed group of `GROUP` elements with codes of `WIDTH` bits: 4 (codes of 2 and 3 bits too),
/// 5, 6 or 8.
#[derive(Clone, Copy, Debug)]
pub struct AffineGroup<const WIDTH: u32, const GROUP: usize>;

impl<const WIDTH: u32, const GROUP: usize> AffineGroup<WIDTH, GROUP> {
    /// Packed part: the low nibbles and then the rest of the bits, or whole bytes. A byte is kept
    /// with its top bit turned over, so that it is the code less 128 as a signed number.
    pub(crate) const HIGH: usize = NIBBLE_PLANE;
    pub(crate) const PART_BYTES: usize = TILE_ROWS * PART * WIDTH as usize / 8;
    /// Packed block: the parts, then eight scales, then eight biases.
    pub(crate) const SCALES: usize = GROUP / PART * Self::PART_BYTES;
    pub(crate) const BIASES: usize = Self::SCALES + 4 * TILE_ROWS;
    /// What the codes of a [`Part`] lack, because they have a sign.
    pub(crate) const OFFSET: f32 = if WIDTH == 8 { 128.0 } else { 0.0 };

    fn scale_and_bias(packed: &[u8], row: usize) -> (f32, f32) {
        (
            f32::from_bits(word(packed, Self::SCALES + 4 * row)),
            f32::from_bits(word(packed, Self::BIASES + 4 * row)),
        )
    }

    /// The code of element `k` of a part, less [`OFFSET`](Self::OFFSET).
    fn code(part: &[u8], row: usize, k: usize) -> i8 {
        let planes = |width| low(part, row, k) | high(&part[Self::HIGH..], width, row, k) << 4;
        let code = match WIDTH {
            5 => planes(1),
            6 => planes(2),
            8 => part[k / 4 * 32 + lane(row, k)],
            _ => low(part, row, k),
        };
        code as i8
    }
}

impl<const WIDTH: u32, const GROUP: usize> Format for AffineGroup<WIDTH, GROUP> {
    const BLOCK_LEN: usize = GROUP;
    /// Codes one to a byte, the scale and the bias as F32: see [`Groups`].
    const SOURCE_BYTES: usize = GROUP + 8;
    const PACKED_BYTES: usize = Self::BIASES + 4 * TILE_ROWS;

    fn pack(rows: [&[u8]; TILE_ROWS], packed: &mut [u8]) {
        let (parts, scales) = packed.split_at_mut(Self::SCALES);
        for (part, out) in parts.chunks_exact_mut(Self::PART_BYTES).enumerate() {
            let codes = |row: usize, group: usize| word(rows[row], part * PART + 4 * group);
            if WIDTH == 8 {
                for (i, out) in out.chunks_exact_mut(4).enumerate() {
                    let flipped = codes(i % TILE_ROWS, i / TILE_ROWS) ^ 0x8080_8080;
                    out.copy_from_slice(&flipped.to_le_bytes());
                }
                continue;
            }
            let (nibbles, rest) = out.split_at_mut(Self::HIGH);
            pack_low(nibbles, codes);
            if WIDTH > 4 {
                pack_high(rest, WIDTH as usize - 4, |row, group| {
                    codes(row, group) >> 4
                });
            }
        }
        let (scales, biases) = scales.split_at_mut(4 * TILE_ROWS);
        for (row, source) in rows.iter().enumerate() {
            scales[4 * row..4 * row + 4].copy_from_slice(&source[GROUP..GROUP + 4]);
            biases[4 * row..4 * row + 4].copy_from_slice(&source[GROUP + 4..]);
        }
    }

    /// Codes of eight bits are moved into an `i8`; what that takes from them is in the minimum,
    /// which is then rounded once more than [`weights`](Format::weights) is.
    fn part(packed: &[u8], row: usize, part: usize) -> Part {
        let (scale, bias) = Self::scale_and_bias(packed, row);
        let bytes = &packed[part * Self::PART_BYTES..][..Self::PART_BYTES];
        Part {
            codes: std::array::from_fn(|k| Self::code(bytes, row, k)),
            scale: Scale::One(scale),
            min: Some(Self::OFFSET * scale + bias),
        }
    }

    fn weights(packed: &[u8], row: usize, part: usize) -> [f32; PART] {
        let (scale, bias) = Self::scale_and_bias(packed, row);
        let codes = Self::part(packed, row, part).codes;
        codes.map(|code| scale * (f32::from(code) + Self::OFFSET) + bias)
    }
}

/// Groups of a row, as [`Format::pack`] of [`AffineGroup`] takes them.
#[derive(Clone, Copy)]
pub(crate) struct Groups<'a> {
    affine: &'a Affine<'a>,
    /// Index of the row's first group.
    first: usize,
}

impl<'a> Groups<'a> {
    pub(crate) fn new(affine: &'a Affine<'a>, cols: usize, row: usize) -> Self {
        let first = row * (cols / affine.group);
        Self { affine, first }
    }

    /// Writes group `index` of the row: codes one to a byte, scale, bias.
    pub(crate) fn write(&self, index: usize, out: &mut [u8]) {
        let (codes, numbers) = out.split_at_mut(self.affine.group);
        self.codes(index, codes);
        let (scale, bias) = self.scale_and_bias(index);
        numbers[..4].copy_from_slice(&scale.to_le_bytes());
        numbers[4..].copy_from_slice(&bias.to_le_bytes());
    }

    /// Writes the codes of group `index`, one to a byte.
    fn codes(&self, index: usize, out: &mut [u8]) {
        let bits = self.affine.bits;
        // Eight codes are a whole number of bytes in every width.
        let width = bits as usize;
        let bytes = self.affine.group / 8 * width;
        let source = &self.affine.codes[(self.first + index) * bytes..][..bytes];
        let mask = (1u64 << bits) - 1;
        for (source, out) in source.chunks_exact(width).zip(out.chunks_exact_mut(8)) {
            let mut eight = [0; 8];
            eight[..width].copy_from_slice(source);
            let eight = u64::from_le_bytes(eight);
            for (i, out) in (0..).zip(out) {
                *out = (eight >> (i * bits) & mask) as u8;
            }
        }
    }

    fn scale_and_bias(&self, index: usize) -> (f32, f32) {
        let Affine {
            scales,
            biases,
            scale_type,
            ..
        } = *self.affine;
        let bytes = scale_type.block_bytes();
        let at = (self.first + index) * bytes;
        (
            float_at(scale_type, &scales[at..at + bytes]),
            float_at(scale_type, &biases[at..at + bytes]),
        )
    }
}

/// Writes row `row` of a matrix whose sizes were checked.
pub(crate) fn dequantize_row(affine: &Affine<'_>, cols: usize, row: usize, out: &mut [f32]) {
    let groups = Groups::new(affine, cols, row);
    let mut codes = [0; 128];
    let codes = &mut codes[..affine.group];
    for (index, out) in out.chunks_exact_mut(affine.group).enumerate() {
        groups.codes(index, codes);
        let (scale, bias) = groups.scale_and_bias(index);
        for (code, out) in codes.iter().zip(out) {
            *out = scale * f32::from(*code) + bias;
        }
    }
}

#[cfg(test)]
mod tests;
