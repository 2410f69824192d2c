//! Q4_0: 32 codes of 4 bits, one half-float scale, `w = d * (q - 8)`.

use super::codes::word;
use super::{Bits, Format, Grain, PART, RowMut};

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Q4_0;

impl Format for Q4_0 {
    type Codes = Bits<4, 0, 8>;
    const BLOCK_LEN: usize = PART;
    const SOURCE_BYTES: usize = 18;
    const SCALES: Grain = Grain::Block;

    fn pack_row(source: &[u8], packed: &mut RowMut<'_, Self>) {
        packed.set_scale(source);
        packed.set_codes(0, |group| nibbles(&source[2..], group));
    }
}

/// Low bits of a group out of the 16 bytes of 32 codes: low halves are the first 16 codes.
#[inline]
pub(super) fn nibbles(bytes: &[u8], group: usize) -> u32 {
    word(bytes, 4 * (group % 4)) >> (4 * (group / 4)) & 0x0f0f_0f0f
}
