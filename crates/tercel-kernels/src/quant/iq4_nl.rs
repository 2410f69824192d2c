//! IQ4_NL: 32 codes of 4 bits that choose from sixteen unevenly spaced values, one half-float
//! scale, `w = d * value[q]`.

use super::q4_0::nibbles;
use super::{Format, Grain, Lookup, PART, RowMut, Values};

/// See the module.
#[derive(Clone, Copy, Debug)]
#[expect(non_camel_case_types, reason = "the name of the format")]
pub struct IQ4_NL;

impl Format for IQ4_NL {
    type Codes = Lookup<Self>;
    const BLOCK_LEN: usize = PART;
    const SOURCE_BYTES: usize = 18;
    const SCALES: Grain = Grain::Block;

    fn pack_row(source: &[u8], packed: &mut RowMut<'_, Self>) {
        packed.set_scale(source);
        packed.set_codes(0, |group| nibbles(&source[2..], group));
    }
}

impl Values for IQ4_NL {
    /// `kvalues_iq4nl` of `ggml-common.h`.
    const VALUES: [i8; 16] = [
        -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
    ];
}
