//! Eight numbers at a time; a tail is padded, so that a number's place does not change its bits.

use std::arch::x86_64::*;

use super::super::avx2_math::exp;
use super::Activation;
use super::scalar::{GELU_CUBIC, GELU_LINEAR};

/// # Safety
/// Needs the named processor features.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn gated(activation: Activation, gate: &mut [f32], up: &[f32]) {
    let mut gates = gate.chunks_exact_mut(8);
    let mut ups = up.chunks_exact(8);
    for (gate, up) in (&mut gates).zip(&mut ups) {
        // SAFETY: the chunks have eight floats each.
        unsafe { eight(activation, gate.as_mut_ptr(), up.as_ptr()) };
    }
    let (gate, up) = (gates.into_remainder(), ups.remainder());
    let (mut padded_gate, mut padded_up) = ([0.0; 8], [0.0; 8]);
    padded_gate[..gate.len()].copy_from_slice(gate);
    padded_up[..up.len()].copy_from_slice(up);
    // SAFETY: the arrays have eight floats each.
    unsafe { eight(activation, padded_gate.as_mut_ptr(), padded_up.as_ptr()) };
    gate.copy_from_slice(&padded_gate[..gate.len()]);
}

/// # Safety
/// Needs the features, and eight floats behind both pointers.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn eight(activation: Activation, gate: *mut f32, up: *const f32) {
    // SAFETY: by the contract of this function.
    let (x, up) = unsafe { (_mm256_loadu_ps(gate), _mm256_loadu_ps(up)) };
    let s = match activation {
        Activation::Silu => x,
        Activation::GeluTanh => {
            let cubic = _mm256_mul_ps(_mm256_set1_ps(GELU_CUBIC), x);
            let inner = _mm256_fmadd_ps(cubic, x, _mm256_set1_ps(GELU_LINEAR));
            _mm256_mul_ps(x, inner)
        }
    };
    let denominator = _mm256_add_ps(
        _mm256_set1_ps(1.0),
        exp(_mm256_sub_ps(_mm256_setzero_ps(), s)),
    );
    let result = _mm256_mul_ps(_mm256_div_ps(x, denominator), up);
    // SAFETY: by the contract of this function.
    unsafe { _mm256_storeu_ps(gate, result) };
}
