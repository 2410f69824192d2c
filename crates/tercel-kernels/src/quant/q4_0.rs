//! Q4_0: 32 codes of 4 bits, one half-float scale, `w = d * (q - 8)`.

use super::nibbles::{NIBBLE_PLANE, low, pack_low, word};
use super::{Format, PART, Part, Scale, half_at, pack_halves};
use crate::TILE_ROWS;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Q4_0;

impl Q4_0 {
    /// Packed block: the nibbles, then eight scales.
    pub(crate) const SCALES: usize = NIBBLE_PLANE;
    /// Code of the weight 0.
    pub(crate) const ZERO: i32 = 8;
}

impl Format for Q4_0 {
    const BLOCK_LEN: usize = PART;
    const SOURCE_BYTES: usize = 18;
    const PACKED_BYTES: usize = NIBBLE_PLANE + 2 * TILE_ROWS;

    fn pack(rows: [&[u8]; TILE_ROWS], packed: &mut [u8]) {
        let (plane, scales) = packed.split_at_mut(Self::SCALES);
        pack_low(plane, |row, group| source_codes(&rows[row][2..], group));
        pack_halves(rows, 0, scales);
    }

    fn part(packed: &[u8], row: usize, _part: usize) -> Part {
        Part {
            codes: std::array::from_fn(|k| (i32::from(low(packed, row, k)) - Self::ZERO) as i8),
            scale: Scale::One(half_at(packed, Self::SCALES + 2 * row)),
            min: None,
        }
    }
}

/// The low bits of a group in the 16 bytes of a file's block: low halves are the first 16 codes.
pub(super) fn source_codes(nibbles: &[u8], group: usize) -> u32 {
    word(nibbles, 4 * (group % 4)) >> (4 * (group / 4))
}
