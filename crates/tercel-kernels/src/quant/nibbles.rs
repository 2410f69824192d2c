//! Planes of code bits in packed blocks.

use crate::TILE_ROWS;

/// Bytes of the low four bits of 32 codes of eight rows.
pub(super) const NIBBLE_PLANE: usize = TILE_ROWS * 32 / 2;

/// Position of code `k` of `row` inside its group.
pub(super) fn lane(row: usize, k: usize) -> usize {
    row * 4 + k % 4
}

/// Stores the low four bits of `code(row, k)` for 32 `k` of eight rows.
///
/// Byte `i` of the pair of groups `2p` and `2p + 1` holds lane `i` of the first in its low half
/// and lane `i` of the second in its high half.
pub(super) fn pack_low(plane: &mut [u8], code: impl Fn(usize, usize) -> u8) {
    plane.fill(0);
    for row in 0..TILE_ROWS {
        for k in 0..32 {
            let group = k / 4;
            plane[group / 2 * 32 + lane(row, k)] |= (code(row, k) & 15) << (4 * (group % 2));
        }
    }
}

/// The low four bits of code `k` of `row`.
pub(super) fn low(plane: &[u8], row: usize, k: usize) -> u8 {
    let group = k / 4;
    plane[group / 2 * 32 + lane(row, k)] >> (4 * (group % 2)) & 15
}

/// Stores `bits(row, k)`, `width` bits each, above the low four: byte `i` of the plane's 32-byte
/// rows holds lane `i` of `8 / width` consecutive groups, the first in the lowest bits.
pub(super) fn pack_high(plane: &mut [u8], width: usize, bits: impl Fn(usize, usize) -> u8) {
    plane.fill(0);
    let groups = 8 / width;
    for row in 0..TILE_ROWS {
        for k in 0..32 {
            let group = k / 4;
            plane[group / groups * 32 + lane(row, k)] |= bits(row, k) << (width * (group % groups));
        }
    }
}

/// The high bits of code `k` of `row`, as stored by [`pack_high`].
pub(super) fn high(plane: &[u8], width: usize, row: usize, k: usize) -> u8 {
    let group = k / 4;
    let groups = 8 / width;
    plane[group / groups * 32 + lane(row, k)] >> (width * (group % groups)) & ((1 << width) - 1)
}
