//! Q6_K: 256 codes of 6 bits, a signed 8-bit scale for each 16, a half-float `d` per block;
//! `w = (d * s) * (q - 32)`.

use super::nibbles::{NIBBLE_PLANE, high, low, pack_high, pack_low, word};
use super::{Format, PART, Part, Scale, half_at, pack_halves};
use crate::TILE_ROWS;

/// See the module.
#[derive(Clone, Copy, Debug)]
#[expect(non_camel_case_types, reason = "the name of the format")]
pub struct Q6_K;

impl Q6_K {
    /// Packed block: eight `d`, then eight parts.
    pub(crate) const PARTS: usize = 2 * TILE_ROWS;
    /// Packed part: the low nibbles, the two high bits, then eight scales of the first 16
    /// elements, then eight of the last 16.
    pub(crate) const HIGH: usize = NIBBLE_PLANE;
    pub(crate) const SCALES: usize = Self::HIGH + 64;
    pub(crate) const PART_BYTES: usize = Self::SCALES + 2 * TILE_ROWS;
    /// Code of the weight 0.
    pub(crate) const ZERO: i32 = 32;
}

/// Offsets in a file's block: low nibbles, high bits, scales, `d`.
const SOURCE_HIGH: usize = 128;
const SOURCE_SCALES: usize = 192;
const SOURCE_D: usize = 208;

impl Format for Q6_K {
    const BLOCK_LEN: usize = 256;
    const SOURCE_BYTES: usize = 210;
    const PACKED_BYTES: usize = Self::PARTS + 8 * Self::PART_BYTES;

    fn pack(rows: [&[u8]; TILE_ROWS], packed: &mut [u8]) {
        let (head, parts) = packed.split_at_mut(Self::PARTS);
        pack_halves(rows, SOURCE_D, head);
        for (part, out) in parts.chunks_exact_mut(Self::PART_BYTES).enumerate() {
            let first = part * PART;
            pack_low(&mut out[..Self::HIGH], |row, group| {
                source_low(rows[row], first + 4 * group)
            });
            pack_high(&mut out[Self::HIGH..Self::SCALES], 2, |row, group| {
                source_high(rows[row], first + 4 * group)
            });
            for (row, source) in rows.iter().enumerate() {
                out[Self::SCALES + row] = source[SOURCE_SCALES + 2 * part];
                out[Self::SCALES + TILE_ROWS + row] = source[SOURCE_SCALES + 2 * part + 1];
            }
        }
    }

    fn part(packed: &[u8], row: usize, part: usize) -> Part {
        let d = half_at(packed, 2 * row);
        let bytes = &packed[Self::PARTS + part * Self::PART_BYTES..][..Self::PART_BYTES];
        let scale = |half: usize| d * f32::from(bytes[Self::SCALES + half * TILE_ROWS + row] as i8);
        let code = |k| {
            let code = low(bytes, row, k) | high(&bytes[Self::HIGH..], 2, row, k) << 4;
            (i32::from(code) - Self::ZERO) as i8
        };
        Part {
            codes: std::array::from_fn(code),
            scale: Scale::Halves(scale(0), scale(1)),
            min: None,
        }
    }
}

/// Low bits of the group at element `i`: each 128 elements hold their first 64 in low halves.
fn source_low(block: &[u8], i: usize) -> u32 {
    let (half, j) = (i / 128, i % 128);
    word(block, half * 64 + j % 64) >> (4 * (j / 64))
}

/// High bits of the group at element `i`: each 128 elements lie in 32 bytes, 32 to a bit pair.
fn source_high(block: &[u8], i: usize) -> u32 {
    let (half, j) = (i / 128, i % 128);
    word(block, SOURCE_HIGH + half * 32 + j % 32) >> (2 * (j / 32))
}
