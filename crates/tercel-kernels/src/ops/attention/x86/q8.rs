//! Codes are multiplied as integers: two elements of a key with those of the query, two tokens'
//! elements with their weights, in one 32-bit lane. The query and the weights have 16 bits, so a
//! block's sum is exact: 32 products of at most 127 * 32767 fit a lane.

use std::arch::x86_64::*;

use super::super::PAGE;
use super::super::q8::{BLOCK, Q8, Sections};
use super::{Numbers, Page, Wide};

/// The code of the largest number of a vector in 16 bits.
const LARGEST: f32 = 32767.0;
/// What is smaller is nothing beside any weight or query that matters, and its inverse overflows.
const TINY: f32 = 1e-30;

impl Numbers for Q8 {
    /// The scale, then pairs of codes.
    fn query_len(head_dim: usize) -> usize {
        1 + head_dim / 2
    }

    #[inline(always)]
    unsafe fn queries<'q>(q: &'q [f32], head_dim: usize, codes: &'q mut [f32]) -> &'q [f32] {
        let len = Self::query_len(head_dim);
        let queries = &mut codes[..q.len() / head_dim * len];
        for (q, out) in q.chunks_exact(head_dim).zip(queries.chunks_exact_mut(len)) {
            // SAFETY: by the contract of the trait.
            out[0] = unsafe { quantize(q, &mut out[1..]) };
        }
        queries
    }

    #[inline(always)]
    unsafe fn scores<W: Wide, const R: usize>(
        page: &Page<'_, Self>,
        queries: &[f32],
        scores: &mut [[f32; PAGE]; R],
    ) {
        let dim = page.dim;
        let len = Self::query_len(dim);
        let Sections {
            keys, key_scales, ..
        } = Sections::of(page.part, dim);
        let tokens = 2 * W::LANES;
        assert!(dim.is_multiple_of(BLOCK) && queries.len() == R * len);
        assert!(PAGE.is_multiple_of(tokens));
        assert!(keys.len() == dim * PAGE && key_scales.len() == dim / BLOCK * PAGE * 2);
        for start in (0..PAGE).step_by(tokens) {
            if start >= page.seen.end || start + tokens <= page.seen.start {
                continue;
            }
            // SAFETY: by the contract of the trait. `keys` has `dim / 2` rows of PAGE pairs,
            // `queries` R rows of a scale and `dim / 2` pairs, `key_scales` `dim / BLOCK` rows of
            // PAGE half floats, and each of the scores room for PAGE.
            unsafe {
                let mut totals = [[W::zeros(); 2]; R];
                for block in 0..dim / BLOCK {
                    let at = (start / tokens * dim + block * BLOCK) * tokens;
                    page.fetch_next(at..at + BLOCK * tokens);
                    let mut dots = [[W::int_zeros(); 2]; R];
                    for pair in block * (BLOCK / 2)..(block + 1) * (BLOCK / 2) {
                        let at = keys.as_ptr().add((pair * PAGE + start) * 2);
                        let key = [W::load_codes(at), W::load_codes(at.add(2 * W::LANES))];
                        for (row, dots) in dots.iter_mut().enumerate() {
                            let q = W::all_pairs(*queries.get_unchecked(row * len + 1 + pair));
                            dots[0] = W::add_pairs(q, key[0], dots[0]);
                            dots[1] = W::add_pairs(q, key[1], dots[1]);
                        }
                    }
                    let at = key_scales.as_ptr().cast::<u16>().add(block * PAGE + start);
                    let scales = [W::load_halves(at), W::load_halves(at.add(W::LANES))];
                    for (totals, dots) in totals.iter_mut().zip(dots) {
                        for ((total, dot), scale) in totals.iter_mut().zip(dots).zip(scales) {
                            *total = W::mul_add(W::to_floats(dot), scale, *total);
                        }
                    }
                }
                for (row, (scores, totals)) in scores.iter_mut().zip(totals).enumerate() {
                    let scale = W::all(page.scale * queries[row * len]);
                    let at = scores.as_mut_ptr().add(start);
                    W::store(at, W::mul(totals[0], scale));
                    W::store(at.add(W::LANES), W::mul(totals[1], scale));
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn sum_values<W: Wide, const R: usize>(
        page: &Page<'_, Self>,
        weights: &[[f32; PAGE]; R],
        keep: &[f32; R],
        sums: &mut [f32],
    ) {
        let dim = page.dim;
        let Sections {
            values,
            value_scales,
            ..
        } = Sections::of(page.part, dim);
        let columns = 2 * W::LANES;
        assert!(dim.is_multiple_of(BLOCK) && sums.len() == R * dim && page.seen.end <= PAGE);
        assert!(values.len() == PAGE * dim && value_scales.len() == dim / BLOCK * PAGE * 2);
        assert!(BLOCK.is_multiple_of(columns));
        let pairs = page.seen.start / 2..page.seen.end.div_ceil(2);
        page.fetch_next(2 * dim * PAGE..page.part.len()); // the scales
        for block in 0..dim / BLOCK {
            // SAFETY: by the contract of the trait. `value_scales` has `dim / BLOCK` rows of PAGE
            // half floats, `values` `dim / BLOCK` times PAGE / 2 rows of BLOCK pairs, and `sums` R
            // rows of `dim`.
            unsafe {
                let scales = scales(value_scales, block, page);
                let mut pair_codes = [[0.0f32; PAGE / 2]; R];
                let mut units = [0.0f32; R];
                for row in 0..R {
                    let mut scaled = weights[row];
                    for (weight, scale) in scaled.iter_mut().zip(scales) {
                        *weight *= scale;
                    }
                    units[row] = quantize(&scaled, &mut pair_codes[row]);
                }
                for d in (0..BLOCK).step_by(columns) {
                    let at = (dim + block * BLOCK + d) * PAGE;
                    page.fetch_next(at..at + columns * PAGE);
                    let mut totals = [[W::int_zeros(); 2]; R];
                    for pair in pairs.clone() {
                        let at = (block * (PAGE / 2) + pair) * BLOCK + d;
                        let at = values.as_ptr().add(at * 2);
                        let value = [W::load_codes(at), W::load_codes(at.add(2 * W::LANES))];
                        for (totals, weights) in totals.iter_mut().zip(&pair_codes) {
                            let weight = W::all_pairs(*weights.get_unchecked(pair));
                            totals[0] = W::add_pairs(weight, value[0], totals[0]);
                            totals[1] = W::add_pairs(weight, value[1], totals[1]);
                        }
                    }
                    for (row, totals) in totals.into_iter().enumerate() {
                        let (unit, keep) = (W::all(units[row]), W::all(keep[row]));
                        let at = sums.as_mut_ptr().add(row * dim + block * BLOCK + d);
                        for (i, total) in totals.into_iter().enumerate() {
                            let at = at.add(i * W::LANES);
                            let old = W::mul(W::load(at), keep);
                            W::store(at, W::mul_add(W::to_floats(total), unit, old));
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
