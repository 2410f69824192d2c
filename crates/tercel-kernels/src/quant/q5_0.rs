//! Q5_0: 32 codes of 5 bits, one half-float scale, `w = d * (q - 16)`.

use super::nibbles::{NIBBLE_PLANE, high, low, pack_high, pack_low, word};
use super::q4_0::source_codes;
use super::{Format, PART, Part, Scale, half_at, pack_halves};
use crate::TILE_ROWS;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Q5_0;

impl Q5_0 {
    /// Packed block: the nibbles, then the fifth bits, then eight scales.
    pub(crate) const HIGH: usize = NIBBLE_PLANE;
    pub(crate) const SCALES: usize = Self::HIGH + 32;
    /// Code of the weight 0.
    pub(crate) const ZERO: i32 = 16;
}

impl Format for Q5_0 {
    const BLOCK_LEN: usize = PART;
    const SOURCE_BYTES: usize = 22;
    const PACKED_BYTES: usize = Self::SCALES + 2 * TILE_ROWS;

    fn pack(rows: [&[u8]; TILE_ROWS], packed: &mut [u8]) {
        pack_low(&mut packed[..Self::HIGH], |row, group| {
            source_codes(&rows[row][6..], group)
        });
        pack_high(&mut packed[Self::HIGH..Self::SCALES], 1, |row, group| {
            fifth_bits(rows[row], group)
        });
        pack_halves(rows, 0, &mut packed[Self::SCALES..]);
    }

    fn part(packed: &[u8], row: usize, _part: usize) -> Part {
        let code = |k| {
            let code = low(packed, row, k) | high(&packed[Self::HIGH..], 1, row, k) << 4;
            (i32::from(code) - Self::ZERO) as i8
        };
        Part {
            codes: std::array::from_fn(code),
            scale: Scale::One(half_at(packed, Self::SCALES + 2 * row)),
            min: None,
        }
    }
}

/// The fifth bits of a group, one to a byte; a file's block has bit `k` in bit `k` of a word.
fn fifth_bits(block: &[u8], group: usize) -> u32 {
    let bits = word(block, 2) >> (4 * group) & 15;
    // Four copies, 7 bits apart: bit i of one of them lands on bit 8 * i.
    (bits * 0x0020_4081) & 0x0101_0101
}
