//! Q6_K: 256 codes of 6 bits, a signed 8-bit scale for each 16, a half-float `d` per block;
//! `w = (d * s) * (q - 32)`.

use super::codes::word;
use super::q2_k::two_bits;
use super::{Bits, Format, Grain, RowMut};

/// See the module.
#[derive(Clone, Copy, Debug)]
#[expect(non_camel_case_types, reason = "the name of the format")]
pub struct Q6_K;

/// Offsets in a file's block of the high bits, the scales and `d`; the low bits come first.
const SOURCE_HIGH: usize = 128;
const SOURCE_SCALES: usize = 192;
const SOURCE_D: usize = 208;

impl Format for Q6_K {
    type Codes = Bits<4, 2, 32>;
    const BLOCK_LEN: usize = 256;
    const SOURCE_BYTES: usize = 210;
    const SCALES: Grain = Grain::Half;

    fn pack_row(source: &[u8], packed: &mut RowMut<'_, Self>) {
        packed.set_scale(&source[SOURCE_D..]);
        for part in 0..Self::PARTS {
            packed.set_codes(part, |group| {
                low_bits(source, part, group) | two_bits(&source[SOURCE_HIGH..], part, group) << 4
            });
            let scale = SOURCE_SCALES + 2 * part;
            packed.set_scale_factors(part, [source[scale], source[scale + 1]]);
        }
    }
}

/// Low bits of a group: each 128 elements lie in 64 bytes, the first 64 in the low halves.
fn low_bits(bytes: &[u8], part: usize, group: usize) -> u32 {
    let (half, quarter) = (part / 4, part % 4);
    let word = word(bytes, half * 64 + quarter % 2 * 32 + 4 * group);
    word >> (4 * (quarter / 2)) & 0x0f0f_0f0f
}
