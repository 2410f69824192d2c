//! Registers of eight floats, sixteen of them.

use std::arch::x86_64::*;

use super::super::super::avx2_math;
use super::super::{Partial, Span};
use super::{Numbers, Wide};

/// AVX2, FMA and F16C.
pub(super) enum Avx2 {}

/// # Safety
/// Needs the named processor features; the head dimension must be a multiple of 8.
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) unsafe fn attend_avx2<E: Numbers>(
    span: &Span<'_, E>,
    partial: &mut Partial<'_>,
    codes: &mut [f32],
) {
    // SAFETY: this function has the features.
    unsafe { super::attend::<Avx2, E>(span, partial, codes) }
}

impl Wide for Avx2 {
    const LANES: usize = 8;
    const ROWS: usize = 6;
    type Floats = __m256;
    type Ints = __m256i;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn zeros() -> __m256 {
        _mm256_setzero_ps()
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn all(x: f32) -> __m256 {
        _mm256_set1_ps(x)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load(at: *const f32) -> __m256 {
        // SAFETY: by the contract of the trait.
        unsafe { _mm256_loadu_ps(at) }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load_halves(at: *const u16) -> __m256 {
        // SAFETY: by the contract of the trait.
        _mm256_cvtph_ps(unsafe { _mm_loadu_si128(at.cast()) })
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn store(at: *mut f32, x: __m256) {
        // SAFETY: by the contract of the trait.
        unsafe { _mm256_storeu_ps(at, x) };
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn mul(a: __m256, b: __m256) -> __m256 {
        _mm256_mul_ps(a, b)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn mul_add(a: __m256, b: __m256, sum: __m256) -> __m256 {
        _mm256_fmadd_ps(a, b, sum)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn largest(x: &[f32], so_far: f32) -> f32 {
        let mut largest = _mm256_set1_ps(so_far);
        for x in x.chunks_exact(8) {
            // SAFETY: the chunk has eight floats.
            largest = _mm256_max_ps(unsafe { _mm256_loadu_ps(x.as_ptr()) }, largest);
        }
        avx2_math::max(largest)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn exp_below(x: &mut [f32], largest: f32) -> f32 {
        let largest = _mm256_set1_ps(largest);
        let mut sums = _mm256_setzero_ps();
        for x in x.chunks_exact_mut(8) {
            // SAFETY: the chunk has eight floats.
            unsafe {
                let below = _mm256_sub_ps(_mm256_loadu_ps(x.as_ptr()), largest);
                let power = avx2_math::exp(below);
                sums = _mm256_add_ps(sums, power);
                _mm256_storeu_ps(x.as_mut_ptr(), power);
            }
        }
        avx2_math::sum(sums)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn int_zeros() -> __m256i {
        _mm256_setzero_si256()
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn all_pairs(pair: f32) -> __m256i {
        _mm256_castps_si256(_mm256_set1_ps(pair))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load_codes(at: *const u8) -> __m256i {
        // SAFETY: by the contract of the trait.
        _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(at.cast()) })
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn add_pairs(a: __m256i, b: __m256i, sum: __m256i) -> __m256i {
        _mm256_add_epi32(sum, _mm256_madd_epi16(a, b))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn to_floats(x: __m256i) -> __m256 {
        _mm256_cvtepi32_ps(x)
    }
}
