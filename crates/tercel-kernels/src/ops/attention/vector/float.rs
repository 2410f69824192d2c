//! Floats are widened to single ones and multiplied as they are.

use super::super::PAGE;
use super::super::float::{Element, Float};
use super::{Numbers, Page};
use crate::ops::registers::Registers;

impl<E: Element> Numbers for Float<E> {
    fn query_len(head_dim: usize) -> usize {
        head_dim
    }

    #[inline(always)]
    unsafe fn queries<'q, R: Registers>(
        q: &'q [f32],
        _head_dim: usize,
        _codes: &'q mut [f32],
    ) -> &'q [f32] {
        q
    }

    #[inline(always)]
    unsafe fn scores<R: Registers, const ROWS: usize>(
        page: &Page<'_, Self>,
        q: &[f32],
        scores: &mut [[f32; PAGE]; ROWS],
    ) {
        let keys = &page.part[..page.dim * PAGE];
        let tokens = 2 * R::LANES;
        assert!(q.len() == ROWS * page.dim && PAGE.is_multiple_of(tokens));
        for start in (0..PAGE).step_by(tokens) {
            if start >= page.seen.end || start + tokens <= page.seen.start {
                continue;
            }
            // SAFETY: by the contract of the trait. `keys` has `dim` rows of PAGE, `q` has ROWS rows of
            // `dim`, and each of the scores has room for PAGE.
            unsafe {
                let mut dots = [[R::zeros(); 2]; ROWS];
                for d in 0..page.dim {
                    if d % 8 == 0 {
                        // A share of the keys for each step of tokens.
                        let at = (start / tokens * page.dim + d) * tokens;
                        page.fetch_next::<R>(at..at + 8 * tokens);
                    }
                    let at = keys.as_ptr().add(d * PAGE + start);
                    let key = [E::load::<R>(at), E::load::<R>(at.add(R::LANES))];
                    for (row, dots) in dots.iter_mut().enumerate() {
                        let q = R::all(*q.get_unchecked(row * page.dim + d));
                        dots[0] = R::mul_add(q, key[0], dots[0]);
                        dots[1] = R::mul_add(q, key[1], dots[1]);
                    }
                }
                let scale = R::all(page.scale);
                for (scores, dots) in scores.iter_mut().zip(dots) {
                    let at = scores.as_mut_ptr().add(start);
                    R::store(at, R::mul(dots[0], scale));
                    R::store(at.add(R::LANES), R::mul(dots[1], scale));
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
        let mut d = 0;
        // SAFETY: by the contract of the trait.
        unsafe {
            while d + 2 * R::LANES <= page.dim {
                sum_columns::<R, E, ROWS, 2>(page, d, weights, keep, sums);
                d += 2 * R::LANES;
            }
            if d < page.dim {
                sum_columns::<R, E, ROWS, 1>(page, d, weights, keep, sums);
            }
        }
    }
}

/// The elements `d..d + N * R::LANES` of the sums.
///
/// # Safety
/// As the trait.
#[inline(always)]
unsafe fn sum_columns<R: Registers, E: Element, const ROWS: usize, const N: usize>(
    page: &Page<'_, Float<E>>,
    d: usize,
    weights: &[[f32; PAGE]; ROWS],
    keep: &[f32; ROWS],
    sums: &mut [f32],
) {
    let dim = page.dim;
    let columns = N * R::LANES;
    let values = &page.part[dim * PAGE..2 * dim * PAGE];
    assert!(d + columns <= dim && sums.len() == ROWS * dim && page.seen.end <= PAGE);
    // SAFETY: by the contract of this function; all offsets are inside by the assertion.
    unsafe {
        let mut totals = [[R::zeros(); N]; ROWS];
        for (row, totals) in totals.iter_mut().enumerate() {
            let at = sums.as_ptr().add(row * dim + d);
            for (i, total) in totals.iter_mut().enumerate() {
                *total = R::mul(R::load(at.add(i * R::LANES)), R::all(keep[row]));
            }
        }
        for token in page.seen.clone() {
            let at = (dim + d) * PAGE + token * columns;
            page.fetch_next::<R>(at..at + columns);
            let mut value = [R::zeros(); N];
            for (i, value) in value.iter_mut().enumerate() {
                *value = E::load::<R>(values.as_ptr().add(token * dim + d + i * R::LANES));
            }
            for (totals, weights) in totals.iter_mut().zip(weights) {
                let weight = R::all(*weights.get_unchecked(token));
                for (total, value) in totals.iter_mut().zip(value) {
                    *total = R::mul_add(weight, value, *total);
                }
            }
        }
        for (row, totals) in totals.into_iter().enumerate() {
            let at = sums.as_mut_ptr().add(row * dim + d);
            for (i, total) in totals.into_iter().enumerate() {
                R::store(at.add(i * R::LANES), total);
            }
        }
    }
}
