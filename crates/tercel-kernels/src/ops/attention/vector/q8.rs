//! Codes are multiplied as integers: two elements of a key with those of the query, two tokens'
//! elements with their weights, in one 32-bit lane. The query and the weights have 16 bits, so a
//! block's sum is exact: 32 products of at most 127 * 32767 fit a lane.

use super::super::PAGE;
use super::super::q8::{BLOCK, Q8, Sections};
use super::{Numbers, Page};
use crate::ops::registers::{Eight, Registers};

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
    unsafe fn queries<'q, R: Registers>(
        q: &'q [f32],
        head_dim: usize,
        codes: &'q mut [f32],
    ) -> &'q [f32] {
        let len = Self::query_len(head_dim);
        let queries = &mut codes[..q.len() / head_dim * len];
        for (q, out) in q.chunks_exact(head_dim).zip(queries.chunks_exact_mut(len)) {
            // SAFETY: by the contract of the trait.
            out[0] = unsafe { quantize::<R::Eight>(q, &mut out[1..]) };
        }
        queries
    }

    #[inline(always)]
    unsafe fn scores<R: Registers, const ROWS: usize>(
        page: &Page<'_, Self>,
        queries: &[f32],
        scores: &mut [[f32; PAGE]; ROWS],
    ) {
        let dim = page.dim;
        let len = Self::query_len(dim);
        let Sections {
            keys, key_scales, ..
        } = Sections::of(page.part, dim);
        let tokens = 2 * R::LANES;
        assert!(dim.is_multiple_of(BLOCK) && queries.len() == ROWS * len);
        assert!(PAGE.is_multiple_of(tokens));
        assert!(keys.len() == dim * PAGE && key_scales.len() == dim / BLOCK * PAGE * 2);
        for start in (0..PAGE).step_by(tokens) {
            if start >= page.seen.end || start + tokens <= page.seen.start {
                continue;
            }
            // SAFETY: by the contract of the trait. `keys` has `dim / 2` rows of PAGE pairs,
            // `queries` ROWS rows of a scale and `dim / 2` pairs, `key_scales` `dim / BLOCK` rows of
            // PAGE half floats, and each of the scores room for PAGE.
            unsafe {
                let mut totals = [[R::zeros(); 2]; ROWS];
                for block in 0..dim / BLOCK {
                    let at = (start / tokens * dim + block * BLOCK) * tokens;
                    page.fetch_next::<R>(at..at + BLOCK * tokens);
                    let mut dots = [[R::int_zeros(); 2]; ROWS];
                    for pair in block * (BLOCK / 2)..(block + 1) * (BLOCK / 2) {
                        let at = keys.as_ptr().add((pair * PAGE + start) * 2);
                        let key = [R::load_pairs(at), R::load_pairs(at.add(2 * R::LANES))];
                        for (row, dots) in dots.iter_mut().enumerate() {
                            let q =
                                R::all_ints(pair_of(queries.get_unchecked(row * len + 1 + pair)));
                            dots[0] = R::add_pairs(q, key[0], dots[0]);
                            dots[1] = R::add_pairs(q, key[1], dots[1]);
                        }
                    }
                    let at = key_scales.as_ptr().cast::<u16>().add(block * PAGE + start);
                    let scales = [R::load_halves(at), R::load_halves(at.add(R::LANES))];
                    for (totals, dots) in totals.iter_mut().zip(dots) {
                        for ((total, dot), scale) in totals.iter_mut().zip(dots).zip(scales) {
                            *total = R::mul_add(R::to_floats(dot), scale, *total);
                        }
                    }
                }
                for (row, (scores, totals)) in scores.iter_mut().zip(totals).enumerate() {
                    let scale = R::all(page.scale * queries[row * len]);
                    let at = scores.as_mut_ptr().add(start);
                    R::store(at, R::mul(totals[0], scale));
                    R::store(at.add(R::LANES), R::mul(totals[1], scale));
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn sum_values<R: Registers, const ROWS: usize>(
        page: &Page<'_, Self>,
        weights: &[[f32; PAGE]; ROWS],
        keep: &[f32; ROWS],
        sums: &mut [f32],
    ) {
        let dim = page.dim;
        let Sections {
            values,
            value_scales,
            ..
        } = Sections::of(page.part, dim);
        let columns = 2 * R::LANES;
        assert!(dim.is_multiple_of(BLOCK) && sums.len() == ROWS * dim && page.seen.end <= PAGE);
        assert!(values.len() == PAGE * dim && value_scales.len() == dim / BLOCK * PAGE * 2);
        assert!(BLOCK.is_multiple_of(columns));
        let pairs = page.seen.start / 2..page.seen.end.div_ceil(2);
        // SAFETY: by the contract of the trait.
        unsafe { page.fetch_next::<R>(2 * dim * PAGE..page.part.len()) }; // the scales
        for block in 0..dim / BLOCK {
            // SAFETY: by the contract of the trait. `value_scales` has `dim / BLOCK` rows of PAGE
            // half floats, `values` `dim / BLOCK` times PAGE / 2 rows of BLOCK pairs, and `sums` R
            // rows of `dim`.
            unsafe {
                let scales = scales::<R::Eight>(value_scales, block, page);
                let mut pair_codes = [[0.0f32; PAGE / 2]; ROWS];
                let mut units = [0.0f32; ROWS];
                for row in 0..ROWS {
                    let mut scaled = weights[row];
                    for (weight, scale) in scaled.iter_mut().zip(scales) {
                        *weight *= scale;
                    }
                    units[row] = quantize::<R::Eight>(&scaled, &mut pair_codes[row]);
                }
                for d in (0..BLOCK).step_by(columns) {
                    let at = (dim + block * BLOCK + d) * PAGE;
                    page.fetch_next::<R>(at..at + columns * PAGE);
                    let mut totals = [[R::int_zeros(); 2]; ROWS];
                    for pair in pairs.clone() {
                        let at = (block * (PAGE / 2) + pair) * BLOCK + d;
                        let at = values.as_ptr().add(at * 2);
                        let value = [R::load_pairs(at), R::load_pairs(at.add(2 * R::LANES))];
                        for (totals, weights) in totals.iter_mut().zip(&pair_codes) {
                            let weight = R::all_ints(pair_of(weights.get_unchecked(pair)));
                            totals[0] = R::add_pairs(weight, value[0], totals[0]);
                            totals[1] = R::add_pairs(weight, value[1], totals[1]);
                        }
                    }
                    for (row, totals) in totals.into_iter().enumerate() {
                        let (unit, keep) = (R::all(units[row]), R::all(keep[row]));
                        let at = sums.as_mut_ptr().add(row * dim + block * BLOCK + d);
                        for (i, total) in totals.into_iter().enumerate() {
                            let at = at.add(i * R::LANES);
                            let old = R::mul(R::load(at), keep);
                            R::store(at, R::mul_add(R::to_floats(total), unit, old));
                        }
                    }
                }
            }
        }
    }
}

/// Two codes of 16 bits that are kept as the bits of a float.
#[inline(always)]
fn pair_of(codes: &f32) -> i32 {
    codes.to_bits().cast_signed()
}

/// Rounds a whole number of 16 floats to 16 bits, in `out` two to a float, and gives back the scale:
/// NaN when one of them is not finite.
///
/// # Safety
/// Must become part of a function that has the features of `R`.
#[inline(always)]
unsafe fn quantize<R: Eight>(x: &[f32], out: &mut [f32]) -> f32 {
    assert!(x.len().is_multiple_of(16) && out.len() == x.len() / 2);
    // SAFETY: by the contract of this function; the chunks have eight and sixteen floats.
    unsafe {
        // Without their signs, the bits of floats are ordered as they are, and a NaN is the largest.
        let mut largest = R::int_zeros();
        for x in x.chunks_exact(8) {
            largest = R::max_ints(largest, R::bits(R::abs(R::load(x.as_ptr()))));
        }
        let largest = f32::from_bits(R::largest_int(largest).cast_unsigned());
        let inverse = R::all(if largest > TINY {
            LARGEST / largest
        } else {
            0.0
        });
        for (x, out) in x.chunks_exact(16).zip(out.chunks_exact_mut(8)) {
            let low = R::to_ints(R::mul(R::load(x.as_ptr()), inverse));
            let high = R::to_ints(R::mul(R::load(x.as_ptr().add(8)), inverse));
            R::store_shorts(out.as_mut_ptr().cast(), [low, high]);
        }
        if largest.is_finite() {
            largest / LARGEST
        } else {
            f32::NAN
        }
    }
}

/// The scales of a block of values; 0 for tokens that are not seen, whatever they were.
///
/// # Safety
/// Must become part of a function that has the features of `R`; `all` must have a row of PAGE half
/// floats for the block.
#[inline(always)]
unsafe fn scales<R: Eight>(all: &[u8], block: usize, page: &Page<'_, Q8>) -> [f32; PAGE] {
    let mut scales = [0.0; PAGE];
    for (i, scales) in scales.chunks_exact_mut(8).enumerate() {
        let at = (block * PAGE + 8 * i) * 2;
        debug_assert!(at + 16 <= all.len());
        // SAFETY: by the contract of this function; the chunk has eight floats.
        unsafe {
            let eight = R::load_halves(all.as_ptr().add(at).cast());
            R::store(scales.as_mut_ptr(), eight);
        }
    }
    if page.seen.len() < PAGE {
        scales[..page.seen.start].fill(0.0);
        scales[page.seen.end..].fill(0.0);
    }
    scales
}
