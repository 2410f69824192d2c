//! Blocks of 256: parts with scales of few bits, which a half float scales in turn.
//!
//! Each part's scale is searched for, the scales are rounded, numbers get the codes next to them
//! under the rounded scales, and the half floats are fitted to those codes. The plain choice, which
//! spans each part from end to end, is tried too, so the result is never worse than it.

use super::search::{Span, code, plain_scale, search_scale, sums};
use super::{TooLarge, half, put_half};
use crate::quant::PART;

/// Elements of a block.
const BLOCK: usize = 256;
const PARTS: usize = BLOCK / PART;
/// Elements that share a scale in Q6_K.
const GROUP: usize = 16;
const GROUPS: usize = BLOCK / GROUP;

pub(super) fn q4_k(x: &[f32], out: &mut [u8]) -> Result<(), TooLarge> {
    let codes = spans::<15>(x, out)?;
    put_nibble_parts(&codes, &mut out[16..]);
    Ok(())
}

pub(super) fn q5_k(x: &[f32], out: &mut [u8]) -> Result<(), TooLarge> {
    let codes = spans::<31>(x, out)?;
    let (high, low) = out[16..].split_at_mut(PART);
    high.fill(0);
    for (part, codes) in codes.chunks_exact(PART).enumerate() {
        for (code, high) in codes.iter().zip(high.iter_mut()) {
            *high |= code >> 4 << part;
        }
    }
    put_nibble_parts(&codes, low);
    Ok(())
}

pub(super) fn q6_k(x: &[f32], out: &mut [u8]) -> Result<(), TooLarge> {
    let x: &[f32; BLOCK] = block(x);
    let mut weights = [0.0; BLOCK];
    let (mut plain, mut searched) = ([0.0; GROUPS], [0.0; GROUPS]);
    for group in 0..GROUPS {
        let x: &[f32; GROUP] = block(&x[group * GROUP..]);
        let w: [f32; GROUP] = x.map(|x| x * x);
        plain[group] = plain_scale(x, 32.0);
        searched[group] = search_scale(x, &w, 32.0);
        weights[group * GROUP..(group + 1) * GROUP].copy_from_slice(&w);
    }
    let plain = Symmetric::new(x, &weights, plain)?;
    let mut best = Symmetric::new(x, &weights, searched)?;
    best = best.fitted(x, &weights);
    if plain.error < best.error {
        best = plain;
    }
    put_half(best.d, &mut out[208..])?;
    for (out, scale) in out[192..208].iter_mut().zip(best.scales) {
        *out = scale as i8 as u8;
    }
    let (low, high) = out[..192].split_at_mut(128);
    low.fill(0);
    high.fill(0);
    for (i, code) in best.codes.iter().enumerate() {
        let (half, i) = (i / 128, i % 128);
        low[half * 64 + i % 64] |= (code & 15) << (4 * (i / 64));
        high[half * 32 + i % 32] |= code >> 4 << (2 * (i / 32));
    }
    Ok(())
}

/// Writes `d`, `dmin` and the 6-bit scales and minimums of Q4_K and Q5_K to the first 16 bytes, and
/// gives back the codes.
fn spans<const LARGEST: u8>(x: &[f32], out: &mut [u8]) -> Result<[u8; BLOCK], TooLarge> {
    let largest = f32::from(LARGEST);
    let x: &[f32; BLOCK] = block(x);
    let mut weights = [0.0; BLOCK];
    let mut plain = [Span {
        scale: 0.0,
        min: 0.0,
    }; PARTS];
    let mut searched = plain;
    for part in 0..PARTS {
        let x: &[f32; PART] = block(&x[part * PART..]);
        let [squares] = sums::<PART, 1>(|i| [x[i] * x[i]]);
        // Large numbers matter more, small ones never nothing.
        let mean = (squares / PART as f32).sqrt();
        let w = x.map(|x| mean + x.abs());
        plain[part] = Span::plain(x, largest);
        searched[part] = Span::search(x, &w, largest);
        weights[part * PART..(part + 1) * PART].copy_from_slice(&w);
    }
    let plain = Spans::new(x, &weights, plain, largest)?;
    let mut best = Spans::new(x, &weights, searched, largest)?;
    best = best.fitted(x, &weights, largest);
    if plain.error < best.error {
        best = plain;
    }
    put_half(best.d, out)?;
    put_half(best.d_min, &mut out[2..])?;
    put_scales(&best.scales, &best.mins, &mut out[4..16]);
    Ok(best.codes)
}

/// A block with a minimum, decided.
struct Spans {
    d: f32,
    d_min: f32,
    scales: [f32; PARTS],
    mins: [f32; PARTS],
    codes: [u8; BLOCK],
    /// Weighted and squared.
    error: f32,
}

impl Spans {
    /// Rounds the parts' scales.
    fn new(
        x: &[f32; BLOCK],
        weights: &[f32; BLOCK],
        parts: [Span; PARTS],
        largest: f32,
    ) -> Result<Self, TooLarge> {
        const MOST: f32 = 63.0;
        let most = |value: fn(&Span) -> f32| parts.iter().map(value).fold(0.0, f32::max);
        let d = half(most(|part| part.scale) / MOST)?.to_f32();
        let d_min = half(most(|part| part.min) / MOST)?.to_f32();
        let mut spans = Self {
            d,
            d_min,
            scales: parts.map(|part| ratio(part.scale, d, 0.0, MOST)),
            mins: parts.map(|part| ratio(part.min, d_min, 0.0, MOST)),
            codes: [0; BLOCK],
            error: 0.0,
        };
        spans.encode(x, weights, largest);
        Ok(spans)
    }

    /// Sets the codes next to the numbers, and the error.
    fn encode(&mut self, x: &[f32; BLOCK], weights: &[f32; BLOCK], largest: f32) {
        self.error = 0.0;
        for part in 0..PARTS {
            let scale = self.d * self.scales[part];
            let min = self.d_min * self.mins[part];
            let inverse = inverse(scale);
            let x: &[f32; PART] = block(&x[part * PART..]);
            let weights: &[f32; PART] = block(&weights[part * PART..]);
            let codes: [f32; PART] =
                std::array::from_fn(|i| code((x[i] + min) * inverse, 0.0, largest));
            let [error] = sums::<PART, 1>(|i| {
                let error = scale * codes[i] - min - x[i];
                [weights[i] * error * error]
            });
            self.error += error;
            for (out, code) in self.codes[part * PART..].iter_mut().zip(codes) {
                *out = code as u8;
            }
        }
    }

    /// The block with `d` and `d_min` fitted to its codes, where that is better.
    fn fitted(self, x: &[f32; BLOCK], weights: &[f32; BLOCK], largest: f32) -> Self {
        let [aa, bb, ab, ax, bx] = sums::<BLOCK, 5>(|i| {
            let a = self.scales[i / PART] * f32::from(self.codes[i]);
            let b = -self.mins[i / PART];
            [a * a, b * b, a * b, a * x[i], b * x[i]].map(|term| weights[i] * term)
        });
        let determinant = aa * bb - ab * ab;
        let (d, d_min) = if bb > 0.0 {
            (
                (bb * ax - ab * bx) / determinant,
                (aa * bx - ab * ax) / determinant,
            )
        } else {
            (ax / aa, 0.0)
        };
        let (Ok(d), Ok(d_min)) = (half(d), half(d_min)) else {
            return self;
        };
        let mut fitted = Self {
            d: d.to_f32(),
            d_min: d_min.to_f32(),
            ..self
        };
        fitted.encode(x, weights, largest);
        if fitted.error < self.error {
            fitted
        } else {
            self
        }
    }
}

/// A block of Q6_K, decided.
struct Symmetric {
    d: f32,
    scales: [f32; GROUPS],
    /// 32 more than what they stand for.
    codes: [u8; BLOCK],
    /// Weighted and squared.
    error: f32,
}

impl Symmetric {
    /// Rounds the groups' scales.
    fn new(
        x: &[f32; BLOCK],
        weights: &[f32; BLOCK],
        groups: [f32; GROUPS],
    ) -> Result<Self, TooLarge> {
        let d = half(plain_scale(&groups, 128.0))?.to_f32();
        let mut symmetric = Self {
            d,
            scales: groups.map(|scale| ratio(scale, d, -128.0, 127.0)),
            codes: [0; BLOCK],
            error: 0.0,
        };
        symmetric.encode(x, weights);
        Ok(symmetric)
    }

    /// Sets the codes next to the numbers, and the error.
    fn encode(&mut self, x: &[f32; BLOCK], weights: &[f32; BLOCK]) {
        self.error = 0.0;
        for group in 0..GROUPS {
            let scale = self.d * self.scales[group];
            let inverse = inverse(scale);
            let x: &[f32; GROUP] = block(&x[group * GROUP..]);
            let weights: &[f32; GROUP] = block(&weights[group * GROUP..]);
            let codes: [f32; GROUP] = x.map(|x| code(x * inverse, -32.0, 31.0));
            let [error] = sums::<GROUP, 1>(|i| {
                let error = scale * codes[i] - x[i];
                [weights[i] * error * error]
            });
            self.error += error;
            for (out, code) in self.codes[group * GROUP..].iter_mut().zip(codes) {
                *out = (code + 32.0) as u8;
            }
        }
    }

    /// The block with `d` fitted to its codes, where that is better.
    fn fitted(self, x: &[f32; BLOCK], weights: &[f32; BLOCK]) -> Self {
        let [aa, ax] = sums::<BLOCK, 2>(|i| {
            let a = self.scales[i / GROUP] * (f32::from(self.codes[i]) - 32.0);
            [a * a, a * x[i]].map(|term| weights[i] * term)
        });
        let Ok(d) = half(ax / aa) else {
            return self;
        };
        let mut fitted = Self {
            d: d.to_f32(),
            ..self
        };
        fitted.encode(x, weights);
        if fitted.error < self.error {
            fitted
        } else {
            self
        }
    }
}

/// The first `N` numbers of `x`.
fn block<const N: usize>(x: &[f32]) -> &[f32; N] {
    x.first_chunk().expect("a block of this length")
}

/// `x / unit` as a whole number; 0 where the unit is.
fn ratio(x: f32, unit: f32, low: f32, high: f32) -> f32 {
    if unit == 0.0 {
        0.0
    } else {
        code(x / unit, low, high)
    }
}

/// One over a scale; 0 where that is no finite number.
fn inverse(scale: f32) -> f32 {
    let inverse = 1.0 / scale;
    if inverse.is_finite() { inverse } else { 0.0 }
}

/// Two parts share 32 bytes: the even one in the low halves.
fn put_nibble_parts(codes: &[u8; BLOCK], out: &mut [u8]) {
    for (codes, out) in codes.chunks_exact(2 * PART).zip(out.chunks_exact_mut(PART)) {
        let (low, high) = codes.split_at(PART);
        for ((low, high), out) in low.iter().zip(high).zip(out) {
            *out = low & 15 | high << 4;
        }
    }
}

/// Parts 0..4 lie in the low six bits of bytes `part` and `part + 4`. Parts 4..8 have their low four
/// bits in byte `part + 4` and their high two in the top bits of the bytes of `part - 4`.
fn put_scales(scales: &[f32; PARTS], mins: &[f32; PARTS], out: &mut [u8]) {
    let (scales, mins) = (scales.map(|x| x as u8), mins.map(|x| x as u8));
    for part in 0..4 {
        let (scale, min) = (scales[part + 4], mins[part + 4]);
        out[part] = scales[part] | scale >> 4 << 6;
        out[part + 4] = mins[part] | min >> 4 << 6;
        out[part + 8] = scale & 15 | min << 4;
    }
}
