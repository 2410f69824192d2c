//! Planes of code bits in packed blocks. Functions that pack see the four codes of a group as the
//! four bytes of a word, first code lowest, and move them together.

use crate::TILE_ROWS;

/// Bytes of the low four bits of 32 codes of eight rows.
pub(crate) const NIBBLE_PLANE: usize = TILE_ROWS * 32 / 2;

/// Position of code `k` of `row` inside its group.
pub(super) fn lane(row: usize, k: usize) -> usize {
    row * 4 + k % 4
}

/// The four bytes at `at` as a word.
pub(super) fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Stores the low four bits of `codes(row, group)` for eight groups of eight rows.
///
/// Byte `i` of the pair of groups `2p` and `2p + 1` holds lane `i` of the first in its low half
/// and lane `i` of the second in its high half.
pub(super) fn pack_low(plane: &mut [u8], codes: impl Fn(usize, usize) -> u32) {
    const LOW: u32 = 0x0f0f_0f0f;
    for (pair, out) in plane.chunks_exact_mut(4 * TILE_ROWS).enumerate() {
        for (row, out) in out.chunks_exact_mut(4).enumerate() {
            let both = codes(row, 2 * pair) & LOW | (codes(row, 2 * pair + 1) & LOW) << 4;
            out.copy_from_slice(&both.to_le_bytes());
        }
    }
}

/// The low four bits of code `k` of `row`.
pub(super) fn low(plane: &[u8], row: usize, k: usize) -> u8 {
    let group = k / 4;
    plane[group / 2 * 32 + lane(row, k)] >> (4 * (group % 2)) & 15
}

/// Stores the lowest `width` bits of `bits(row, group)`: byte `i` of each 32 of the plane holds
/// lane `i` of `8 / width` consecutive groups, the first in the lowest bits.
pub(super) fn pack_high(plane: &mut [u8], width: usize, bits: impl Fn(usize, usize) -> u32) {
    let groups = 8 / width;
    let mask = ((1 << width) - 1) * 0x0101_0101;
    for (first, out) in plane.chunks_exact_mut(4 * TILE_ROWS).enumerate() {
        for (row, out) in out.chunks_exact_mut(4).enumerate() {
            let group = |i: usize| (bits(row, first * groups + i) & mask) << (width * i);
            out.copy_from_slice(&(0..groups).fold(0, |all, i| all | group(i)).to_le_bytes());
        }
    }
}

/// The high bits of code `k` of `row`, as stored by [`pack_high`].
pub(super) fn high(plane: &[u8], width: usize, row: usize, k: usize) -> u8 {
    let group = k / 4;
    let groups = 8 / width;
    plane[group / groups * 32 + lane(row, k)] >> (width * (group % groups)) & ((1 << width) - 1)
}
