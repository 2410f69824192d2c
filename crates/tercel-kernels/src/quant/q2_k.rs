//! Q2_K: 256 codes of 2 bits, `w = (d * s) * q - (dmin * m)` with 4-bit `s` and `m` for each 16
//! and half-float `d` and `dmin` per block.

use super::codes::word;
use super::{Bits, Format, Grain, RowMut};

/// See the module.
#[derive(Clone, Copy, Debug)]
#[expect(non_camel_case_types, reason = "the name of the format")]
pub struct Q2_K;

/// Offsets of the codes and of `d` and `dmin` in a file's block; `s` and `m` come first.
const SOURCE_CODES: usize = 16;
const SOURCE_D: usize = 80;

impl Format for Q2_K {
    type Codes = Bits<2, 0, 0>;
    const BLOCK_LEN: usize = 256;
    const SOURCE_BYTES: usize = 84;
    const SCALES: Grain = Grain::Half;
    const MINS: Option<Grain> = Some(Grain::Half);

    fn pack_row(source: &[u8], packed: &mut RowMut<'_, Self>) {
        packed.set_scale(&source[SOURCE_D..]);
        packed.set_negative_min(&source[SOURCE_D + 2..]);
        for part in 0..Self::PARTS {
            packed.set_codes(part, |group| two_bits(&source[SOURCE_CODES..], part, group));
            let factors = [source[2 * part], source[2 * part + 1]];
            packed.set_scale_factors(part, factors.map(|byte| byte & 15));
            packed.set_min_factors(part, factors.map(|byte| byte >> 4));
        }
    }
}

/// A group out of the 64 bytes of 256 codes: each 128 lie in 32 bytes, 32 to a pair of bits.
#[inline]
pub(super) fn two_bits(bytes: &[u8], part: usize, group: usize) -> u32 {
    word(bytes, part / 4 * 32 + 4 * group) >> (2 * (part % 4)) & 0x0303_0303
}
