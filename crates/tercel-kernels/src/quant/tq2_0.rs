//! TQ2_0: 256 codes of 2 bits, one half-float scale, `w = d * (q - 1)`.

use super::q2_k::two_bits;
use super::{Bits, Format, Grain, RowMut};

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct TQ2_0;

/// Offset of `d` in a file's block; the codes come first.
const SOURCE_D: usize = 64;

impl Format for TQ2_0 {
    type Codes = Bits<2, 0, 1>;
    const BLOCK_LEN: usize = 256;
    const SOURCE_BYTES: usize = 66;
    const SCALES: Grain = Grain::Block;

    fn pack_row(source: &[u8], packed: &mut RowMut<'_, Self>) {
        packed.set_scale(&source[SOURCE_D..]);
        for part in 0..Self::PARTS {
            packed.set_codes(part, |group| two_bits(source, part, group));
        }
    }
}
