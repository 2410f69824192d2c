//! Q8_0: 32 codes of 8 bits, one half-float scale, `w = d * q`.

use super::codes::word;
use super::{Format, Grain, PART, RowMut, Signed};

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Q8_0;

impl Format for Q8_0 {
    type Codes = Signed;
    const BLOCK_LEN: usize = PART;
    const SOURCE_BYTES: usize = 34;
    const SCALES: Grain = Grain::Block;

    fn pack_row(source: &[u8], packed: &mut RowMut<'_, Self>) {
        packed.set_scale(source);
        packed.set_codes(0, |group| word(source, 2 + 4 * group));
    }
}
