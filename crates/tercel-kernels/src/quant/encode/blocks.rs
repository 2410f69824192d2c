//! Blocks of 32: the largest number, or the smallest and the largest, say the scale.

use super::{TooLarge, put_half};
use crate::quant::PART;

pub(super) fn f16(x: &[f32], out: &mut [u8]) -> Result<(), TooLarge> {
    put_half(x[0], out)
}

pub(super) fn q8_0(x: &[f32], out: &mut [u8]) -> Result<(), TooLarge> {
    let d = x.iter().fold(0.0f32, |largest, x| largest.max(x.abs())) / 127.0;
    put_half(d, out)?;
    let inverse = inverse(d);
    for (x, out) in x.iter().zip(&mut out[2..]) {
        // Ties go away from zero.
        *out = (x * inverse).round() as i8 as u8;
    }
    Ok(())
}

pub(super) fn q4_0(x: &[f32], out: &mut [u8]) -> Result<(), TooLarge> {
    let codes = symmetric::<16>(x, out)?;
    put_nibbles(codes, &mut out[2..]);
    Ok(())
}

pub(super) fn q4_1(x: &[f32], out: &mut [u8]) -> Result<(), TooLarge> {
    let codes = with_minimum::<16>(x, out)?;
    put_nibbles(codes, &mut out[4..]);
    Ok(())
}

pub(super) fn q5_0(x: &[f32], out: &mut [u8]) -> Result<(), TooLarge> {
    let codes = symmetric::<32>(x, out)?;
    put_fifth_bits(codes, &mut out[2..6]);
    put_nibbles(codes, &mut out[6..]);
    Ok(())
}

pub(super) fn q5_1(x: &[f32], out: &mut [u8]) -> Result<(), TooLarge> {
    let codes = with_minimum::<32>(x, out)?;
    put_fifth_bits(codes, &mut out[4..8]);
    put_nibbles(codes, &mut out[8..]);
    Ok(())
}

/// Writes the scale that puts the largest number, with its sign, at code 0 of `LEVELS`, and gives
/// back the codes.
fn symmetric<const LEVELS: u8>(x: &[f32], out: &mut [u8]) -> Result<[u8; PART], TooLarge> {
    let half = f32::from(LEVELS / 2);
    let larger = |a: f32, b: &f32| if b.abs() > a.abs() { *b } else { a };
    let d = x.iter().fold(x[0], larger) / -half;
    put_half(d, out)?;
    Ok(codes::<LEVELS>(x, inverse(d), half + 0.5))
}

/// Writes the scale and the minimum that span the block, and gives back the codes.
fn with_minimum<const LEVELS: u8>(x: &[f32], out: &mut [u8]) -> Result<[u8; PART], TooLarge> {
    let max = x.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
    let min = x.iter().fold(f32::INFINITY, |a, b| a.min(*b));
    let d = (max - min) / f32::from(LEVELS - 1);
    put_half(d, out)?;
    put_half(min, &mut out[2..])?;
    let above: [f32; PART] = std::array::from_fn(|i| x[i] - min);
    Ok(codes::<LEVELS>(&above, inverse(d), 0.5))
}

/// `x * inverse + offset`, its fraction cut off, as a code.
fn codes<const LEVELS: u8>(x: &[f32], inverse: f32, offset: f32) -> [u8; PART] {
    std::array::from_fn(|i| ((x[i] * inverse + offset) as u8).min(LEVELS - 1))
}

/// One over a scale; 0 where that is no finite number, for blocks of zeros and of numbers too
/// small for a half float's scale.
fn inverse(d: f32) -> f32 {
    let inverse = 1.0 / d;
    if inverse.is_finite() { inverse } else { 0.0 }
}

/// The first 16 codes in the low halves, the others in the high halves.
fn put_nibbles(codes: [u8; PART], out: &mut [u8]) {
    let (low, high) = codes.split_at(PART / 2);
    for ((low, high), out) in low.iter().zip(high).zip(out) {
        *out = low & 15 | high << 4;
    }
}

/// Bit `k` of a word is the fifth of code `k`.
fn put_fifth_bits(codes: [u8; PART], out: &mut [u8]) {
    let bit = |(k, code): (usize, &u8)| u32::from(code >> 4) << k;
    let bits = codes
        .iter()
        .enumerate()
        .map(bit)
        .fold(0, |all, bit| all | bit);
    out.copy_from_slice(&bits.to_le_bytes());
}
