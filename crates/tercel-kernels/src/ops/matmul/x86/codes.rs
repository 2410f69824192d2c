//! The codes of a part as bytes in registers: four of each row at a time.

use std::arch::x86_64::*;

use super::lanes::{At, Lanes};
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
    /// Needs the features of `L`; `planes` must have `BYTES` in each tile.
    unsafe fn group<L: Lanes>(planes: At, group: usize) -> L::Ints;

    /// A byte without a sign for each code of a group.
    ///
    /// # Safety
    /// As [`group`](Self::group).
    #[inline(always)]
    unsafe fn unsigned<L: Lanes>(planes: At, group: usize) -> L::Ints {
        // SAFETY: by the contract of this function.
        unsafe { L::xor(Self::group::<L>(planes, group), L::all_bytes(-128)) }
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

    #[inline(always)]
    unsafe fn unsigned<L: Lanes>(planes: At, group: usize) -> L::Ints {
        // SAFETY: by the contract of this function.
        unsafe { Self::group::<L>(planes, group) }
    }

    #[inline(always)]
    unsafe fn group<L: Lanes>(planes: At, group: usize) -> L::Ints {
        // SAFETY: by the contract of this function.
        unsafe {
            let low = bits::<L, LOW, 0>(planes, group);
            if HIGH == 0 {
                return low;
            }
            L::or(
                low,
                bits::<L, HIGH, LOW>(planes.add(Self::HIGH_PLANE), group),
            )
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn pairs(codes: __m256i, x: __m256i) -> __m256i {
        _mm256_maddubs_epi16(codes, x)
    }
}

impl Unpack for Signed {
    #[inline(always)]
    unsafe fn group<L: Lanes>(planes: At, group: usize) -> L::Ints {
        // SAFETY: by the contract of this function.
        unsafe { L::load_bytes(planes.add(group * 32)) }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn pairs(codes: __m256i, x: __m256i) -> __m256i {
        signed_pairs(codes, x)
    }
}

impl Unpack for Bytes {
    const ZERO: i32 = -128;

    #[inline(always)]
    unsafe fn group<L: Lanes>(planes: At, group: usize) -> L::Ints {
        // SAFETY: by the contract of this function.
        unsafe { Signed::group::<L>(planes, group) }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn pairs(codes: __m256i, x: __m256i) -> __m256i {
        signed_pairs(codes, x)
    }
}

impl<V: Values> Unpack for Lookup<V> {
    #[inline(always)]
    unsafe fn group<L: Lanes>(planes: At, group: usize) -> L::Ints {
        // SAFETY: by the contract of this function.
        unsafe { L::look_up(&V::VALUES, bits::<L, 4, 0>(planes, group)) }
    }

    #[inline(always)]
    unsafe fn unsigned<L: Lanes>(planes: At, group: usize) -> L::Ints {
        // SAFETY: as above.
        unsafe {
            L::look_up(
                &const { unsigned(V::VALUES) },
                bits::<L, 4, 0>(planes, group),
            )
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn pairs(codes: __m256i, x: __m256i) -> __m256i {
        signed_pairs(codes, x)
    }
}

/// The values of a table, each 128 more, in bytes without a sign.
const fn unsigned(mut values: [i8; 16]) -> [i8; 16] {
    let mut i = 0;
    while i < values.len() {
        values[i] ^= -128;
        i += 1;
    }
    values
}

/// The `WIDTH` bits of each code of a group out of a plane, moved up by `BY`.
///
/// # Safety
/// As [`Unpack::group`].
#[inline(always)]
unsafe fn bits<L: Lanes, const WIDTH: i32, const BY: i32>(plane: At, group: usize) -> L::Ints {
    let groups = 8 / WIDTH as usize;
    // The loop over groups is unrolled, so what it is shifted by is a constant.
    let up = BY - WIDTH * (group % groups) as i32;
    // SAFETY: by the contract of this function.
    unsafe {
        let held = L::load_bytes(plane.add(group / groups * 32));
        L::and(L::shift(held, up), L::all_bytes(((1 << WIDTH) - 1) << BY))
    }
}

/// Products of signed codes. The sign of the weight moves to the activation, whose codes are in
/// -127..=127. A pair is at most 2 * 128 * 127, which fits.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn signed_pairs(codes: __m256i, x: __m256i) -> __m256i {
    _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(x, codes))
}
