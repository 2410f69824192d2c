//! MXFP4: 32 floats of 4 bits (E2M1) with one power of two as scale (E8M0), as the Open Compute
//! microscaling formats 1.0 define them. Codes stand for twice the float, so that they are whole
//! numbers, and the scale is halved.

use super::q4_0::nibbles;
use super::{Format, Grain, Lookup, PART, RowMut, Values};
use tercel_formats::DType;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct MXFP4;

impl Format for MXFP4 {
    type Codes = Lookup<Self>;
    const BLOCK_LEN: usize = PART;
    const SOURCE_BYTES: usize = 17;
    const SCALES: Grain = Grain::Block;
    /// Powers of two from 2^-128 to 2^127 are too wide for F16, and exact in BF16.
    const HEAD: DType = DType::BF16;

    fn pack_row(source: &[u8], packed: &mut RowMut<'_, Self>) {
        packed.set_scale(&half_of_power(source[0]).to_le_bytes());
        packed.set_codes(0, |group| nibbles(&source[1..], group));
    }
}

impl Values for MXFP4 {
    const VALUES: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];
}

/// The bits of `2^(exponent - 127) / 2` as BF16. The two smallest are subnormal; the code of NaN
/// is read as 2^127, as GGUF does.
fn half_of_power(exponent: u8) -> u16 {
    match exponent {
        0 => 0x20,
        1 => 0x40,
        _ => (u16::from(exponent) - 1) << 7,
    }
}
