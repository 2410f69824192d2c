//! Registers of sixteen floats, 32 of them.

use std::arch::x86_64::*;

use super::super::super::avx2_math;
use super::super::{Partial, Span};
use super::{Numbers, Wide};

/// AVX-512 with VNNI.
pub(super) enum Avx512 {}

/// # Safety
/// Needs the named processor features; the head dimension must be a multiple of 16.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
pub(in super::super) unsafe fn attend_avx512<E: Numbers>(
    span: &Span<'_, E>,
    partial: &mut Partial<'_>,
    codes: &mut [f32],
) {
    // SAFETY: this function has the features.
    unsafe { super::attend::<Avx512, E>(span, partial, codes) }
}

impl Wide for Avx512 {
    const LANES: usize = 16;
    const ROWS: usize = 8;
    type Floats = __m512;
    type Ints = __m512i;

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn zeros() -> __m512 {
        _mm512_setzero_ps()
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn all(x: f32) -> __m512 {
        _mm512_set1_ps(x)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn load(at: *const f32) -> __m512 {
        // SAFETY: by the contract of the trait.
        unsafe { _mm512_loadu_ps(at) }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn load_halves(at: *const u16) -> __m512 {
        // SAFETY: by the contract of the trait.
        _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(at.cast()) })
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn store(at: *mut f32, x: __m512) {
        // SAFETY: by the contract of the trait.
        unsafe { _mm512_storeu_ps(at, x) };
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        _mm512_mul_ps(a, b)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn mul_add(a: __m512, b: __m512, sum: __m512) -> __m512 {
        _mm512_fmadd_ps(a, b, sum)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,avx512f")]
    unsafe fn largest(x: &[f32], so_far: f32) -> f32 {
        let mut largest = _mm512_set1_ps(so_far);
        for x in x.chunks_exact(16) {
            // SAFETY: the chunk has sixteen floats.
            largest = _mm512_max_ps(unsafe { _mm512_loadu_ps(x.as_ptr()) }, largest);
        }
        let (low, high) = halves(largest);
        avx2_math::max(_mm256_max_ps(low, high))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,avx512f")]
    unsafe fn exp_below(x: &mut [f32], largest: f32) -> f32 {
        let largest = _mm512_set1_ps(largest);
        // In the order of AVX2, so that a reply is the same on both.
        let mut sums = _mm256_setzero_ps();
        for x in x.chunks_exact_mut(16) {
            // SAFETY: the chunk has sixteen floats.
            unsafe {
                let power = exp(_mm512_sub_ps(_mm512_loadu_ps(x.as_ptr()), largest));
                let (low, high) = halves(power);
                sums = _mm256_add_ps(_mm256_add_ps(sums, low), high);
                _mm512_storeu_ps(x.as_mut_ptr(), power);
            }
        }
        avx2_math::sum(sums)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn int_zeros() -> __m512i {
        _mm512_setzero_si512()
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn all_pairs(pair: f32) -> __m512i {
        _mm512_castps_si512(_mm512_set1_ps(pair))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn load_codes(at: *const u8) -> __m512i {
        // SAFETY: by the contract of the trait.
        _mm512_cvtepi8_epi16(unsafe { _mm256_loadu_si256(at.cast()) })
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512vnni")]
    unsafe fn add_pairs(a: __m512i, b: __m512i, sum: __m512i) -> __m512i {
        _mm512_dpwssd_epi32(sum, a, b)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn to_floats(x: __m512i) -> __m512 {
        _mm512_cvtepi32_ps(x)
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn halves(x: __m512) -> (__m256, __m256) {
    let high = _mm512_extractf64x4_pd::<1>(_mm512_castps_pd(x));
    (_mm512_castps512_ps256(x), _mm256_castpd_ps(high))
}

/// `e^x` of sixteen floats of which none is above 0, by the steps of [`avx2_math::exp`]: the same
/// numbers.
#[inline]
#[target_feature(enable = "avx512f")]
fn exp(x: __m512) -> __m512 {
    let lowest = _mm512_set1_ps(-87.336_54);
    // Not less, rather than more: what is no number stays none.
    let normal = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x, lowest);
    // Of two operands the second is taken where one is no number.
    let clamped = _mm512_max_ps(lowest, x);
    let n = _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(
        _mm512_mul_ps(clamped, _mm512_set1_ps(std::f32::consts::LOG2_E)),
    );
    let r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693_359_4), clamped);
    let r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.121_944_4e-4), r);
    let mut p = _mm512_set1_ps(1.987_569_1e-4);
    for coefficient in [
        1.398_199_9e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        0.166_666_66,
        0.5,
    ] {
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(coefficient));
    }
    let one = _mm512_set1_ps(1.0);
    let p = _mm512_add_ps(_mm512_fmadd_ps(p, _mm512_mul_ps(r, r), r), one);
    _mm512_maskz_scalef_ps(normal, p, n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::dispatch::Kind;

    #[test]
    fn exp_is_that_of_avx2() {
        if !Isa::available().contains(&Isa(Kind::Avx512Vnni)) {
            return; // a processor without AVX-512 has nothing to check here
        }
        let mut x = -90.0f32;
        let special = [f32::NEG_INFINITY, -1e30, -0.0, 0.0, f32::NAN];
        while x < 0.0 {
            // SAFETY: AVX-512 was found.
            unsafe { compare(x) };
            x += 0.003_7;
        }
        for x in special {
            // SAFETY: AVX-512 was found.
            unsafe { compare(x) };
        }
    }

    #[target_feature(enable = "avx2,fma,f16c,avx512f")]
    unsafe fn compare(x: f32) {
        let (mut wide, mut narrow) = ([0.0f32; 16], [0.0f32; 8]);
        // SAFETY: the arrays have room for sixteen and eight floats.
        unsafe {
            _mm512_storeu_ps(wide.as_mut_ptr(), exp(_mm512_set1_ps(x)));
            let want = avx2_math::exp(_mm256_set1_ps(x));
            _mm256_storeu_ps(narrow.as_mut_ptr(), want);
        }
        assert!(
            wide[15].to_bits() == narrow[0].to_bits() || wide[15].is_nan() && x.is_nan(),
            "exp({x}): {} and {}",
            wide[15],
            narrow[0]
        );
    }
}
