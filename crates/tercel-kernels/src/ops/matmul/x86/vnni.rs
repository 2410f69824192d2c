//! VNNI: four products of bytes added to a 32-bit sum by one instruction, which comes in two
//! encodings.

use std::arch::x86_64::*;
use std::marker::PhantomData;

use super::super::Input;
use super::lanes::{At, Eight, Lanes, Sixteen};
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
    unsafe { super::tiles::<Fours<Vex>, TOKENS, TILE_ROWS>(weights, tile, input, token) }
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
    unsafe { super::tiles::<Fours<Evex>, TOKENS, TILE_ROWS>(weights, tile, input, token) }
}

/// The products of the rows of two tiles that follow each other with `TOKENS` tokens from `token`
/// on.
///
/// # Safety
/// Needs the named processor features.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
pub(in super::super) unsafe fn two_tiles_avx512_vnni<const TOKENS: usize>(
    weights: &PackedMatrix,
    tile: usize,
    input: Input<'_>,
    token: usize,
) -> [[f32; 2 * TILE_ROWS]; TOKENS] {
    // SAFETY: this function has the features.
    unsafe { super::tiles::<Fours<Wide>, TOKENS, { 2 * TILE_ROWS }>(weights, tile, input, token) }
}

/// The instruction in one of its encodings.
trait Encoding {
    type Lanes: Lanes;

    /// Adds to the sum of each lane four products of `codes`, without a sign, and `x`, with one.
    ///
    /// # Safety
    /// Needs the features of the encoding.
    unsafe fn add(
        sums: <Self::Lanes as Lanes>::Ints,
        codes: <Self::Lanes as Lanes>::Ints,
        x: <Self::Lanes as Lanes>::Ints,
    ) -> <Self::Lanes as Lanes>::Ints;
}

/// That of AVX-VNNI.
struct Vex;

impl Encoding for Vex {
    type Lanes = Eight;

    #[inline]
    #[target_feature(enable = "avx2,avxvnni")]
    unsafe fn add(sums: __m256i, codes: __m256i, x: __m256i) -> __m256i {
        _mm256_dpbusd_avx_epi32(sums, codes, x)
    }
}

/// That of AVX-512, with twice the registers.
struct Evex;

impl Encoding for Evex {
    type Lanes = Eight;

    #[inline]
    #[target_feature(enable = "avx2,avx512f,avx512vl,avx512vnni")]
    unsafe fn add(sums: __m256i, codes: __m256i, x: __m256i) -> __m256i {
        _mm256_dpbusd_epi32(sums, codes, x)
    }
}

/// That of AVX-512 in its full width.
struct Wide;

impl Encoding for Wide {
    type Lanes = Sixteen;

    #[inline]
    #[target_feature(enable = "avx512f,avx512vnni")]
    unsafe fn add(sums: __m512i, codes: __m512i, x: __m512i) -> __m512i {
        _mm512_dpbusd_epi32(sums, codes, x)
    }
}

struct Fours<E>(PhantomData<E>);

impl<E: Encoding> Dot for Fours<E> {
    type Lanes = E::Lanes;

    #[inline(always)]
    unsafe fn dot<C: Unpack, const T: usize, const FROM: usize, const TO: usize>(
        planes: At,
        x: &[*const Part; T],
    ) -> [<E::Lanes as Lanes>::Ints; T] {
        // SAFETY: by the contract of the trait.
        unsafe {
            let mut dots = [E::Lanes::int_zeros(); T];
            for group in FROM * GROUPS / 2..TO * GROUPS / 2 {
                let codes = C::unsigned::<E::Lanes>(planes, group);
                for (x, dot) in x.iter().zip(&mut dots) {
                    *dot = E::add(*dot, codes, broadcast::<E::Lanes>(*x, group));
                }
            }
            if C::UNSIGNED_ZERO != 0 {
                for (x, dot) in x.iter().zip(&mut dots) {
                    let zeros = E::Lanes::all_ints(C::UNSIGNED_ZERO * sum::<FROM, TO>(*x));
                    *dot = E::Lanes::sub(*dot, zeros);
                }
            }
            dots
        }
    }
}
