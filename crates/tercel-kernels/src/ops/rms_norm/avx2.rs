//! Eight numbers at a time, two sums to hide the latency of the addition.

use std::arch::x86_64::*;

use super::super::avx2_math::sum;

/// # Safety
/// Needs the named processor features.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn row(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    out.copy_from_slice(x);
    // SAFETY: the same features.
    unsafe { row_in_place(out, weight, eps) };
}

/// # Safety
/// Needs the named processor features.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn row_in_place(x: &mut [f32], weight: &[f32], eps: f32) {
    assert_eq!(x.len(), weight.len(), "a weight for every column");
    let mut sums = [_mm256_setzero_ps(); 2];
    let chunks = x.chunks_exact(8);
    let mut tail: f32 = chunks.remainder().iter().map(|x| x * x).sum();
    for (i, x) in chunks.enumerate() {
        // SAFETY: the chunk has eight floats.
        let x = unsafe { _mm256_loadu_ps(x.as_ptr()) };
        sums[i % 2] = _mm256_fmadd_ps(x, x, sums[i % 2]);
    }
    tail += sum(_mm256_add_ps(sums[0], sums[1]));
    let scale = 1.0 / (tail / x.len() as f32 + eps).sqrt();
    let wide = _mm256_set1_ps(scale);
    let mut x = x.chunks_exact_mut(8);
    let mut weight = weight.chunks_exact(8);
    for (x, weight) in (&mut x).zip(&mut weight) {
        // SAFETY: the chunks have eight floats each.
        unsafe {
            let product = _mm256_mul_ps(_mm256_loadu_ps(x.as_ptr()), wide);
            let product = _mm256_mul_ps(product, _mm256_loadu_ps(weight.as_ptr()));
            _mm256_storeu_ps(x.as_mut_ptr(), product);
        }
    }
    for (x, weight) in x.into_remainder().iter_mut().zip(weight.remainder()) {
        *x = *x * scale * weight;
    }
}
