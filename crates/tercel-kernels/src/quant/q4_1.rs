//! Q4_1: 32 codes of 4 bits, half-float scale and minimum, `w = d * q + m`.

use super::nibbles::{NIBBLE_PLANE, low, pack_low};
use super::q4_0::source_codes;
use super::{Format, PART, Part, Scale, half_at, pack_halves};
use crate::TILE_ROWS;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Q4_1;

impl Q4_1 {
    /// Packed block: the nibbles, then eight scales, then eight minimums.
    pub(crate) const SCALES: usize = NIBBLE_PLANE;
    pub(crate) const MINS: usize = Self::SCALES + 2 * TILE_ROWS;
}

impl Format for Q4_1 {
    const BLOCK_LEN: usize = PART;
    const SOURCE_BYTES: usize = 20;
    const PACKED_BYTES: usize = NIBBLE_PLANE + 4 * TILE_ROWS;

    fn pack(rows: [&[u8]; TILE_ROWS], packed: &mut [u8]) {
        pack_low(&mut packed[..Self::SCALES], |row, group| {
            source_codes(&rows[row][4..], group)
        });
        pack_halves(rows, 0, &mut packed[Self::SCALES..Self::MINS]);
        pack_halves(rows, 2, &mut packed[Self::MINS..]);
    }

    fn part(packed: &[u8], row: usize, _part: usize) -> Part {
        Part {
            codes: std::array::from_fn(|k| low(packed, row, k) as i8),
            scale: Scale::One(half_at(packed, Self::SCALES + 2 * row)),
            min: Some(half_at(packed, Self::MINS + 2 * row)),
        }
    }
}
