//! AVX-512 with instructions for bytes and VNNI: 32 registers of sixteen lanes.

use std::arch::x86_64::*;

use super::{Avx2, Registers, with_features};

pub(crate) enum Avx512 {}

impl Registers for Avx512 {
    const LANES: usize = 16;
    const COUNT: usize = 32;
    type Eight = Avx2;
    type Floats = __m512;
    type Ints = __m512i;

    with_features! { "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni":
        unsafe fn zeros() -> __m512 {
            _mm512_setzero_ps()
        }

        unsafe fn all(x: f32) -> __m512 {
            _mm512_set1_ps(x)
        }

        unsafe fn load(at: *const f32) -> __m512 {
            // SAFETY: by the contract of the trait.
            unsafe { _mm512_loadu_ps(at) }
        }

        unsafe fn load_halves(at: *const u16) -> __m512 {
            // SAFETY: by the contract of the trait.
            _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(at.cast()) })
        }

        unsafe fn store(at: *mut f32, x: __m512) {
            // SAFETY: by the contract of the trait.
            unsafe { _mm512_storeu_ps(at, x) }
        }

        unsafe fn add(a: __m512, b: __m512) -> __m512 {
            _mm512_add_ps(a, b)
        }

        unsafe fn sub(a: __m512, b: __m512) -> __m512 {
            _mm512_sub_ps(a, b)
        }

        unsafe fn mul(a: __m512, b: __m512) -> __m512 {
            _mm512_mul_ps(a, b)
        }

        unsafe fn mul_add(a: __m512, b: __m512, sum: __m512) -> __m512 {
            _mm512_fmadd_ps(a, b, sum)
        }

        unsafe fn mul_sub(a: __m512, b: __m512, sum: __m512) -> __m512 {
            _mm512_fnmadd_ps(a, b, sum)
        }

        unsafe fn max(a: __m512, b: __m512) -> __m512 {
            _mm512_max_ps(a, b)
        }

        unsafe fn min(a: __m512, b: __m512) -> __m512 {
            _mm512_min_ps(a, b)
        }

        unsafe fn round(x: __m512) -> __m512 {
            _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x)
        }

        unsafe fn times_power_of_two(x: __m512, n: __m512) -> __m512 {
            _mm512_scalef_ps(x, n)
        }

        unsafe fn zero_below(x: __m512, y: __m512, bound: __m512) -> __m512 {
            // Not less, rather than more: what is no number stays none.
            _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_NLT_UQ>(y, bound), x)
        }

        unsafe fn largest(x: __m512) -> f32 {
            let (low, high) = halves(x);
            // SAFETY: the same features and more.
            unsafe { Avx2::largest(Avx2::max(low, high)) }
        }

        unsafe fn add_to_eight(sums: __m256, x: __m512) -> __m256 {
            let (low, high) = halves(x);
            _mm256_add_ps(_mm256_add_ps(sums, low), high)
        }

        unsafe fn int_zeros() -> __m512i {
            _mm512_setzero_si512()
        }

        unsafe fn all_ints(x: i32) -> __m512i {
            _mm512_set1_epi32(x)
        }

        unsafe fn all_bytes(x: i8) -> __m512i {
            _mm512_set1_epi8(x)
        }

        unsafe fn sub_ints(a: __m512i, b: __m512i) -> __m512i {
            _mm512_sub_epi32(a, b)
        }

        unsafe fn and(a: __m512i, b: __m512i) -> __m512i {
            _mm512_and_si512(a, b)
        }

        unsafe fn or(a: __m512i, b: __m512i) -> __m512i {
            _mm512_or_si512(a, b)
        }

        unsafe fn xor(a: __m512i, b: __m512i) -> __m512i {
            _mm512_xor_si512(a, b)
        }

        unsafe fn shift(x: __m512i, by: i32) -> __m512i {
            if by < 0 {
                _mm512_srl_epi16(x, _mm_cvtsi32_si128(-by))
            } else {
                _mm512_sll_epi16(x, _mm_cvtsi32_si128(by))
            }
        }

        unsafe fn look_up(table: &[i8; 16], index: __m512i) -> __m512i {
            // SAFETY: the table has sixteen bytes.
            let table = unsafe { _mm_loadu_si128(table.as_ptr().cast()) };
            _mm512_shuffle_epi8(_mm512_broadcast_i32x4(table), index)
        }

        unsafe fn to_floats(x: __m512i) -> __m512 {
            _mm512_cvtepi32_ps(x)
        }

        unsafe fn load_pairs(at: *const u8) -> __m512i {
            // SAFETY: by the contract of the trait.
            _mm512_cvtepi8_epi16(unsafe { _mm256_loadu_si256(at.cast()) })
        }

        unsafe fn add_pairs(a: __m512i, b: __m512i, sum: __m512i) -> __m512i {
            _mm512_dpwssd_epi32(sum, a, b)
        }

        unsafe fn prefetch(at: *const u8) {
            // Into the second cache: the first one waits for few lines at a time, and is too small.
            _mm_prefetch::<_MM_HINT_T1>(at.cast());
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn halves(x: __m512) -> (__m256, __m256) {
    let high = _mm512_extractf64x4_pd::<1>(_mm512_castps_pd(x));
    (_mm512_castps512_ps256(x), _mm256_castpd_ps(high))
}
