//! Sixteen tokens (scores) or sixteen elements (sums) of up to four heads at a time: a page is
//! converted to single floats once for all query heads that share it.

use std::arch::x86_64::*;
use std::ops::Range;

use super::super::avx2_math::{exp, max, sum};
use super::{Element, PAGE, Span};

/// Query heads computed side by side.
const MAX_HEADS: usize = 4;

/// # Safety
/// Needs the named processor features; the head dimension must be a multiple of 8.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn attend<E: Element>(
    span: &Span<'_, E>,
    sums: &mut [f32],
    maximums: &mut [f32],
    totals: &mut [f32],
) {
    let dim = span.shape.head_dim;
    assert!(
        dim.is_multiple_of(8) && sums.len() == span.q.len(),
        "the reference takes other heads"
    );
    for (keys, values, seen) in span.pages() {
        let mut first = 0;
        while first < maximums.len() {
            let n = MAX_HEADS.min(maximums.len() - first);
            let range = first * dim..(first + n) * dim;
            let page = Page {
                keys,
                values,
                seen: seen.clone(),
                dim,
                scale: span.shape.scale,
            };
            let (q, sums) = (&span.q[range.clone()], &mut sums[range]);
            let (maximums, totals) = (&mut maximums[first..], &mut totals[first..]);
            match n {
                1 => page.add::<1>(q, sums, maximums, totals),
                2 => page.add::<2>(q, sums, maximums, totals),
                3 => page.add::<3>(q, sums, maximums, totals),
                _ => page.add::<MAX_HEADS>(q, sums, maximums, totals),
            }
            first += n;
        }
    }
}

struct Page<'a, E> {
    /// `(dim, PAGE)`
    keys: &'a [E],
    /// `(PAGE, dim)`
    values: &'a [E],
    seen: Range<usize>,
    dim: usize,
    scale: f32,
}

impl<E: Element> Page<'_, E> {
    /// Adds the page to the running softmax of `H` heads.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn add<const H: usize>(
        &self,
        q: &[f32],
        sums: &mut [f32],
        maximums: &mut [f32],
        totals: &mut [f32],
    ) {
        let mut weights = [[0.0f32; PAGE]; H];
        self.scores(q, &mut weights);
        let mut keep = [0.0f32; H];
        for (head, weights) in weights.iter_mut().enumerate() {
            keep[head] = softmax(weights, &self.seen, &mut maximums[head], &mut totals[head]);
        }
        let mut d = 0;
        while d < self.dim {
            if d + 16 <= self.dim {
                self.sum_values::<H, 2>(d, &weights, &keep, sums);
                d += 16;
            } else {
                self.sum_values::<H, 1>(d, &weights, &keep, sums);
                d += 8;
            }
        }
    }

    /// `scores[head][token]`, for all tokens of the page, seen or not.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn scores<const H: usize>(&self, q: &[f32], scores: &mut [[f32; PAGE]; H]) {
        assert!(q.len() == H * self.dim && self.keys.len() == self.dim * PAGE);
        let scale = _mm256_set1_ps(self.scale);
        for start in (0..PAGE).step_by(16) {
            if start >= self.seen.end || start + 16 <= self.seen.start {
                continue;
            }
            let mut dots = [[_mm256_setzero_ps(); 2]; H];
            for d in 0..self.dim {
                // SAFETY: `keys` has `dim` rows of PAGE, `q` has H rows of `dim`.
                unsafe {
                    let key = [
                        load(self.keys, d * PAGE + start),
                        load(self.keys, d * PAGE + start + 8),
                    ];
                    for (head, dots) in dots.iter_mut().enumerate() {
                        let q = _mm256_set1_ps(*q.get_unchecked(head * self.dim + d));
                        dots[0] = _mm256_fmadd_ps(q, key[0], dots[0]);
                        dots[1] = _mm256_fmadd_ps(q, key[1], dots[1]);
                    }
                }
            }
            for (scores, dots) in scores.iter_mut().zip(dots) {
                for (i, dot) in dots.into_iter().enumerate() {
                    // SAFETY: start + 16 <= PAGE.
                    unsafe {
                        let at = scores.as_mut_ptr().add(start + 8 * i);
                        _mm256_storeu_ps(at, _mm256_mul_ps(dot, scale));
                    };
                }
            }
        }
    }

    /// `sums[head][d..] = sums[head][d..] * keep[head] + sum over seen tokens of weight * value`.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn sum_values<const H: usize, const W: usize>(
        &self,
        d: usize,
        weights: &[[f32; PAGE]; H],
        keep: &[f32; H],
        sums: &mut [f32],
    ) {
        assert!(d + 8 * W <= self.dim && sums.len() == H * self.dim);
        assert!(self.values.len() == PAGE * self.dim && self.seen.end <= PAGE);
        // SAFETY: all offsets are inside by the assertions.
        unsafe {
            let at = |head: usize, i: usize| head * self.dim + d + 8 * i;
            let mut totals: [[__m256; W]; H] = std::array::from_fn(|head| {
                std::array::from_fn(|i| {
                    let old = _mm256_loadu_ps(sums.as_ptr().add(at(head, i)));
                    _mm256_mul_ps(old, _mm256_set1_ps(keep[head]))
                })
            });
            for token in self.seen.clone() {
                let value: [__m256; W] =
                    std::array::from_fn(|i| load(self.values, token * self.dim + d + 8 * i));
                for (totals, weights) in totals.iter_mut().zip(weights) {
                    let weight = _mm256_set1_ps(*weights.get_unchecked(token));
                    for (total, value) in totals.iter_mut().zip(value) {
                        *total = _mm256_fmadd_ps(weight, value, *total);
                    }
                }
            }
            for (head, totals) in totals.into_iter().enumerate() {
                for (i, total) in totals.into_iter().enumerate() {
                    _mm256_storeu_ps(sums.as_mut_ptr().add(at(head, i)), total);
                }
            }
        }
    }
}

/// Turns the scores of a page into weights relative to the new maximum, and gives back the factor
/// for what was summed before.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn softmax(
    scores: &mut [f32; PAGE],
    seen: &Range<usize>,
    maximum: &mut f32,
    total: &mut f32,
) -> f32 {
    scores[..seen.start].fill(f32::NEG_INFINITY);
    scores[seen.end..].fill(f32::NEG_INFINITY);
    let mut largest = _mm256_set1_ps(*maximum);
    for chunk in scores.chunks_exact(8) {
        // SAFETY: the chunk has eight floats.
        largest = _mm256_max_ps(unsafe { _mm256_loadu_ps(chunk.as_ptr()) }, largest);
    }
    let new = max(largest);
    let wide = _mm256_set1_ps(new);
    let mut sums = _mm256_setzero_ps();
    for chunk in scores.chunks_exact_mut(8) {
        // SAFETY: the chunk has eight floats.
        unsafe {
            let weight = exp(_mm256_sub_ps(_mm256_loadu_ps(chunk.as_ptr()), wide));
            sums = _mm256_add_ps(sums, weight);
            _mm256_storeu_ps(chunk.as_mut_ptr(), weight);
        }
    }
    let keep = (*maximum - new).exp();
    *maximum = new;
    *total = *total * keep + sum(sums);
    keep
}

/// Eight numbers at `at`.
///
/// # Safety
/// Needs the features; `at + 8` must be inside.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn load<E: Element>(numbers: &[E], at: usize) -> __m256 {
    debug_assert!(at + 8 <= numbers.len());
    // SAFETY: by the contract of this function.
    unsafe { E::load(numbers.as_ptr().add(at)) }
}
