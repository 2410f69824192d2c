//! What the KV cache may be made of.

use half::f16;

use crate::Plain;

/// A number in the KV cache.
pub trait Element: Plain {
    /// The nearest number of this type.
    fn from_f32(x: f32) -> Self;

    /// The number as a single float.
    fn to_f32(self) -> f32;

    /// Eight consecutive numbers.
    ///
    /// # Safety
    /// Needs AVX2, FMA and F16C, and eight numbers behind `at`.
    #[cfg(target_arch = "x86_64")]
    unsafe fn load(at: *const Self) -> std::arch::x86_64::__m256;
}

/// Half floats, as their bits.
impl Element for u16 {
    fn from_f32(x: f32) -> Self {
        f16::from_f32(x).to_bits()
    }

    fn to_f32(self) -> f32 {
        f16::from_bits(self).to_f32()
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load(at: *const Self) -> std::arch::x86_64::__m256 {
        use std::arch::x86_64::{_mm_loadu_si128, _mm256_cvtph_ps};
        // SAFETY: by the contract of this function.
        _mm256_cvtph_ps(unsafe { _mm_loadu_si128(at.cast()) })
    }
}

/// Single floats: the reference for what rounding costs.
impl Element for f32 {
    fn from_f32(x: f32) -> Self {
        x
    }

    fn to_f32(self) -> f32 {
        self
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load(at: *const Self) -> std::arch::x86_64::__m256 {
        // SAFETY: by the contract of this function.
        unsafe { std::arch::x86_64::_mm256_loadu_ps(at) }
    }
}
