//! AVX2: bytes to 16-bit pairs, and those to 32 bits.
//!
//! `maddubs` multiplies unsigned codes by signed activations and adds pairs into 16 bits. A pair
//! of 4-bit codes gives at most 2 * 15 * 127 = 3810, so all eight groups of a part fit in an
//! `i16` before one widening add; of 5-bit codes four groups, of 6-bit codes two. Zero points
//! come back through the sums of the activations.

use std::arch::x86_64::*;

use super::tiles::At;
use super::{Dot, Part, Unpack, broadcast, sum};
use crate::ops::registers::Avx2;
use crate::quant::{Codes, GROUPS};

pub(super) enum Pairs {}

impl Dot for Pairs {
    type Registers = Avx2;

    #[inline(always)]
    unsafe fn dot<C: Unpack, const T: usize, const FROM: usize, const TO: usize>(
        planes: At,
        x: &[*const Part; T],
    ) -> [__m256i; T] {
        let fitting = const { fitting::<C>() };
        let groups = FROM * GROUPS / 2..TO * GROUPS / 2;
        // SAFETY: by the contract of the trait.
        unsafe {
            let mut dots = [_mm256_setzero_si256(); T];
            let mut short = [_mm256_setzero_si256(); T];
            for group in groups.clone() {
                let codes = C::group::<Avx2>(planes, group);
                for ((x, short), dot) in x.iter().zip(&mut short).zip(&mut dots) {
                    let pairs = products::<C>(codes, broadcast::<Avx2>(*x, group));
                    if fitting == 1 {
                        // Without the detour through `short` the compiler spills no registers.
                        *dot = _mm256_add_epi32(*dot, widen(pairs));
                    } else {
                        *short = _mm256_add_epi16(*short, pairs);
                    }
                }
                let is_full = (group + 1).is_multiple_of(fitting) || group + 1 == groups.end;
                if fitting > 1 && is_full {
                    for (dot, short) in dots.iter_mut().zip(&mut short) {
                        *dot = _mm256_add_epi32(*dot, widen(*short));
                        *short = _mm256_setzero_si256();
                    }
                }
            }
            if C::ZERO != 0 {
                for (x, dot) in x.iter().zip(&mut dots) {
                    let zeros = _mm256_set1_epi32(C::ZERO * sum::<FROM, TO>(*x));
                    *dot = _mm256_sub_epi32(*dot, zeros);
                }
            }
            dots
        }
    }
}

/// Groups whose pairs add up in 16 bits.
const fn fitting<C: Codes>() -> usize {
    i16::MAX as usize / (2 * 127 * C::LARGEST as usize)
}

/// Pairs of 16-bit sums to one 32-bit sum per row.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn widen(sums: __m256i) -> __m256i {
    _mm256_madd_epi16(sums, _mm256_set1_epi16(1))
}

/// Products of one group, adjacent ones added.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn products<C: Unpack>(codes: __m256i, x: __m256i) -> __m256i {
    if C::IS_SIGNED {
        // The sign of the weight moves to the activation, whose codes are in -127..=127. A pair is
        // at most 2 * 128 * 127, which fits.
        _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(x, codes))
    } else {
        _mm256_maddubs_epi16(codes, x)
    }
}
