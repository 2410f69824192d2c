//! The reference. Both activations have the form `x * sigmoid(s)`: with `s = x`, and with
//! `s = 2 * sqrt(2 / pi) * (x + 0.044715 * x^3)`, since `1 + tanh(y) = 2 * sigmoid(2 * y)`.

use super::Activation;

pub(super) const GELU_LINEAR: f32 = 1.595_769;
pub(super) const GELU_CUBIC: f32 = 0.071_354_816;

pub(super) fn gated(activation: Activation, gate: &mut [f32], up: &[f32]) {
    for (gate, up) in gate.iter_mut().zip(up) {
        *gate = activate(activation, *gate) * up;
    }
}

pub(super) fn activate(activation: Activation, x: f32) -> f32 {
    let s = match activation {
        Activation::Silu => x,
        Activation::GeluTanh => x * (GELU_LINEAR + GELU_CUBIC * x * x),
    };
    x / (1.0 + (-s).exp())
}
