//! Q8_0: 32 codes of 8 bits, one half-float scale, `w = d * q`.

use super::nibbles::lane;
use super::{Format, PART, Part, Scale, half_at, pack_halves};
use crate::TILE_ROWS;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Q8_0;

impl Q8_0 {
    /// Packed block: the codes group by group, then eight scales.
    pub(crate) const SCALES: usize = TILE_ROWS * PART;
}

impl Format for Q8_0 {
    const BLOCK_LEN: usize = PART;
    const SOURCE_BYTES: usize = 34;
    const PACKED_BYTES: usize = Self::SCALES + 2 * TILE_ROWS;

    fn pack(rows: [&[u8]; TILE_ROWS], packed: &mut [u8]) {
        for (row, source) in rows.iter().enumerate() {
            for (group, codes) in source[2..].chunks_exact(4).enumerate() {
                packed[group * 32 + lane(row, 0)..][..4].copy_from_slice(codes);
            }
        }
        pack_halves(rows, 0, &mut packed[Self::SCALES..]);
    }

    fn part(packed: &[u8], row: usize, _part: usize) -> Part {
        Part {
            codes: std::array::from_fn(|k| packed[k / 4 * 32 + lane(row, k)] as i8),
            scale: Scale::One(half_at(packed, Self::SCALES + 2 * row)),
            min: None,
        }
    }
}
