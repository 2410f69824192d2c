//! Codes are multiplied as integers: two elements of a key with those of the query, two tokens'
//! elements with their weights, in one 32-bit lane. The query and the weights have 16 bits, so a
//! block's sum is exact: 32 products of at most 127 * 32767 fit a lane.

use std::arch::x86_64::*;

use super::super::PAGE;
use super::super::q8::{BLOCK, Q8, Sections};
use super::{Page, Vectors};

/// The code of the largest number of a vector in 16 bits.
const LARGEST: f32 = 32767.0;
/// What is smaller is nothing beside any weight or query that matters, and its inverse overflows.
const TINY: f32 = 1e-30;

impl Vectors for Q8 {
    /// The scale, then pairs of codes.
    fn query_len(head_dim: usize) -> usize {
        1 + head_dim / 2
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn queries<'q>(q: &'q [f32], head_dim: usize, codes: &'q mut [f32]) -> &'q [f32] {
        let len = Self::query_len(head_dim);
        let queries = &mut codes[..q.len() / head_dim * len];
        for (q, out) in q.chunks_exact(head_dim).zip(queries.chunks_exact_mut(len)) {
            out[0] = quantize(q, &mut out[1..]);
        }
        queries
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn scores<const H: usize>(
        page: &Page<'_, Self>,
        queries: &[f32],
        scores: &mut [[f32; PAGE]; H],
    ) {
        let dim = page.dim;
        let len = Self::query_len(dim);
        let Sections {
            keys, key_scales, ..
        } = Sections::of(page.part, dim);
        assert!(dim.is_multiple_of(BLOCK) && queries.len() == H * len);
        assert!(keys.len() == dim * PAGE && key_scales.len() == dim / BLOCK * PAGE * 2);
        for start in (0..PAGE).step_by(16) {
            if start >= page.seen.end || start + 16 <= page.seen.start {
                continue;
            }
            let mut totals = [[_mm256_setzero_ps(); 2]; H];
            for block in 0..dim / BLOCK {
                let at = (start / 16 * dim + block * BLOCK) * 16;
                page.fetch_next(at..at + BLOCK * 16);
                let mut dots = [[_mm256_setzero_si256(); 2]; H];
                for pair in block * (BLOCK / 2)..(block + 1) * (BLOCK / 2) {
                    // SAFETY: `keys` has `dim / 2` rows of PAGE pairs, `queries` H rows of a scale
                    // and `dim / 2` pairs.
                    unsafe {
                        let at = (pair * PAGE + start) * 2;
                        let key = [codes(keys, at), codes(keys, at + 16)];
                        for (head, dots) in dots.iter_mut().enumerate() {
                            let q = pair_of(queries, head * len + 1 + pair);
                            for (dot, key) in dots.iter_mut().zip(key) {
                                *dot = _mm256_add_epi32(*dot, _mm256_madd_epi16(q, key));
                            }
                        }
                    }
                }
                // SAFETY: `key_scales` has `dim / BLOCK` rows of PAGE half floats.
                let scales = unsafe {
                    let at = (block * PAGE + start) * 2;
                    [halves(key_scales, at), halves(key_scales, at + 16)]
                };
                for (totals, dots) in totals.iter_mut().zip(dots) {
                    for ((total, dot), scale) in totals.iter_mut().zip(dots).zip(scales) {
                        *total = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), scale, *total);
                    }
                }
            }
            for (head, (scores, totals)) in scores.iter_mut().zip(totals).enumerate() {
                let scale = _mm256_set1_ps(page.scale * queries[head * len]);
                for (i, total) in totals.into_iter().enumerate() {
                    // SAFETY: start + 16 <= PAGE.
                    unsafe {
                        let at = scores.as_mut_ptr().add(start + 8 * i);
                        _mm256_storeu_ps(at, _mm256_mul_ps(total, scale));
                    };
                }
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn sum_values<const H: usize>(
        page: &Page<'_, Self>,
        weights: &[[f32; PAGE]; H],
        keep: &[f32; H],
        sums: &mut [f32],
    ) {
        let dim = page.dim;
        let Sections {
            values,
            value_scales,
            ..
        } = Sections::of(page.part, dim);
        assert!(dim.is_multiple_of(BLOCK) && sums.len() == H * dim && page.seen.end <= PAGE);
        assert!(values.len() == PAGE * dim && value_scales.len() == dim / BLOCK * PAGE * 2);
        let pairs = page.seen.start / 2..page.seen.end.div_ceil(2);
        page.fetch_next(2 * dim * PAGE..page.part.len()); // the scales
        for block in 0..dim / BLOCK {
            // SAFETY: `value_scales` has `dim / BLOCK` rows of PAGE half floats.
            let scales = unsafe { scales(value_scales, block, page) };
            let mut pair_codes = [[0.0f32; PAGE / 2]; H];
            let mut units = [0.0f32; H];
            for head in 0..H {
                let mut scaled = weights[head];
                for (weight, scale) in scaled.iter_mut().zip(scales) {
                    *weight *= scale;
                }
                units[head] = quantize(&scaled, &mut pair_codes[head]);
            }
            for d in [0, BLOCK / 2] {
                let at = (dim + block * BLOCK + d) * PAGE;
                page.fetch_next(at..at + BLOCK / 2 * PAGE);
                let mut totals = [[_mm256_setzero_si256(); 2]; H];
                for pair in pairs.clone() {
                    // SAFETY: `values` has `dim / BLOCK` times PAGE / 2 rows of BLOCK pairs.
                    unsafe {
                        let at = ((block * (PAGE / 2) + pair) * BLOCK + d) * 2;
                        let value = [codes(values, at), codes(values, at + 16)];
                        for (totals, weights) in totals.iter_mut().zip(&pair_codes) {
                            let weight = pair_of(weights, pair);
                            for (total, value) in totals.iter_mut().zip(value) {
                                let product = _mm256_madd_epi16(weight, value);
                                *total = _mm256_add_epi32(*total, product);
                            }
                        }
                    }
                }
                for (head, totals) in totals.into_iter().enumerate() {
                    let (unit, keep) = (_mm256_set1_ps(units[head]), _mm256_set1_ps(keep[head]));
                    for (i, total) in totals.into_iter().enumerate() {
                        // SAFETY: the offset is inside row `head` of `dim` sums.
                        unsafe {
                            let at = sums.as_mut_ptr();
                            let at = at.add(head * dim + block * BLOCK + d + 8 * i);
                            let old = _mm256_mul_ps(_mm256_loadu_ps(at), keep);
                            let new = _mm256_fmadd_ps(_mm256_cvtepi32_ps(total), unit, old);
                            _mm256_storeu_ps(at, new);
                        }
                    }
                }
            }
        }
    }
}

/// Rounds a whole number of 16 floats to 16 bits, in `out` two to a float, and gives back the scale:
/// NaN when one of them is not finite.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn quantize(x: &[f32], out: &mut [f32]) -> f32 {
    assert!(x.len().is_multiple_of(16) && out.len() == x.len() / 2);
    // Without their signs, the bits of floats are ordered as they are, and a NaN is the largest.
    let magnitude = _mm256_set1_epi32(i32::MAX);
    let mut largest = _mm256_setzero_si256();
    for x in x.chunks_exact(8) {
        // SAFETY: the chunk has eight floats.
        let x = unsafe { _mm256_loadu_si256(x.as_ptr().cast()) };
        largest = _mm256_max_epi32(largest, _mm256_and_si256(x, magnitude));
    }
    let largest = f32::from_bits(max(largest));
    let inverse = if largest > TINY {
        LARGEST / largest
    } else {
        0.0
    };
    let inverse = _mm256_set1_ps(inverse);
    for (x, out) in x.chunks_exact(16).zip(out.chunks_exact_mut(8)) {
        // SAFETY: the chunks have sixteen and eight floats.
        unsafe {
            let low = _mm256_mul_ps(_mm256_loadu_ps(x.as_ptr()), inverse);
            let high = _mm256_mul_ps(_mm256_loadu_ps(x.as_ptr().add(8)), inverse);
            let codes = _mm256_packs_epi32(_mm256_cvtps_epi32(low), _mm256_cvtps_epi32(high));
            // Packing works on 128-bit halves; this puts the codes back in order.
            let codes = _mm256_permute4x64_epi64::<0b11_01_10_00>(codes);
            _mm256_storeu_si256(out.as_mut_ptr().cast(), codes);
        }
    }
    if largest.is_finite() {
        largest / LARGEST
    } else {
        f32::NAN
    }
}

/// The largest of eight lanes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn max(x: __m256i) -> u32 {
    let x = _mm_max_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256::<1>(x));
    let x = _mm_max_epi32(x, _mm_shuffle_epi32::<0b00_00_11_10>(x));
    let x = _mm_max_epi32(x, _mm_shuffle_epi32::<0b00_00_00_01>(x));
    _mm_cvtsi128_si32(x).cast_unsigned()
}

/// The scales of a block of values; 0 for tokens that are not seen, whatever they were.
///
/// # Safety
/// Needs the features; `all` must have a row of PAGE half floats for the block.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn scales(all: &[u8], block: usize, page: &Page<'_, Q8>) -> [f32; PAGE] {
    let mut scales = [0.0; PAGE];
    for (i, scales) in scales.chunks_exact_mut(8).enumerate() {
        // SAFETY: by the contract of this function; the chunk has eight floats.
        unsafe {
            let eight = halves(all, (block * PAGE + 8 * i) * 2);
            _mm256_storeu_ps(scales.as_mut_ptr(), eight);
        }
    }
    if page.seen.len() < PAGE {
        scales[..page.seen.start].fill(0.0);
        scales[page.seen.end..].fill(0.0);
    }
    scales
}

/// Sixteen codes at `at`, widened to 16 bits.
///
/// # Safety
/// Needs the features; `at + 16` must be inside.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn codes(bytes: &[u8], at: usize) -> __m256i {
    debug_assert!(at + 16 <= bytes.len());
    // SAFETY: by the contract of this function.
    _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(bytes.as_ptr().add(at).cast()) })
}

/// Eight half floats at byte `at`.
///
/// # Safety
/// Needs the features; `at + 16` must be inside.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn halves(bytes: &[u8], at: usize) -> __m256 {
    debug_assert!(at + 16 <= bytes.len());
    // SAFETY: by the contract of this function.
    _mm256_cvtph_ps(unsafe { _mm_loadu_si128(bytes.as_ptr().add(at).cast()) })
}

/// A pair of codes in every lane.
///
/// # Safety
/// Needs the features; `at` must be inside.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn pair_of(pairs: &[f32], at: usize) -> __m256i {
    debug_assert!(at < pairs.len());
    // SAFETY: by the contract of this function.
    _mm256_castps_si256(_mm256_broadcast_ss(unsafe { pairs.get_unchecked(at) }))
}
