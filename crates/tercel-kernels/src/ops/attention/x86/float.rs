//! Floats are widened to single ones and multiplied as they are.

use super::super::PAGE;
use super::super::float::{Element, Float};
use super::{Numbers, Page, Wide};

impl<E: Element> Numbers for Float<E> {
    fn query_len(head_dim: usize) -> usize {
        head_dim
    }

    #[inline(always)]
    unsafe fn queries<'q>(q: &'q [f32], _head_dim: usize, _codes: &'q mut [f32]) -> &'q [f32] {
        q
    }

    #[inline(always)]
    unsafe fn scores<W: Wide, const R: usize>(
        page: &Page<'_, Self>,
        q: &[f32],
        scores: &mut [[f32; PAGE]; R],
    ) {
        let keys = &page.part[..page.dim * PAGE];
        let tokens = 2 * W::LANES;
        assert!(q.len() == R * page.dim && PAGE.is_multiple_of(tokens));
        for start in (0..PAGE).step_by(tokens) {
            if start >= page.seen.end || start + tokens <= page.seen.start {
                continue;
            }
            // SAFETY: by the contract of the trait. `keys` has `dim` rows of PAGE, `q` has R rows of
            // `dim`, and each of the scores has room for PAGE.
            unsafe {
                let mut dots = [[W::zeros(); 2]; R];
                for d in 0..page.dim {
                    if d % 8 == 0 {
                        // A share of the keys for each step of tokens.
                        let at = (start / tokens * page.dim + d) * tokens;
                        page.fetch_next(at..at + 8 * tokens);
                    }
                    let at = keys.as_ptr().add(d * PAGE + start);
                    let key = [E::load::<W>(at), E::load::<W>(at.add(W::LANES))];
                    for (row, dots) in dots.iter_mut().enumerate() {
                        let q = W::all(*q.get_unchecked(row * page.dim + d));
                        dots[0] = W::mul_add(q, key[0], dots[0]);
                        dots[1] = W::mul_add(q, key[1], dots[1]);
                    }
                }
                let scale = W::all(page.scale);
                for (scores, dots) in scores.iter_mut().zip(dots) {
                    let at = scores.as_mut_ptr().add(start);
                    W::store(at, W::mul(dots[0], scale));
                    W::store(at.add(W::LANES), W::mul(dots[1], scale));
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
        let mut d = 0;
        // SAFETY: by the contract of the trait.
        unsafe {
            while d + 2 * W::LANES <= page.dim {
                sum_columns::<W, E, R, 2>(page, d, weights, keep, sums);
                d += 2 * W::LANES;
            }
            if d < page.dim {
                sum_columns::<W, E, R, 1>(page, d, weights, keep, sums);
            }
        }
    }
}

/// The elements `d..d + N * W::LANES` of the sums.
///
/// # Safety
/// As the trait.
#[inline(always)]
unsafe fn sum_columns<W: Wide, E: Element, const R: usize, const N: usize>(
    page: &Page<'_, Float<E>>,
    d: usize,
    weights: &[[f32; PAGE]; R],
    keep: &[f32; R],
    sums: &mut [f32],
) {
    let dim = page.dim;
    let columns = N * W::LANES;
    let values = &page.part[dim * PAGE..2 * dim * PAGE];
    page.fetch_next((dim + d) * PAGE..(dim + d + columns) * PAGE);
    assert!(d + columns <= dim && sums.len() == R * dim && page.seen.end <= PAGE);
    // SAFETY: by the contract of this function; all offsets are inside by the assertion.
    unsafe {
        let mut totals = [[W::zeros(); N]; R];
        for (row, totals) in totals.iter_mut().enumerate() {
            let at = sums.as_ptr().add(row * dim + d);
            for (i, total) in totals.iter_mut().enumerate() {
                *total = W::mul(W::load(at.add(i * W::LANES)), W::all(keep[row]));
            }
        }
        for token in page.seen.clone() {
            let mut value = [W::zeros(); N];
            for (i, value) in value.iter_mut().enumerate() {
                *value = E::load::<W>(values.as_ptr().add(token * dim + d + i * W::LANES));
            }
            for (totals, weights) in totals.iter_mut().zip(weights) {
                let weight = W::all(*weights.get_unchecked(token));
                for (total, value) in totals.iter_mut().zip(value) {
                    *total = W::mul_add(weight, value, *total);
                }
            }
        }
        for (row, totals) in totals.into_iter().enumerate() {
            let at = sums.as_mut_ptr().add(row * dim + d);
            for (i, total) in totals.into_iter().enumerate() {
                W::store(at.add(i * W::LANES), total);
            }
        }
    }
}
