//! Q4_1: 32 codes of 4 bits, half-float scale and minimum, `w = d * q + m`.

use super::q4_0::nibbles;
use super::{Bits, Format, Grain, PART, RowMut};

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Q4_1;

impl Format for Q4_1 {
    type Codes = Bits<4, 0, 0>;
    const BLOCK_LEN: usize = PART;
    const SOURCE_BYTES: usize = 20;
    const SCALES: Grain = Grain::Block;
    const MINS: Option<Grain> = Some(Grain::Block);

    fn pack_row(source: &[u8], packed: &mut RowMut<'_, Self>) {
        packed.set_scale(source);
        packed.set_min(&source[2..]);
        packed.set_codes(0, |group| nibbles(&source[4..], group));
    }
}
