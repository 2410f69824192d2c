//! Root-mean-square norm: `out = x / sqrt(mean(x^2) + eps) * weight`, row by row
//! (Zhang and Sennrich, 2019).

mod scalar;
mod vector;

use super::SharedMut;
use crate::dispatch::{dispatch, versions};
use crate::{Isa, Pool};
pub(super) use vector::inverse_norm;

versions! {
    fn row(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]);
    fn row_in_place(x: &mut [f32], weight: &[f32], eps: f32);
}

/// Fewer numbers than this are not worth another thread.
const MIN_NUMBERS: usize = 8192;

/// Normalises each row of `weight.len()` numbers of `x` into `out`.
///
/// # Panics
/// When `x` and `out` differ in length or are no whole number of rows.
pub fn rms_norm(pool: &mut Pool, isa: Isa, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let cols = weight.len();
    assert!(
        x.len() == out.len() && x.len().is_multiple_of(cols),
        "{} rows of {cols}",
        x.len()
    );
    let (len, out) = (x.len(), SharedMut::new(out));
    let job = |_, rows: std::ops::Range<usize>| {
        for row in rows {
            let range = row * cols..(row + 1) * cols;
            // SAFETY: each row belongs to one range.
            let out = unsafe { out.slice(range.clone()) };
            dispatch!(isa, row(&x[range], weight, eps, out));
        }
    };
    pool.run(len / cols, MIN_NUMBERS.div_ceil(cols), job);
}

/// Normalises each row of `x` in place.
///
/// # Panics
/// When `x` is no whole number of rows.
pub fn rms_norm_in_place(pool: &mut Pool, isa: Isa, x: &mut [f32], weight: &[f32], eps: f32) {
    let cols = weight.len();
    assert!(x.len().is_multiple_of(cols), "{} rows of {cols}", x.len());
    let (len, x) = (x.len(), SharedMut::new(x));
    let job = |_, rows: std::ops::Range<usize>| {
        for row in rows {
            // SAFETY: each row belongs to one range.
            let x = unsafe { x.slice(row * cols..(row + 1) * cols) };
            dispatch!(isa, row_in_place(x, weight, eps));
        }
    };
    pool.run(len / cols, MIN_NUMBERS.div_ceil(cols), job);
}

#[cfg(test)]
mod tests {
    use super::super::random;
    use super::*;

    #[test]
    fn every_isa_is_near_the_reference_at_every_length() {
        for isa in Isa::available() {
            for cols in (1..40).chain([576, 640]) {
                let (x, weight) = (random(1, 3 * cols), random(2, cols));
                let mut out = vec![0.0; x.len()];
                rms_norm(&mut Pool::new(2).unwrap(), isa, &x, &weight, 1e-5, &mut out);
                for (x, out) in x.chunks(cols).zip(out.chunks(cols)) {
                    let squares: f64 = x.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
                    let scale = 1.0 / (squares / cols as f64 + 1e-5).sqrt();
                    for ((x, w), out) in x.iter().zip(&weight).zip(out) {
                        let want = f64::from(*x) * scale * f64::from(*w);
                        assert!((f64::from(*out) - want).abs() <= 2e-6 * (1.0 + want.abs()));
                    }
                }
                let mut in_place = x.clone();
                let pool = &mut Pool::new(1).unwrap();
                rms_norm_in_place(pool, isa, &mut in_place, &weight, 1e-5);
                assert_eq!(in_place, out, "{} {cols}", isa.name());
            }
        }
    }
}
