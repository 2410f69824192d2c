//! Q5_0: 32 codes of 5 bits, one half-float scale, `w = d * (q - 16)`.

use super::codes::{spread, word};
use super::q4_0::nibbles;
use super::{Bits, Format, Grain, PART, RowMut};

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Q5_0;

impl Format for Q5_0 {
    type Codes = Bits<4, 1, 16>;
    const BLOCK_LEN: usize = PART;
    const SOURCE_BYTES: usize = 22;
    const SCALES: Grain = Grain::Block;

    fn pack_row(source: &[u8], packed: &mut RowMut<'_, Self>) {
        packed.set_scale(source);
        packed.set_codes(0, |group| five_bits(&source[2..], group));
    }
}

/// A group out of 20 bytes: bit `k` of the first word is the fifth of code `k`, then the low bits.
#[inline]
pub(super) fn five_bits(bytes: &[u8], group: usize) -> u32 {
    nibbles(&bytes[4..], group) | spread(word(bytes, 0) >> (4 * group)) << 4
}
