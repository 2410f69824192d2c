//! VNNI: four products of bytes added to a 32-bit sum by one instruction, which comes in two
//! encodings.

use std::arch::x86_64::*;
use std::marker::PhantomData;

use super::super::Input;
use super::{Dot, Part, Unpack, broadcast, sum};
use crate::quant::GROUPS;
use crate::{PackedMatrix, TILE_ROWS};

/// The products of the rows of one tile with `TOKENS` tokens from `token` on.
///
/// # Safety
/// Needs the named processor features.
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
pub(in super::super) unsafe fn tile_avx_vnni<const TOKENS: usize>(
    weights: &PackedMatrix,
    tile: usize,
    input: Input<'_>,
    token: usize,
) -> [[f32; TILE_ROWS]; TOKENS] {
    // SAFETY: this function has the features.
    unsafe { super::tile::<Fours<Vex>, TOKENS>(weights, tile, input, token) }
}

/// The products of the rows of one tile with `TOKENS` tokens from `token` on.
///
/// # Safety
/// Needs the named processor features.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512vl,avx512vnni")]
pub(in super::super) unsafe fn tile_avx512_vnni<const TOKENS: usize>(
    weights: &PackedMatrix,
    tile: usize,
    input: Input<'_>,
    token: usize,
) -> [[f32; TILE_ROWS]; TOKENS] {
    // SAFETY: this function has the features.
    unsafe { super::tile::<Fours<Evex>, TOKENS>(weights, tile, input, token) }
}

/// The instruction in one of its encodings.
trait Encoding {
    /// Adds to each of eight sums four products of `codes`, without a sign, and `x`, with one.
    ///
    /// # Safety
    /// Needs the features of the encoding.
    unsafe fn add(sums: __m256i, codes: __m256i, x: __m256i) -> __m256i;
}

/// That of AVX-VNNI.
struct Vex;

impl Encoding for Vex {
    #[inline]
    #[target_feature(enable = "avx2,avxvnni")]
    unsafe fn add(sums: __m256i, codes: __m256i, x: __m256i) -> __m256i {
        _mm256_dpbusd_avx_epi32(sums, codes, x)
    }
}

/// That of AVX-512, with twice the registers.
struct Evex;

impl Encoding for Evex {
    #[inline]
    #[target_feature(enable = "avx2,avx512f,avx512vl,avx512vnni")]
    unsafe fn add(sums: __m256i, codes: __m256i, x: __m256i) -> __m256i {
        _mm256_dpbusd_epi32(sums, codes, x)
    }
}

struct Fours<E>(PhantomData<E>);

impl<E: Encoding> Dot for Fours<E> {
    #[inline(always)]
    unsafe fn dot<C: Unpack, const T: usize, const FROM: usize, const TO: usize>(
        planes: &[u8],
        x: &[*const Part; T],
    ) -> [__m256i; T] {
        // SAFETY: by the contract of the trait.
        unsafe {
            let mut dots = [_mm256_setzero_si256(); T];
            for group in FROM * GROUPS / 2..TO * GROUPS / 2 {
                let codes = C::unsigned(planes, group);
                for (x, dot) in x.iter().zip(&mut dots) {
                    *dot = E::add(*dot, codes, broadcast(*x, group));
                }
            }
            if C::UNSIGNED_ZERO != 0 {
                for (x, dot) in x.iter().zip(&mut dots) {
                    let zeros = _mm256_set1_epi32(C::UNSIGNED_ZERO * sum::<FROM, TO>(*x));
                    *dot = _mm256_sub_epi32(*dot, zeros);
                }
            }
            dots
        }
    }
}
