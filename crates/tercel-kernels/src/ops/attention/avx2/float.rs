//! Floats are widened to single ones and multiplied as they are.

use std::arch::x86_64::*;

use super::super::PAGE;
use super::super::float::{Element, Float};
use super::{Page, Vectors};

impl<E: Element> Vectors for Float<E> {
    fn query_len(head_dim: usize) -> usize {
        head_dim
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn queries<'q>(q: &'q [f32], _head_dim: usize, _codes: &'q mut [f32]) -> &'q [f32] {
        q
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn scores<const H: usize>(
        page: &Page<'_, Self>,
        q: &[f32],
        scores: &mut [[f32; PAGE]; H],
    ) {
        let keys = &page.part[..page.dim * PAGE];
        assert!(q.len() == H * page.dim);
        let scale = _mm256_set1_ps(page.scale);
        for start in (0..PAGE).step_by(16) {
            if start >= page.seen.end || start + 16 <= page.seen.start {
                continue;
            }
            let mut dots = [[_mm256_setzero_ps(); 2]; H];
            for d in 0..page.dim {
                if d % 8 == 0 {
                    // Half of the keys for each sixteen tokens.
                    let at = (start / 16 * page.dim + d) * 16;
                    page.fetch_next(at..at + 8 * 16);
                }
                // SAFETY: `keys` has `dim` rows of PAGE, `q` has H rows of `dim`.
                unsafe {
                    let key = [
                        load(keys, d * PAGE + start),
                        load(keys, d * PAGE + start + 8),
                    ];
                    for (head, dots) in dots.iter_mut().enumerate() {
                        let q = _mm256_set1_ps(*q.get_unchecked(head * page.dim + d));
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

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn sum_values<const H: usize>(
        page: &Page<'_, Self>,
        weights: &[[f32; PAGE]; H],
        keep: &[f32; H],
        sums: &mut [f32],
    ) {
        let mut d = 0;
        while d < page.dim {
            if d + 16 <= page.dim {
                sum_columns::<E, H, 2>(page, d, weights, keep, sums);
                d += 16;
            } else {
                sum_columns::<E, H, 1>(page, d, weights, keep, sums);
                d += 8;
            }
        }
    }
}

/// The elements `d..d + 8 * W` of the sums.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn sum_columns<E: Element, const H: usize, const W: usize>(
    page: &Page<'_, Float<E>>,
    d: usize,
    weights: &[[f32; PAGE]; H],
    keep: &[f32; H],
    sums: &mut [f32],
) {
    let dim = page.dim;
    let values = &page.part[dim * PAGE..2 * dim * PAGE];
    page.fetch_next((dim + d) * PAGE..(dim + d + 8 * W) * PAGE);
    assert!(d + 8 * W <= dim && sums.len() == H * dim && page.seen.end <= PAGE);
    // SAFETY: all offsets are inside by the assertions.
    unsafe {
        let at = |head: usize, i: usize| head * dim + d + 8 * i;
        let mut totals: [[__m256; W]; H] = std::array::from_fn(|head| {
            std::array::from_fn(|i| {
                let old = _mm256_loadu_ps(sums.as_ptr().add(at(head, i)));
                _mm256_mul_ps(old, _mm256_set1_ps(keep[head]))
            })
        });
        for token in page.seen.clone() {
            let value: [__m256; W] = std::array::from_fn(|i| load(values, token * dim + d + 8 * i));
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
