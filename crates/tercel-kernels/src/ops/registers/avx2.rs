//! AVX2, FMA and F16C: sixteen registers.

use std::arch::x86_64::*;

use super::{Eight, Registers, with_features};

pub(crate) enum Avx2 {}

impl Registers for Avx2 {
    const LANES: usize = 8;
    const COUNT: usize = 16;
    type Eight = Self;
    type Floats = __m256;
    type Ints = __m256i;

    with_features! { "avx2,fma,f16c":
        unsafe fn zeros() -> __m256 {
            _mm256_setzero_ps()
        }

        unsafe fn all(x: f32) -> __m256 {
            _mm256_set1_ps(x)
        }

        unsafe fn load(at: *const f32) -> __m256 {
            // SAFETY: by the contract of the trait.
            unsafe { _mm256_loadu_ps(at) }
        }

        unsafe fn load_halves(at: *const u16) -> __m256 {
            // SAFETY: by the contract of the trait.
            _mm256_cvtph_ps(unsafe { _mm_loadu_si128(at.cast()) })
        }

        unsafe fn store(at: *mut f32, x: __m256) {
            // SAFETY: by the contract of the trait.
            unsafe { _mm256_storeu_ps(at, x) }
        }

        unsafe fn add(a: __m256, b: __m256) -> __m256 {
            _mm256_add_ps(a, b)
        }

        unsafe fn sub(a: __m256, b: __m256) -> __m256 {
            _mm256_sub_ps(a, b)
        }

        unsafe fn mul(a: __m256, b: __m256) -> __m256 {
            _mm256_mul_ps(a, b)
        }

        unsafe fn mul_add(a: __m256, b: __m256, sum: __m256) -> __m256 {
            _mm256_fmadd_ps(a, b, sum)
        }

        unsafe fn mul_sub(a: __m256, b: __m256, sum: __m256) -> __m256 {
            _mm256_fnmadd_ps(a, b, sum)
        }

        unsafe fn max(a: __m256, b: __m256) -> __m256 {
            _mm256_max_ps(a, b)
        }

        unsafe fn min(a: __m256, b: __m256) -> __m256 {
            _mm256_min_ps(a, b)
        }

        unsafe fn round(x: __m256) -> __m256 {
            _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x)
        }

        unsafe fn times_power_of_two(x: __m256, n: __m256) -> __m256 {
            // In two factors: n may be 128, whose power is no float.
            let n = _mm256_cvtps_epi32(n);
            let half = _mm256_srai_epi32::<1>(n);
            let rest = _mm256_sub_epi32(n, half);
            _mm256_mul_ps(_mm256_mul_ps(x, power_of_two(half)), power_of_two(rest))
        }

        unsafe fn zero_below(x: __m256, y: __m256, bound: __m256) -> __m256 {
            _mm256_andnot_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(y, bound), x)
        }

        unsafe fn largest(x: __m256) -> f32 {
            let x = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let x = _mm_max_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_max_ss(x, _mm_shuffle_ps::<1>(x, x)))
        }

        unsafe fn add_to_eight(sums: __m256, x: __m256) -> __m256 {
            _mm256_add_ps(sums, x)
        }

        unsafe fn int_zeros() -> __m256i {
            _mm256_setzero_si256()
        }

        unsafe fn all_ints(x: i32) -> __m256i {
            _mm256_set1_epi32(x)
        }

        unsafe fn all_bytes(x: i8) -> __m256i {
            _mm256_set1_epi8(x)
        }

        unsafe fn sub_ints(a: __m256i, b: __m256i) -> __m256i {
            _mm256_sub_epi32(a, b)
        }

        unsafe fn and(a: __m256i, b: __m256i) -> __m256i {
            _mm256_and_si256(a, b)
        }

        unsafe fn or(a: __m256i, b: __m256i) -> __m256i {
            _mm256_or_si256(a, b)
        }

        unsafe fn xor(a: __m256i, b: __m256i) -> __m256i {
            _mm256_xor_si256(a, b)
        }

        unsafe fn shift(x: __m256i, by: i32) -> __m256i {
            if by < 0 {
                _mm256_srl_epi16(x, _mm_cvtsi32_si128(-by))
            } else {
                _mm256_sll_epi16(x, _mm_cvtsi32_si128(by))
            }
        }

        unsafe fn look_up(table: &[i8; 16], index: __m256i) -> __m256i {
            // SAFETY: the table has sixteen bytes.
            let table = unsafe { _mm_loadu_si128(table.as_ptr().cast()) };
            _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), index)
        }

        unsafe fn to_floats(x: __m256i) -> __m256 {
            _mm256_cvtepi32_ps(x)
        }

        unsafe fn load_pairs(at: *const u8) -> __m256i {
            // SAFETY: by the contract of the trait.
            _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(at.cast()) })
        }

        unsafe fn add_pairs(a: __m256i, b: __m256i, sum: __m256i) -> __m256i {
            _mm256_add_epi32(sum, _mm256_madd_epi16(a, b))
        }

        unsafe fn prefetch(at: *const u8) {
            // Into the second cache: the first one waits for few lines at a time, and is too small.
            _mm_prefetch::<_MM_HINT_T1>(at.cast());
        }
    }
}

impl Eight for Avx2 {
    with_features! { "avx2,fma,f16c":
        unsafe fn load_brains(at: *const u16) -> __m256 {
            // SAFETY: by the contract of the trait.
            let bits = _mm256_cvtepu16_epi32(unsafe { _mm_loadu_si128(at.cast()) });
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits))
        }

        unsafe fn load_bytes(at: *const u8) -> __m256 {
            // SAFETY: by the contract of the trait.
            let bytes = unsafe { _mm_loadl_epi64(at.cast()) };
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes))
        }

        unsafe fn div(a: __m256, b: __m256) -> __m256 {
            _mm256_div_ps(a, b)
        }

        unsafe fn abs(x: __m256) -> __m256 {
            _mm256_andnot_ps(_mm256_set1_ps(-0.0), x)
        }

        unsafe fn zero_nans(x: __m256) -> __m256 {
            _mm256_and_ps(x, _mm256_cmp_ps::<_CMP_ORD_Q>(x, x))
        }

        unsafe fn sum(x: __m256) -> f32 {
            let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_add_ss(x, _mm_shuffle_ps::<1>(x, x)))
        }

        unsafe fn load_ints(at: *const u8) -> __m256i {
            // SAFETY: by the contract of the trait.
            unsafe { _mm256_loadu_si256(at.cast()) }
        }

        unsafe fn add_ints(a: __m256i, b: __m256i) -> __m256i {
            _mm256_add_epi32(a, b)
        }

        unsafe fn max_ints(a: __m256i, b: __m256i) -> __m256i {
            _mm256_max_epi32(a, b)
        }

        unsafe fn to_ints(x: __m256) -> __m256i {
            _mm256_cvtps_epi32(x)
        }

        unsafe fn bits(x: __m256) -> __m256i {
            _mm256_castps_si256(x)
        }

        unsafe fn sum_ints(x: __m256i) -> i32 {
            let x = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256::<1>(x));
            let x = _mm_add_epi32(x, _mm_shuffle_epi32::<0b00_00_11_10>(x));
            let x = _mm_add_epi32(x, _mm_shuffle_epi32::<0b00_00_00_01>(x));
            _mm_cvtsi128_si32(x)
        }

        unsafe fn largest_int(x: __m256i) -> i32 {
            let x = _mm_max_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256::<1>(x));
            let x = _mm_max_epi32(x, _mm_shuffle_epi32::<0b00_00_11_10>(x));
            let x = _mm_max_epi32(x, _mm_shuffle_epi32::<0b00_00_00_01>(x));
            _mm_cvtsi128_si32(x)
        }

        unsafe fn store_bytes(at: *mut i8, x: [__m256i; 4]) {
            // Packing works on 128-bit halves; the permutation puts the bytes back in order.
            let packed = _mm256_packs_epi16(
                _mm256_packs_epi32(x[0], x[1]),
                _mm256_packs_epi32(x[2], x[3]),
            );
            let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
            let packed = _mm256_permutevar8x32_epi32(packed, order);
            // SAFETY: by the contract of the trait.
            unsafe { _mm256_storeu_si256(at.cast(), packed) }
        }

        unsafe fn store_shorts(at: *mut i16, x: [__m256i; 2]) {
            // As above.
            let packed = _mm256_packs_epi32(x[0], x[1]);
            let packed = _mm256_permute4x64_epi64::<0b11_01_10_00>(packed);
            // SAFETY: by the contract of the trait.
            unsafe { _mm256_storeu_si256(at.cast(), packed) }
        }
    }
}

/// `2^n` of integers whose power is a normal number.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn power_of_two(n: __m256i) -> __m256 {
    let bits = _mm256_slli_epi32::<23>(_mm256_add_epi32(n, _mm256_set1_epi32(127)));
    _mm256_castsi256_ps(bits)
}
