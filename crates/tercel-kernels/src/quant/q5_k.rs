//! Q5_K: 256 codes of 5 bits in eight parts; scales and minimums as in Q4_K.

use super::codes::word;
use super::q4_k::{factors, low_bits};
use super::{Bits, Format, Grain, RowMut};

/// See the module.
#[derive(Clone, Copy, Debug)]
#[expect(non_camel_case_types, reason = "the name of the format")]
pub struct Q5_K;

/// Offsets in a file's block of the factors, the fifth bits and the low bits; `d` and `dmin` come
/// first.
const SOURCE_FACTORS: usize = 4;
const SOURCE_HIGH: usize = 16;
const SOURCE_LOW: usize = 48;

impl Format for Q5_K {
    type Codes = Bits<4, 1, 0>;
    const BLOCK_LEN: usize = 256;
    const SOURCE_BYTES: usize = 176;
    const SCALES: Grain = Grain::Part;
    const MINS: Option<Grain> = Some(Grain::Part);

    fn pack_row(source: &[u8], packed: &mut RowMut<'_, Self>) {
        packed.set_scale(source);
        packed.set_negative_min(&source[2..]);
        for part in 0..Self::PARTS {
            packed.set_codes(part, |group| {
                // Bit `part` of byte `k` belongs to element `k` of the part.
                let fifth = word(source, SOURCE_HIGH + 4 * group) >> part & 0x0101_0101;
                low_bits(&source[SOURCE_LOW..], part, group) | fifth << 4
            });
            let (scale, min) = factors(&source[SOURCE_FACTORS..SOURCE_HIGH], part);
            packed.set_scale_factors(part, [scale]);
            packed.set_min_factors(part, [min]);
        }
    }
}
