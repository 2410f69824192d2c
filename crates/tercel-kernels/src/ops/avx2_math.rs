//! Float functions that several AVX2 kernels need.

use std::arch::x86_64::*;

/// `e^x` of eight floats, within 2 ULP for results that are normal numbers; smaller ones are 0.
///
/// Range reduction to `|r| <= ln(2) / 2` and the polynomial of Cephes' `expf`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn exp(x: __m256) -> __m256 {
    let lowest = _mm256_set1_ps(-87.336_54);
    let highest = _mm256_set1_ps(88.722_83);
    let clamped = _mm256_min_ps(_mm256_max_ps(x, lowest), highest);
    let n = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(_mm256_mul_ps(
        clamped,
        _mm256_set1_ps(std::f32::consts::LOG2_E),
    ));
    // ln(2) in two pieces, so that the product with n loses nothing.
    let r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693_359_4), clamped);
    let r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.121_944_4e-4), r);
    let mut p = _mm256_set1_ps(1.987_569_1e-4);
    for coefficient in [
        1.398_199_9e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        0.166_666_66,
        0.5,
    ] {
        p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(coefficient));
    }
    let one = _mm256_set1_ps(1.0);
    let p = _mm256_add_ps(_mm256_fmadd_ps(p, _mm256_mul_ps(r, r), r), one);
    // 2^n in two factors: n may be 128, whose power is no float.
    let n = _mm256_cvtps_epi32(n);
    let half = _mm256_srai_epi32::<1>(n);
    let result = _mm256_mul_ps(
        _mm256_mul_ps(p, power_of_two(half)),
        power_of_two(_mm256_sub_epi32(n, half)),
    );
    let result = _mm256_blendv_ps(
        result,
        _mm256_setzero_ps(),
        _mm256_cmp_ps::<_CMP_LT_OQ>(x, lowest),
    );
    let infinity = _mm256_set1_ps(f32::INFINITY);
    let result = _mm256_blendv_ps(result, infinity, _mm256_cmp_ps::<_CMP_GT_OQ>(x, highest));
    _mm256_blendv_ps(result, x, _mm256_cmp_ps::<_CMP_UNORD_Q>(x, x))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn power_of_two(n: __m256i) -> __m256 {
    let bits = _mm256_slli_epi32::<23>(_mm256_add_epi32(n, _mm256_set1_epi32(127)));
    _mm256_castsi256_ps(bits)
}

/// The sum of eight lanes: halves first, then quarters.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn sum(x: __m256) -> f32 {
    let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
    let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    _mm_cvtss_f32(_mm_add_ss(x, _mm_shuffle_ps::<1>(x, x)))
}

/// The largest of eight lanes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn max(x: __m256) -> f32 {
    let x = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
    let x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    _mm_cvtss_f32(_mm_max_ss(x, _mm_shuffle_ps::<1>(x, x)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    #[test]
    fn exp_is_within_two_ulp() {
        if Isa::available().len() < 2 {
            return; // a processor without AVX2 has nothing to check here
        }
        let mut x = -87.3f32;
        while x < 88.7 {
            let mut out = [0.0f32; 8];
            // SAFETY: AVX2 was found; `out` has room for eight floats.
            unsafe { eight(x, &mut out) };
            let want = f64::from(x).exp() as f32;
            let ulps = (i64::from(out[3].to_bits()) - i64::from(want.to_bits())).abs();
            assert!(ulps <= 2, "exp({x}) = {}, want {want}", out[3]);
            x += 0.003_7;
        }
        for (x, want) in [
            (f32::NEG_INFINITY, 0.0),
            (-1e9, 0.0),
            (0.0, 1.0),
            (1e9, f32::INFINITY),
        ] {
            let mut out = [0.0f32; 8];
            // SAFETY: as above.
            unsafe { eight(x, &mut out) };
            assert_eq!(out, [want; 8], "exp({x})");
        }
        let mut out = [0.0f32; 8];
        // SAFETY: as above.
        unsafe { eight(f32::NAN, &mut out) };
        assert!(out.iter().all(|x| x.is_nan()));
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn eight(x: f32, out: &mut [f32; 8]) {
        // SAFETY: `out` has room for eight floats.
        unsafe { _mm256_storeu_ps(out.as_mut_ptr(), exp(_mm256_set1_ps(x))) };
    }
}
