//! Eight numbers at a time, two sums to hide the latency of the addition; a tail is padded.

use std::arch::x86_64::*;

use super::super::avx2_math::{exp, sum};

/// # Safety
/// Needs the named processor features.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn row(x: &mut [f32], gate: &[f32], weight: &[f32], eps: f32) {
    assert!(x.len() == gate.len() && x.len() == weight.len());
    let mut sums = [_mm256_setzero_ps(); 2];
    let chunks = x.chunks_exact(8);
    let mut squares: f32 = chunks.remainder().iter().map(|x| x * x).sum();
    for (i, x) in chunks.enumerate() {
        // SAFETY: the chunk has eight floats.
        let x = unsafe { _mm256_loadu_ps(x.as_ptr()) };
        sums[i % 2] = _mm256_fmadd_ps(x, x, sums[i % 2]);
    }
    squares += sum(_mm256_add_ps(sums[0], sums[1]));
    let scale = 1.0 / (squares / x.len() as f32 + eps).sqrt();
    let mut chunks = x.chunks_exact_mut(8);
    let mut gates = gate.chunks_exact(8);
    let mut weights = weight.chunks_exact(8);
    for ((x, gate), weight) in (&mut chunks).zip(&mut gates).zip(&mut weights) {
        // SAFETY: the chunks have eight floats each.
        unsafe { eight(x.as_mut_ptr(), gate.as_ptr(), weight.as_ptr(), scale) };
    }
    let tail = chunks.into_remainder();
    let mut padded = [[0.0; 8]; 3];
    padded[0][..tail.len()].copy_from_slice(tail);
    padded[1][..tail.len()].copy_from_slice(gates.remainder());
    padded[2][..tail.len()].copy_from_slice(weights.remainder());
    let [x, gate, weight] = &mut padded;
    // SAFETY: the arrays have eight floats each.
    unsafe { eight(x.as_mut_ptr(), gate.as_ptr(), weight.as_ptr(), scale) };
    tail.copy_from_slice(&x[..tail.len()]);
}

/// # Safety
/// Needs the features, and eight floats behind each pointer.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn eight(x: *mut f32, gate: *const f32, weight: *const f32, scale: f32) {
    // SAFETY: by the contract of this function.
    unsafe {
        let normal = _mm256_mul_ps(_mm256_loadu_ps(x), _mm256_set1_ps(scale));
        let normal = _mm256_mul_ps(normal, _mm256_loadu_ps(weight));
        let gate = _mm256_loadu_ps(gate);
        let power = exp(_mm256_sub_ps(_mm256_setzero_ps(), gate));
        let silu = _mm256_div_ps(gate, _mm256_add_ps(_mm256_set1_ps(1.0), power));
        _mm256_storeu_ps(x, _mm256_mul_ps(normal, silu));
    }
}
