//! Pages of 8-bit blocks: `x = scale * code` for each 32 elements of a token's head.
//!
//! `scale` is `max|x| / 127` rounded up to a half float, `code = round(x / scale)`, so a number is
//! off by half a scale at most, and no code is clipped. A token is quantized when it is stored, from
//! its own numbers alone. A block with a number that is not finite, or whose scale no half float can
//! hold, gets the scale NaN, so that the fault reaches the logits and is seen there.
//!
//! The part of one key head in a page:
//! key codes `(head_dim / 2, PAGE, 2)`, value codes `(head_dim / 32, PAGE / 2, 32, 2)`, key scales
//! and value scales `(head_dim / 32, PAGE)` each. The innermost two are what a kernel multiplies and
//! adds as one pair of 16-bit numbers: two elements of a key, two tokens of a value.

use half::f16;

use super::PAGE;
use super::cache::Encoding;

/// Elements that share a scale.
pub(super) const BLOCK: usize = 32;
/// Bytes of a scale.
const SCALE: usize = size_of::<u16>();

/// 34 bytes for 32 numbers.
#[derive(Debug)]
pub(super) enum Q8 {}

/// The part of one key head in a page, taken apart.
pub(super) struct Sections<'a> {
    pub(super) keys: &'a [u8],
    pub(super) values: &'a [u8],
    pub(super) key_scales: &'a [u8],
    pub(super) value_scales: &'a [u8],
}

impl<'a> Sections<'a> {
    pub(super) fn of(part: &'a [u8], head_dim: usize) -> Self {
        let (keys, rest) = part.split_at(head_dim * PAGE);
        let (values, rest) = rest.split_at(head_dim * PAGE);
        let (key_scales, value_scales) = rest.split_at(head_dim / BLOCK * PAGE * SCALE);
        Self {
            keys,
            values,
            key_scales,
            value_scales,
        }
    }
}

impl Encoding for Q8 {
    type Element = u8;

    fn part_len(head_dim: usize) -> usize {
        2 * head_dim * PAGE + 2 * (head_dim / BLOCK) * PAGE * SCALE
    }

    fn store(part: &mut [u8], slot: usize, k: &[f32], v: &[f32]) {
        let dim = k.len();
        let (keys, rest) = part.split_at_mut(dim * PAGE);
        let (values, rest) = rest.split_at_mut(dim * PAGE);
        let (key_scales, value_scales) = rest.split_at_mut(dim / BLOCK * PAGE * SCALE);
        for (block, k) in k.chunks_exact(BLOCK).enumerate() {
            let (codes, scale) = quantize(k);
            for (i, code) in codes.into_iter().enumerate() {
                keys[key_at(slot, block * BLOCK + i)] = code as u8;
            }
            key_scales[scale_at(slot, block)..][..SCALE].copy_from_slice(&scale.to_ne_bytes());
        }
        for (block, v) in v.chunks_exact(BLOCK).enumerate() {
            let (codes, scale) = quantize(v);
            for (i, code) in codes.into_iter().enumerate() {
                values[value_at(slot, block * BLOCK + i)] = code as u8;
            }
            value_scales[scale_at(slot, block)..][..SCALE].copy_from_slice(&scale.to_ne_bytes());
        }
    }

    fn key(part: &[u8], head_dim: usize, token: usize, d: usize) -> f32 {
        let sections = Sections::of(part, head_dim);
        let code = sections.keys[key_at(token, d)] as i8;
        scale(sections.key_scales, token, d) * f32::from(code)
    }

    fn value(part: &[u8], head_dim: usize, token: usize, d: usize) -> f32 {
        let sections = Sections::of(part, head_dim);
        let code = sections.values[value_at(token, d)] as i8;
        scale(sections.value_scales, token, d) * f32::from(code)
    }
}

fn key_at(token: usize, d: usize) -> usize {
    (d / 2 * PAGE + token) * 2 + d % 2
}

fn value_at(token: usize, d: usize) -> usize {
    ((d / BLOCK * (PAGE / 2) + token / 2) * BLOCK + d % BLOCK) * 2 + token % 2
}

fn scale_at(token: usize, block: usize) -> usize {
    (block * PAGE + token) * SCALE
}

fn scale(scales: &[u8], token: usize, d: usize) -> f32 {
    let at = scale_at(token, d / BLOCK);
    f16::from_ne_bytes([scales[at], scales[at + 1]]).to_f32()
}

/// The codes of a block, and their scale.
fn quantize(x: &[f32]) -> ([i8; BLOCK], f16) {
    let largest = x.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
    let scale = rounded_up(largest / 127.0);
    let mut codes = [0; BLOCK];
    if !scale.is_finite() || x.iter().any(|x| x.is_nan()) {
        return (codes, f16::NAN);
    }
    let inverse = 1.0 / scale.to_f32();
    if inverse.is_finite() {
        for (code, x) in codes.iter_mut().zip(x) {
            *code = round(x * inverse);
        }
    }
    (codes, scale)
}

/// The nearest integer of a number in -128..128, ties to even.
fn round(x: f32) -> i8 {
    /// Added to a small float, it leaves no bits for a fraction.
    const SHIFT: f32 = 1.5 * (1 << 23) as f32;
    (x + SHIFT - SHIFT) as i8
}

/// The least half float that is not below `x`, which is not negative.
fn rounded_up(x: f32) -> f16 {
    let nearest = f16::from_f32(x);
    if nearest.to_f32() < x {
        f16::from_bits(nearest.to_bits() + 1)
    } else {
        nearest
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::random;
    use super::*;

    #[test]
    fn a_number_is_off_by_half_a_scale_at_most_and_the_scale_is_hardly_wider_than_needed() {
        for exponent in -30..30 {
            for seed in 0..50 {
                let factor = 2f32.powi(exponent) * (1.0 + seed as f32 / 50.0);
                let x: Vec<f32> = random(seed, BLOCK).iter().map(|x| x * factor).collect();
                let largest = x.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
                let (codes, scale) = quantize(&x);
                let scale = scale.to_f32();
                // Half floats have eleven bits, down to the subnormal ones 2^-24 apart.
                let rounding = (largest / 127.0 / 1024.0).max(2f32.powi(-24));
                if largest / 127.0 > 65504.0 {
                    assert!(scale.is_nan());
                    continue;
                }
                assert!(scale >= largest / 127.0 && scale <= largest / 127.0 + rounding);
                for (x, code) in x.iter().zip(codes) {
                    assert!(code != i8::MIN, "{x}");
                    let error = (x - scale * f32::from(code)).abs();
                    assert!(error <= scale * 0.500_01, "{x} of {largest}: {error}");
                }
            }
        }
    }

    #[test]
    fn blocks_that_no_code_can_tell_say_so() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX] {
            let mut x = random(3, BLOCK);
            x[7] = bad;
            let (codes, scale) = quantize(&x);
            assert!(scale.is_nan() && codes == [0; BLOCK], "{bad}");
        }
        assert_eq!(quantize(&[0.0; BLOCK]), ([0; BLOCK], f16::ZERO));
        assert_eq!(quantize(&[-0.0; BLOCK]).0, [0; BLOCK]);
        let (codes, scale) = quantize(&[1e-40; BLOCK]);
        assert!(scale.to_f32() * f32::from(codes[0]) < 1e-7);
    }

    #[test]
    fn every_number_of_a_page_has_its_own_place() {
        for dim in [32, 64, 96, 256] {
            let mut seen = vec![[false; 2]; dim * PAGE];
            for token in 0..PAGE {
                for d in 0..dim {
                    for (i, at) in [key_at(token, d), value_at(token, d)]
                        .into_iter()
                        .enumerate()
                    {
                        assert!(!std::mem::replace(&mut seen[at][i], true), "{token} {d}");
                    }
                }
            }
        }
    }
}
