//! Q5_1: 32 codes of 5 bits, half-float scale and minimum, `w = d * q + m`.

use super::q5_0::five_bits;
use super::{Bits, Format, Grain, PART, RowMut};

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Q5_1;

impl Format for Q5_1 {
    type Codes = Bits<4, 1, 0>;
    const BLOCK_LEN: usize = PART;
    const SOURCE_BYTES: usize = 24;
    const SCALES: Grain = Grain::Block;
    const MINS: Option<Grain> = Some(Grain::Block);

    fn pack_row(source: &[u8], packed: &mut RowMut<'_, Self>) {
        packed.set_scale(source);
        packed.set_min(&source[2..]);
        packed.set_codes(0, |group| five_bits(&source[4..], group));
    }
}
