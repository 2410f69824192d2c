//! Q4_K: 256 codes of 4 bits in eight parts; `w = (d * s) * q - (dmin * m)` with 6-bit `s` and
//! `m` per part and half-float `d` and `dmin` per block.

use super::codes::word;
use super::{Bits, Format, Grain, RowMut};

/// See the module.
#[derive(Clone, Copy, Debug)]
#[expect(non_camel_case_types, reason = "the name of the format")]
pub struct Q4_K;

/// Offsets of the factors and of the codes in a file's block; `d` and `dmin` come first.
const SOURCE_FACTORS: usize = 4;
const SOURCE_CODES: usize = 16;

impl Format for Q4_K {
    type Codes = Bits<4, 0, 0>;
    const BLOCK_LEN: usize = 256;
    const SOURCE_BYTES: usize = 144;
    const SCALES: Grain = Grain::Part;
    const MINS: Option<Grain> = Some(Grain::Part);

    fn pack_row(source: &[u8], packed: &mut RowMut<'_, Self>) {
        packed.set_scale(source);
        packed.set_negative_min(&source[2..]);
        for part in 0..Self::PARTS {
            packed.set_codes(part, |group| low_bits(&source[SOURCE_CODES..], part, group));
            let (scale, min) = factors(&source[SOURCE_FACTORS..SOURCE_CODES], part);
            packed.set_scale_factors(part, [scale]);
            packed.set_min_factors(part, [min]);
        }
    }
}

/// Low bits of a group out of the 128 bytes of 256 codes: two parts share 32 bytes, the even one
/// in the low halves.
#[inline]
pub(super) fn low_bits(bytes: &[u8], part: usize, group: usize) -> u32 {
    word(bytes, part / 2 * 32 + 4 * group) >> (4 * (part % 2)) & 0x0f0f_0f0f
}

/// The 6-bit `s` and `m` of `part` out of the 12 bytes that hold eight of each.
///
/// Parts 0..4 lie in the low six bits of bytes `part` and `part + 4`. Parts 4..8 have their low
/// four bits in byte `part + 4` and their high two in the top bits of the bytes of `part - 4`.
pub(super) fn factors(bytes: &[u8], part: usize) -> (u8, u8) {
    if part < 4 {
        return (bytes[part] & 63, bytes[part + 4] & 63);
    }
    let scale = bytes[part + 4] & 15 | bytes[part - 4] >> 6 << 4;
    let min = bytes[part + 4] >> 4 | bytes[part] >> 6 << 4;
    (scale, min)
}
