//! AVX2: bytes to 16-bit pairs, and those to 32 bits.
//!
//! `maddubs` multiplies unsigned codes by signed activations and adds pairs into 16 bits. A pair
//! of 4-bit codes gives at most 2 * 15 * 127 = 3810, so all eight groups of a part fit in an
//! `i16` before one widening add; of 5-bit codes four groups, of 6-bit codes two. Zero points
//! come back through the sums of the activations.

use std::arch::x86_64::*;

use super::super::Input;
use super::lanes::{At, Eight};
use super::{Dot, Part, Unpack, broadcast, sum};
use crate::quant::{Codes, GROUPS};
use crate::{PackedMatrix, TILE_ROWS};

/// The products of the rows of one tile with `TOKENS` tokens from `token` on.
///
/// # Safety
/// Needs the named processor features.
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) unsafe fn tile<const TOKENS: usize>(
    weights: &PackedMatrix,
    tile: usize,
    input: Input<'_>,
    token: usize,
) -> [[f32; TILE_ROWS]; TOKENS] {
    // SAFETY: this function has the features.
    unsafe { super::tiles::<Pairs, TOKENS, TILE_ROWS>(weights, tile, input, token) }
}

struct Pairs;

impl Dot for Pairs {
    type Lanes = Eight;

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
                let codes = C::group::<Eight>(planes, group);
                for ((x, short), dot) in x.iter().zip(&mut short).zip(&mut dots) {
                    let pairs = C::pairs(codes, broadcast::<Eight>(*x, group));
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
