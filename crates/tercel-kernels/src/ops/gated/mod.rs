//! Gated activation of a feed-forward layer: `gate = act(gate) * up` (Shazeer, 2020).

mod scalar;
mod vector;

use super::SharedMut;
use crate::dispatch::{dispatch, versions};
use crate::{Isa, Pool};

versions! {
    fn gated(activation: Activation, gate: &mut [f32], up: &[f32]);
}

/// Ranges of threads start at multiples of this, so that tails do not depend on their number.
const GRAIN: usize = 64;
/// Fewer grains than this are not worth another thread.
const MIN_GRAINS: usize = 32;

/// The function applied to the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x * sigmoid(x)`
    Silu,
    /// GELU by its tanh approximation, as Gemma uses it.
    GeluTanh,
}

/// Replaces `gate` by `activation(gate) * up`.
///
/// # Panics
/// When the lengths differ.
pub fn gated(pool: &mut Pool, isa: Isa, activation: Activation, gate: &mut [f32], up: &[f32]) {
    assert_eq!(gate.len(), up.len(), "gate and up");
    let len = gate.len();
    let gate = SharedMut::new(gate);
    let job = |_, grains: std::ops::Range<usize>| {
        let range = grains.start * GRAIN..len.min(grains.end * GRAIN);
        // SAFETY: ranges of grains are disjoint.
        let gate = unsafe { gate.slice(range.clone()) };
        dispatch!(isa, gated(activation, gate, &up[range]));
    };
    let grains = len.div_ceil(GRAIN);
    pool.run(grains, MIN_GRAINS, job);
}

#[cfg(test)]
mod tests {
    use super::super::random;
    use super::*;

    #[test]
    fn every_isa_is_near_the_definition() {
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let gelu = |x: f64| {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            0.5 * x * (1.0 + inner.tanh())
        };
        for isa in Isa::available() {
            for len in (0..40).chain([4096, 5003]) {
                for activation in [Activation::Silu, Activation::GeluTanh] {
                    let mut gate: Vec<f32> = random(1, len).iter().map(|x| x * 20.0).collect();
                    let (input, up) = (gate.clone(), random(2, len));
                    gated(&mut Pool::new(2).unwrap(), isa, activation, &mut gate, &up);
                    for ((x, up), got) in input.iter().zip(&up).zip(gate) {
                        let x = f64::from(*x);
                        let want = f64::from(*up)
                            * match activation {
                                Activation::Silu => x * sigmoid(x),
                                Activation::GeluTanh => gelu(x),
                            };
                        let error = (f64::from(got) - want).abs();
                        assert!(
                            error <= 2e-6 * (1.0 + want.abs()),
                            "{x}: {got}, want {want}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn extreme_gates_give_no_nan() {
        for isa in Isa::available() {
            for activation in [Activation::Silu, Activation::GeluTanh] {
                let mut gate = vec![-1e30, -200.0, -0.0, 200.0, 1e10, -1e4, 1e4, 3.0];
                gated(
                    &mut Pool::new(1).unwrap(),
                    isa,
                    activation,
                    &mut gate,
                    &[1.0; 8],
                );
                assert!(gate.iter().all(|x| x.is_finite()), "{gate:?}");
                assert_eq!(gate[3..5], [200.0, 1e10]);
            }
        }
    }
}
