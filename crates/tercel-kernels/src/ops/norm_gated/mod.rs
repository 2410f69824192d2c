//! Root-mean-square norm of each head, times SiLU of a gate, as the output of the gated delta rule
//! has it: `x = x / sqrt(mean(x^2) + eps) * weight * silu(gate)`. The norm comes before the gate
//! (transformers, `Qwen3_5RMSNormGated`).

mod scalar;
mod vector;

use std::ops::Range;

use super::SharedMut;
use crate::dispatch::{dispatch, versions};
use crate::{Isa, Pool};

versions! {
    fn row(x: &mut [f32], gate: &[f32], weight: &[f32], eps: f32);
}

/// Fewer numbers than this are not worth another thread.
const MIN_NUMBERS: usize = 4096;

/// Normalises each row of `weight.len()` numbers of `x` in place and multiplies it by
/// `silu(gate)`. `gate` has the shape of `x`.
///
/// # Panics
/// When `x` and `gate` differ in length or are no whole number of rows.
pub fn norm_gated(
    pool: &mut Pool,
    isa: Isa,
    x: &mut [f32],
    gate: &[f32],
    weight: &[f32],
    eps: f32,
) {
    let cols = weight.len();
    assert!(
        x.len() == gate.len() && x.len().is_multiple_of(cols),
        "{} numbers and {} gates in rows of {cols}",
        x.len(),
        gate.len()
    );
    let (len, x) = (x.len(), SharedMut::new(x));
    let job = |_, rows: Range<usize>| {
        for row in rows {
            let range = row * cols..(row + 1) * cols;
            // SAFETY: each row belongs to one range.
            let x = unsafe { x.slice(range.clone()) };
            dispatch!(isa, row(x, &gate[range], weight, eps));
        }
    };
    pool.run(
        len.checked_div(cols).unwrap_or(0),
        MIN_NUMBERS.div_ceil(cols.max(1)),
        job,
    );
}

#[cfg(test)]
mod tests {
    use super::super::random;
    use super::*;

    #[test]
    fn every_isa_is_near_the_definition_with_any_threads() {
        for isa in Isa::available() {
            for (rows, cols) in (1..40).map(|cols| (3, cols)).chain([(40, 128), (300, 64)]) {
                let x = random(1, rows * cols);
                let gate: Vec<f32> = random(2, x.len()).iter().map(|x| 10.0 * x).collect();
                let weight = random(3, cols);
                let run = |threads| {
                    let (mut pool, mut out) = (Pool::new(threads).unwrap(), x.clone());
                    norm_gated(&mut pool, isa, &mut out, &gate, &weight, 1e-6);
                    out
                };
                let got = run(1);
                assert_eq!(run(3), got);
                let rows = x.chunks(cols).zip(gate.chunks(cols)).zip(got.chunks(cols));
                for ((x, gate), got) in rows {
                    let squares: f64 = x.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
                    let scale = 1.0 / (squares / cols as f64 + 1e-6).sqrt();
                    for i in 0..cols {
                        let gate = f64::from(gate[i]);
                        let silu = gate / (1.0 + (-gate).exp());
                        let want = f64::from(x[i]) * scale * f64::from(weight[i]) * silu;
                        let error = (f64::from(got[i]) - want).abs();
                        assert!(error <= 2e-6 * (1.0 + want.abs()), "{} {want}", got[i]);
                    }
                }
            }
        }
    }

    #[test]
    fn a_row_of_zeros_and_extreme_gates_give_no_nan() {
        for isa in Isa::available() {
            let gate = [-1e30, -200.0, 0.0, 200.0, 1e10, -1e4, 1e4, 3.0, -90.0];
            for x in [[0.0; 9], [1.0; 9]] {
                let mut pool = Pool::new(1).unwrap();
                let mut out = x;
                norm_gated(&mut pool, isa, &mut out, &gate, &[1.0; 9], 1e-6);
                assert!(out.iter().all(|x| x.is_finite()), "{out:?}");
            }
        }
    }
}
