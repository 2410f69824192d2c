//! Q3_K: 256 codes of 3 bits, a 6-bit scale for each 16, a half-float `d` per block;
//! `w = (d * (s - 32)) * (q - 4)`.

use super::codes::word;
use super::q2_k::two_bits;
use super::{Bits, Format, Grain, RowMut};

/// See the module.
#[derive(Clone, Copy, Debug)]
#[expect(non_camel_case_types, reason = "the name of the format")]
pub struct Q3_K;

/// Offsets in a file's block of the low bits, the scales and `d`; the third bits come first.
const SOURCE_LOW: usize = 32;
const SOURCE_SCALES: usize = 96;
const SOURCE_D: usize = 108;

impl Format for Q3_K {
    type Codes = Bits<2, 1, 4>;
    const BLOCK_LEN: usize = 256;
    const SOURCE_BYTES: usize = 110;
    const SCALES: Grain = Grain::Half;

    fn pack_row(source: &[u8], packed: &mut RowMut<'_, Self>) {
        packed.set_scale(&source[SOURCE_D..]);
        let scales = &source[SOURCE_SCALES..SOURCE_D];
        for part in 0..Self::PARTS {
            packed.set_codes(part, |group| {
                // Bit `part` of byte `k` belongs to element `k` of the part.
                let third = word(source, 4 * group) >> part & 0x0101_0101;
                two_bits(&source[SOURCE_LOW..], part, group) | third << 2
            });
            packed.set_scale_factors(part, [scale(scales, 2 * part), scale(scales, 2 * part + 1)]);
        }
    }
}

/// Scale `i` of the 16 in 12 bytes, 32 taken off. Its low four bits lie in byte `i % 8`, the first
/// eight in the low halves; its high two in byte `8 + i % 4`, four to a byte.
fn scale(bytes: &[u8], i: usize) -> u8 {
    let low = bytes[i % 8] >> (4 * (i / 8)) & 15;
    let high = bytes[8 + i % 4] >> (2 * (i / 4)) & 3;
    (low | high << 4).wrapping_sub(32)
}
