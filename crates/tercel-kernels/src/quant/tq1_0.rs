//! TQ1_0: 256 codes of three values, five to a byte, one half-float scale, `w = d * (q - 1)`.

use super::codes::word;
use super::{Bits, Format, Grain, RowMut};

/// See the module. Packed as TQ2_0 is.
#[derive(Clone, Copy, Debug)]
pub struct TQ1_0;

/// Offset of `d` in a file's block; the codes come first.
const SOURCE_D: usize = 52;

impl Format for TQ1_0 {
    type Codes = Bits<2, 0, 1>;
    const BLOCK_LEN: usize = 256;
    const SOURCE_BYTES: usize = 54;
    const SCALES: Grain = Grain::Block;

    fn pack_row(source: &[u8], packed: &mut RowMut<'_, Self>) {
        packed.set_scale(&source[SOURCE_D..]);
        for part in 0..Self::PARTS {
            packed.set_codes(part, |group| {
                let (at, digit) = place(8 * part + group);
                let codes = word(source, at).to_le_bytes();
                u32::from_le_bytes(codes.map(|byte| ternary(byte, digit)))
            });
        }
    }
}

/// The bytes and the digit where group `i` of the block lies: 32 bytes of five digits, 16 bytes of
/// five, four bytes of four; the first digits of all bytes come first.
fn place(i: usize) -> (usize, u32) {
    let (at, groups, i) = match i {
        0..40 => (0, 8, i),
        40..60 => (32, 4, i - 40),
        _ => (48, 1, i - 60),
    };
    (at + 4 * (i % groups), (i / groups) as u32)
}

/// Digit `digit` after the point of `byte / 256` in base three.
fn ternary(byte: u8, digit: u32) -> u8 {
    let rest = byte.wrapping_mul(3u8.pow(digit));
    ((u16::from(rest) * 3) >> 8) as u8
}
