//! The codes of a part as bytes in registers: four of each of eight rows at a time.

use std::arch::x86_64::*;

use crate::quant::{Bits, Bytes, Codes, Lookup, Signed, Values};

/// Codes as a kernel multiplies them.
pub(super) trait Unpack: Codes {
    /// What [`group`](Self::group) has where the code stands for 0.
    const ZERO: i32 = 0;

    /// What [`unsigned`](Self::unsigned) has where the code stands for 0.
    const UNSIGNED_ZERO: i32 = Self::ZERO + 128;

    /// A byte for each code of a group.
    ///
    /// # Safety
    /// Needs AVX2; `planes` must have `BYTES`.
    unsafe fn group(planes: &[u8], group: usize) -> __m256i;

    /// A byte without a sign for each code of a group.
    ///
    /// # Safety
    /// As [`group`](Self::group).
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn unsigned(planes: &[u8], group: usize) -> __m256i {
        // SAFETY: by the contract of this function.
        let signed = unsafe { Self::group(planes, group) };
        _mm256_xor_si256(signed, _mm256_set1_epi8(-128))
    }

    /// Products of one group, adjacent ones added.
    ///
    /// # Safety
    /// Needs AVX2.
    unsafe fn pairs(codes: __m256i, x: __m256i) -> __m256i;
}

impl<const LOW: i32, const HIGH: i32, const ZERO: i32> Unpack for Bits<LOW, HIGH, ZERO> {
    const ZERO: i32 = ZERO;
    const UNSIGNED_ZERO: i32 = ZERO;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn unsigned(planes: &[u8], group: usize) -> __m256i {
        // SAFETY: by the contract of this function.
        unsafe { Self::group(planes, group) }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn group(planes: &[u8], group: usize) -> __m256i {
        // SAFETY: by the contract of this function.
        unsafe {
            let low = bits::<LOW, 0>(planes, group);
            if HIGH == 0 {
                return low;
            }
            _mm256_or_si256(low, bits::<HIGH, LOW>(&planes[Self::HIGH_PLANE..], group))
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn pairs(codes: __m256i, x: __m256i) -> __m256i {
        _mm256_maddubs_epi16(codes, x)
    }
}

impl Unpack for Signed {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn group(planes: &[u8], group: usize) -> __m256i {
        // SAFETY: by the contract of this function.
        unsafe { load(planes, group * 32) }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn pairs(codes: __m256i, x: __m256i) -> __m256i {
        signed_pairs(codes, x)
    }
}

impl Unpack for Bytes {
    const ZERO: i32 = -128;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn group(planes: &[u8], group: usize) -> __m256i {
        // SAFETY: by the contract of this function.
        unsafe { Signed::group(planes, group) }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn pairs(codes: __m256i, x: __m256i) -> __m256i {
        signed_pairs(codes, x)
    }
}

impl<V: Values> Unpack for Lookup<V> {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn group(planes: &[u8], group: usize) -> __m256i {
        // SAFETY: by the contract of this function; the table has 16 bytes.
        unsafe {
            let values = _mm256_broadcastsi128_si256(_mm_loadu_si128(V::VALUES.as_ptr().cast()));
            _mm256_shuffle_epi8(values, bits::<4, 0>(planes, group))
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn unsigned(planes: &[u8], group: usize) -> __m256i {
        // SAFETY: as above.
        unsafe {
            let values = _mm_loadu_si128(V::VALUES.as_ptr().cast());
            let values = _mm_xor_si128(values, _mm_set1_epi8(-128));
            let values = _mm256_broadcastsi128_si256(values);
            _mm256_shuffle_epi8(values, bits::<4, 0>(planes, group))
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn pairs(codes: __m256i, x: __m256i) -> __m256i {
        signed_pairs(codes, x)
    }
}

/// The `WIDTH` bits of each code of a group out of a plane, moved up by `BY`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn bits<const WIDTH: i32, const BY: i32>(plane: &[u8], group: usize) -> __m256i {
    let groups = 8 / WIDTH as usize;
    // SAFETY: by the contract of `Unpack::group`.
    let held = unsafe { load(plane, group / groups * 32) };
    // The loop over groups is unrolled, so these shifts are constants.
    let up = BY - WIDTH * (group % groups) as i32;
    let moved = if up < 0 {
        _mm256_srl_epi16(held, _mm_cvtsi32_si128(-up))
    } else {
        _mm256_sll_epi16(held, _mm_cvtsi32_si128(up))
    };
    _mm256_and_si256(moved, _mm256_set1_epi8(((1 << WIDTH) - 1) << BY))
}

/// Products of signed codes. The sign of the weight moves to the activation, whose codes are in
/// -127..=127. A pair is at most 2 * 128 * 127, which fits.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn signed_pairs(codes: __m256i, x: __m256i) -> __m256i {
    _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(x, codes))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn load(bytes: &[u8], at: usize) -> __m256i {
    debug_assert!(at + 32 <= bytes.len());
    // SAFETY: every caller reads inside a part whose size it was promised.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().add(at).cast()) }
}
