//! Operations number by number and row by row, mostly left to the compiler's own vectorisation.

use std::ops::Range;

use super::SharedMut;
use crate::dispatch::{dispatch, versions};
use crate::{Isa, Pool};

/// Fewer numbers than this are not worth another thread.
const MIN_NUMBERS: usize = 32768;
/// Fewer sigmoids than this are not worth another thread.
const MIN_SIGMOIDS: usize = 2048;
/// Ranges of threads start at multiples of this, so that tails do not depend on their number.
const GRAIN: usize = 64;

/// `x += y`.
///
/// # Panics
/// When the lengths differ.
pub fn add(x: &mut [f32], y: &[f32]) {
    assert_eq!(x.len(), y.len(), "both sides of an addition");
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

/// `x *= factor`.
pub fn scale(x: &mut [f32], factor: f32) {
    for x in x {
        *x *= factor;
    }
}

/// Adds `bias` to each row of `bias.len()` numbers of `x`.
///
/// # Panics
/// When `x` is no whole number of rows.
pub fn add_row(pool: &mut Pool, x: &mut [f32], bias: &[f32]) {
    for_rows(pool, x, bias.len(), |_, row| add(row, bias));
}

/// Adds to each row of `x` the same row of `y` times its factor. `x` and `y` are `(n, cols)`,
/// `factors` is `(n)`.
///
/// # Panics
/// When the lengths do not fit.
pub fn add_scaled_rows(pool: &mut Pool, x: &mut [f32], y: &[f32], factors: &[f32]) {
    assert_eq!(x.len(), y.len(), "both sides of an addition");
    if factors.is_empty() {
        assert!(x.is_empty(), "a factor for every row");
        return;
    }
    let cols = x.len() / factors.len();
    assert_eq!(x.len(), cols * factors.len(), "a factor for every row");
    for_rows(pool, x, cols, |row, x| {
        for (x, y) in x.iter_mut().zip(&y[row * cols..(row + 1) * cols]) {
            *x += factors[row] * y;
        }
    });
}

/// `x *= sigmoid(gate)`.
///
/// # Panics
/// When the lengths differ.
pub fn mul_sigmoid(pool: &mut Pool, isa: Isa, x: &mut [f32], gate: &[f32]) {
    assert_eq!(x.len(), gate.len(), "a gate for every number");
    let (len, x) = (x.len(), SharedMut::new(x));
    let job = |_, grains: Range<usize>| {
        let range = grains.start * GRAIN..len.min(grains.end * GRAIN);
        // SAFETY: ranges of grains are disjoint.
        let x = unsafe { x.slice(range.clone()) };
        dispatch!(isa, mul_sigmoid(x, &gate[range]));
    };
    pool.run(len.div_ceil(GRAIN), MIN_SIGMOIDS / GRAIN, job);
}

/// Parts each head of `2 * dim` numbers into its first half and its second: a query and its gate.
///
/// `x` is `(n, heads, 2 * dim)`, `first` and `second` are `(n, heads, dim)`.
///
/// # Panics
/// When the lengths do not fit.
pub fn deinterleave_heads(
    pool: &mut Pool,
    x: &[f32],
    dim: usize,
    first: &mut [f32],
    second: &mut [f32],
) {
    assert!(
        first.len() == second.len() && x.len() == 2 * first.len(),
        "{} numbers into {} and {}",
        x.len(),
        first.len(),
        second.len()
    );
    for (half, out) in [first, second].into_iter().enumerate() {
        for_rows(pool, out, dim, |head, out| {
            let at = (2 * head + half) * dim;
            out.copy_from_slice(&x[at..at + dim]);
        });
    }
}

/// Calls `work` with the number and the contents of each row of `cols` numbers.
fn for_rows(pool: &mut Pool, x: &mut [f32], cols: usize, work: impl Fn(usize, &mut [f32]) + Sync) {
    assert!(
        x.is_empty() || (cols > 0 && x.len().is_multiple_of(cols)),
        "{} numbers in rows of {cols}",
        x.len()
    );
    let n = x.len().checked_div(cols).unwrap_or(0);
    let x = SharedMut::new(x);
    let job = |_, rows: Range<usize>| {
        for row in rows {
            // SAFETY: each row belongs to one range.
            work(row, unsafe { x.slice(row * cols..(row + 1) * cols) });
        }
    };
    pool.run(n, MIN_NUMBERS.div_ceil(cols.max(1)), job);
}

mod scalar {
    //! The reference of what the compiler does not vectorise.

    pub(super) fn mul_sigmoid(x: &mut [f32], gate: &[f32]) {
        for (x, gate) in x.iter_mut().zip(gate) {
            *x /= 1.0 + (-gate).exp();
        }
    }
}

mod vector {
    use crate::ops::registers::{Each, Eight, for_each, gated_by_sigmoid};

    /// # Safety
    /// Must become part of a function that has the features of `R`.
    #[inline(always)]
    pub(super) unsafe fn mul_sigmoid<R: Eight>(x: &mut [f32], gate: &[f32]) {
        // SAFETY: by the contract of this function.
        unsafe { for_each::<R, 1>(&Sigmoid, x, [gate]) }
    }

    struct Sigmoid;

    impl Each<1> for Sigmoid {
        #[inline(always)]
        unsafe fn of<R: Eight>(&self, x: R::Floats, [gate]: [R::Floats; 1]) -> R::Floats {
            // SAFETY: by the contract of the trait.
            unsafe { gated_by_sigmoid::<R>(x, gate) }
        }
    }
}

versions! {
    fn mul_sigmoid(x: &mut [f32], gate: &[f32]);
}

#[cfg(test)]
mod tests {
    use super::super::random;
    use super::*;

    #[test]
    fn they_do_what_they_say() {
        let mut x = vec![1.0, 2.0, 3.0, 4.0];
        add(&mut x, &[1.0; 4]);
        scale(&mut x, 0.5);
        assert_eq!(x, [1.0, 1.5, 2.0, 2.5]);
    }

    #[test]
    fn rows_are_added_with_any_threads() {
        for (n, cols) in [(1, 1), (3, 5), (0, 4), (70, 1000)] {
            let (x, y) = (random(1, n * cols), random(2, n * cols));
            let (bias, factors) = (random(3, cols), random(4, n));
            for threads in [1, 3] {
                let mut pool = Pool::new(threads).unwrap();
                let (mut biased, mut scaled) = (x.clone(), x.clone());
                add_row(&mut pool, &mut biased, &bias);
                add_scaled_rows(&mut pool, &mut scaled, &y, &factors);
                for i in 0..x.len() {
                    assert_eq!(biased[i], x[i] + bias[i % cols]);
                    assert_eq!(scaled[i], x[i] + factors[i / cols] * y[i]);
                }
            }
        }
    }

    #[test]
    fn halves_of_heads_are_parted() {
        for (heads, dim) in [(0, 3), (1, 1), (6, 5), (300, 256)] {
            let x = random(1, heads * 2 * dim);
            let (mut first, mut second) = (vec![0.0; heads * dim], vec![0.0; heads * dim]);
            let mut pool = Pool::new(3).unwrap();
            deinterleave_heads(&mut pool, &x, dim, &mut first, &mut second);
            for (i, (first, second)) in first.iter().zip(&second).enumerate() {
                let at = i / dim * 2 * dim + i % dim;
                assert_eq!((*first, *second), (x[at], x[at + dim]));
            }
        }
    }

    #[test]
    fn sigmoid_is_near_the_definition_on_every_isa() {
        for isa in Isa::available() {
            for len in (0..40).chain([5003, 9000]) {
                let x = random(1, len);
                let gate: Vec<f32> = random(2, len).iter().map(|x| 20.0 * x).collect();
                let run = |threads| {
                    let (mut pool, mut out) = (Pool::new(threads).unwrap(), x.clone());
                    mul_sigmoid(&mut pool, isa, &mut out, &gate);
                    out
                };
                let got = run(1);
                assert_eq!(run(3), got);
                for ((x, gate), got) in x.iter().zip(&gate).zip(got) {
                    let want = f64::from(*x) / (1.0 + (-f64::from(*gate)).exp());
                    // Two roundings and the exponential's own error.
                    assert!((f64::from(got) - want).abs() <= 1e-6 * want.abs());
                }
            }
            let (mut x, mut pool) = ([1.0; 4], Pool::new(1).unwrap());
            let gate = [-1e30, 1e30, -100.0, f32::INFINITY];
            mul_sigmoid(&mut pool, isa, &mut x, &gate);
            assert_eq!((x[0], x[1], x[3]), (0.0, 1.0, 1.0));
            assert!((0.0..1e-30).contains(&x[2]));
        }
    }
}
