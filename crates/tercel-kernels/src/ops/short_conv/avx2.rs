//! Eight channels at a time; a tail is padded, so that a channel's place does not change its bits.

use std::arch::x86_64::*;

use super::super::avx2_math::exp;
use super::{BLOCK, MAX_TAPS};

/// # Safety
/// Needs the named processor features.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn row(before: &[&[f32]], weights: &[[f32; BLOCK]], x: &mut [f32]) {
    let taps = before.len() + 1;
    assert!(taps == weights.len() && taps <= MAX_TAPS && x.len() <= BLOCK);
    assert!(before.iter().all(|row| row.len() == x.len()));
    let whole = x.len() / 8 * 8;
    let mut sums = [_mm256_setzero_ps(); BLOCK / 8];
    for (row, weights) in before.iter().zip(weights) {
        for (sum, lane) in sums.iter_mut().zip((0..whole).step_by(8)) {
            // SAFETY: `lane + 8` is inside the row, and the weights are as wide.
            unsafe {
                let input = _mm256_loadu_ps(row.as_ptr().add(lane));
                let weight = _mm256_loadu_ps(weights.as_ptr().add(lane));
                *sum = _mm256_fmadd_ps(input, weight, *sum);
            }
        }
    }
    for (sum, lane) in sums.iter().zip((0..whole).step_by(8)) {
        // SAFETY: `lane + 8` is inside the row, and the weights are as wide.
        unsafe {
            let x = x.as_mut_ptr().add(lane);
            let weight = _mm256_loadu_ps(weights[taps - 1].as_ptr().add(lane));
            let sum = _mm256_fmadd_ps(_mm256_loadu_ps(x), weight, *sum);
            _mm256_storeu_ps(x, silu(sum));
        }
    }
    if whole == x.len() {
        return;
    }
    let mut sum = _mm256_setzero_ps();
    let mut padded = [0.0; 8];
    let tail = x.len() - whole;
    for (tap, weights) in weights.iter().enumerate() {
        let row = before.get(tap).copied().unwrap_or(x);
        padded[..tail].copy_from_slice(&row[whole..]);
        // SAFETY: the array has eight floats; a tail begins at least eight before the block's end.
        unsafe {
            let weight = _mm256_loadu_ps(weights.as_ptr().add(whole));
            sum = _mm256_fmadd_ps(_mm256_loadu_ps(padded.as_ptr()), weight, sum);
        }
    }
    // SAFETY: the array has eight floats.
    unsafe { _mm256_storeu_ps(padded.as_mut_ptr(), silu(sum)) };
    x[whole..].copy_from_slice(&padded[..tail]);
}

/// `x * sigmoid(x)`
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn silu(x: __m256) -> __m256 {
    let power = exp(_mm256_sub_ps(_mm256_setzero_ps(), x));
    _mm256_div_ps(x, _mm256_add_ps(_mm256_set1_ps(1.0), power))
}
