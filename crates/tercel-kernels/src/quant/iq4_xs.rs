//! IQ4_XS: 256 codes of 4 bits that choose from the values of IQ4_NL, a 6-bit scale for each 32,
//! a half-float `d` per block; `w = (d * (s - 32)) * value[q]`.

use super::q4_0::nibbles;
use super::{Format, Grain, IQ4_NL, Lookup, RowMut};

/// See the module.
#[derive(Clone, Copy, Debug)]
#[expect(non_camel_case_types, reason = "the name of the format")]
pub struct IQ4_XS;

/// Offsets in a file's block of the high two bits of the scales, of their low four, of the codes;
/// `d` comes first.
const SOURCE_HIGH: usize = 2;
const SOURCE_LOW: usize = 4;
const SOURCE_CODES: usize = 8;

impl Format for IQ4_XS {
    type Codes = Lookup<IQ4_NL>;
    const BLOCK_LEN: usize = 256;
    const SOURCE_BYTES: usize = 136;
    const SCALES: Grain = Grain::Part;

    fn pack_row(source: &[u8], packed: &mut RowMut<'_, Self>) {
        packed.set_scale(source);
        for part in 0..Self::PARTS {
            let codes = &source[SOURCE_CODES + 16 * part..];
            packed.set_codes(part, |group| nibbles(codes, group));
            let low = source[SOURCE_LOW + part / 2] >> (4 * (part % 2)) & 15;
            let high = source[SOURCE_HIGH + part / 4] >> (2 * (part % 4)) & 3;
            packed.set_scale_factors(part, [(low | high << 4).wrapping_sub(32)]);
        }
    }
}
