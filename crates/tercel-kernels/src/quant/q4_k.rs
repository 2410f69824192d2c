//! Q4_K: 256 codes of 4 bits in eight parts; `w = (d * s) * q - (dmin * m)` with 6-bit `s` and
//! `m` per part and half-float `d` and `dmin` per block.

use super::nibbles::{NIBBLE_PLANE, low, pack_low, word};
use super::{Format, PART, Part, Scale, half_at, pack_halves};
use crate::TILE_ROWS;

/// See the module.
#[derive(Clone, Copy, Debug)]
#[expect(non_camel_case_types, reason = "the name of the format")]
pub struct Q4_K;

impl Q4_K {
    /// Packed block: eight `d`, eight `dmin`, then eight parts.
    pub(crate) const MIN_SCALES: usize = 2 * TILE_ROWS;
    pub(crate) const PARTS: usize = 4 * TILE_ROWS;
    /// Packed part: the nibbles, then eight bytes `s`, then eight bytes `m`.
    pub(crate) const SCALES: usize = NIBBLE_PLANE;
    pub(crate) const MINS: usize = Self::SCALES + TILE_ROWS;
    pub(crate) const PART_BYTES: usize = Self::MINS + TILE_ROWS;
}

/// Offset of the 6-bit scales and of the codes in a file's block.
const SOURCE_SCALES: usize = 4;
const SOURCE_CODES: usize = 16;

impl Format for Q4_K {
    const BLOCK_LEN: usize = 256;
    const SOURCE_BYTES: usize = 144;
    const PACKED_BYTES: usize = Self::PARTS + 8 * Self::PART_BYTES;

    fn pack(rows: [&[u8]; TILE_ROWS], packed: &mut [u8]) {
        let (head, parts) = packed.split_at_mut(Self::PARTS);
        pack_halves(rows, 0, &mut head[..Self::MIN_SCALES]);
        pack_halves(rows, 2, &mut head[Self::MIN_SCALES..]);
        for (part, out) in parts.chunks_exact_mut(Self::PART_BYTES).enumerate() {
            // Two parts share 32 bytes: the even one in the low halves.
            let codes = SOURCE_CODES + part / 2 * 32;
            let shift = 4 * (part % 2);
            pack_low(&mut out[..Self::SCALES], |row, group| {
                word(rows[row], codes + 4 * group) >> shift
            });
            for (row, source) in rows.iter().enumerate() {
                let (scale, min) = scale_and_min(&source[SOURCE_SCALES..SOURCE_CODES], part);
                out[Self::SCALES + row] = scale;
                out[Self::MINS + row] = min;
            }
        }
    }

    fn part(packed: &[u8], row: usize, part: usize) -> Part {
        let bytes = &packed[Self::PARTS + part * Self::PART_BYTES..][..Self::PART_BYTES];
        let scale = half_at(packed, 2 * row) * f32::from(bytes[Self::SCALES + row]);
        let min = half_at(packed, Self::MIN_SCALES + 2 * row) * f32::from(bytes[Self::MINS + row]);
        Part {
            codes: std::array::from_fn(|k| low(bytes, row, k) as i8),
            scale: Scale::One(scale),
            min: Some(-min),
        }
    }
}

/// The 6-bit scale and minimum of `part` out of the 12 bytes that hold eight of each.
///
/// Parts 0..4 lie in the low six bits of bytes `part` and `part + 4`. Parts 4..8 have their low
/// four bits in byte `part + 4` and their high two in the top bits of the bytes of `part - 4`.
fn scale_and_min(bytes: &[u8], part: usize) -> (u8, u8) {
    if part < 4 {
        return (bytes[part] & 63, bytes[part + 4] & 63);
    }
    let scale = bytes[part + 4] & 15 | bytes[part - 4] >> 6 << 4;
    let min = bytes[part + 4] >> 4 | bytes[part] >> 6 << 4;
    (scale, min)
}

const _: () = assert!(Q4_K::BLOCK_LEN == 8 * PART);
