//! Eight rows in the lanes of a register, one to eight tokens at a time.
//!
//! What multiplies the codes differs from one instruction set to the next ([`Dot`]); all around it
//! is the same. Functions that are `inline(always)` become part of a `tile` that has the processor
//! features of its set, and are compiled for those.

mod avx2;
mod codes;
mod floats;
mod vnni;

use std::arch::x86_64::*;

use tercel_formats::DType;

use super::super::quantize::Part;
use super::Input;
use crate::layout::with_layout;
use crate::quant::{Format, Grain, formats::*};
use crate::{PackedMatrix, TILE_ROWS};
use codes::Unpack;
use floats::{Brain, Float, Half, Single};

pub(super) use avx2::tile as tile_avx2;
pub(super) use vnni::{tile_avx_vnni, tile_avx512_vnni};

/// How an instruction set multiplies codes with activations.
trait Dot {
    /// Integer sums of the elements of the halves `FROM..TO` of eight rows times part `part` of
    /// each token.
    ///
    /// # Safety
    /// Needs the features of the instruction set. `planes` must have the codes of a part, and each
    /// of `x` must lead to one.
    unsafe fn dot<C: Unpack, const T: usize, const FROM: usize, const TO: usize>(
        planes: &[u8],
        x: &[*const Part; T],
    ) -> [__m256i; T];
}

/// The products of the rows of one tile with `T` tokens from `token` on.
///
/// # Safety
/// Needs the features of `D`, AVX2, FMA and F16C; must become part of a function that has them.
#[inline(always)]
unsafe fn tile<D: Dot, const T: usize>(
    weights: &PackedMatrix,
    tile: usize,
    input: Input<'_>,
    token: usize,
) -> [[f32; TILE_ROWS]; T] {
    let packed = weights.tile(tile);
    let cols = weights.cols();
    // SAFETY: by the contract of this function.
    let sums = unsafe {
        with_layout!(weights.layout(),
            F => quantized::<D, F, T>(packed, input, token),
            float dtype => match dtype {
                DType::F16 => floats::product::<Half, T>(packed, cols, input, token),
                DType::BF16 => floats::product::<Brain, T>(packed, cols, input, token),
                _ => floats::product::<Single, T>(packed, cols, input, token),
            }
        )
    };
    let mut rows = [[0.0; TILE_ROWS]; T];
    for (rows, sum) in rows.iter_mut().zip(sums) {
        // SAFETY: `rows` has room for eight floats.
        unsafe { _mm256_storeu_ps(rows.as_mut_ptr(), sum) };
    }
    rows
}

/// # Safety
/// As [`tile`].
#[inline(always)]
unsafe fn quantized<D: Dot, F: Format<Codes: Unpack>, const T: usize>(
    packed: &[u8],
    input: Input<'_>,
    token: usize,
) -> [__m256; T] {
    let blocks = packed.len() / F::PACKED_BYTES;
    let mut x = [std::ptr::null(); T];
    for (i, x) in x.iter_mut().enumerate() {
        let row = input.quantized.row(token + i);
        assert!(
            row.len() == blocks * F::PARTS,
            "the inputs have the matrix's width"
        );
        *x = row.as_ptr();
    }
    // SAFETY: by the contract of this function; the blocks have their size and, by the assertion,
    // the rows have their parts.
    unsafe {
        let mut sums = [_mm256_setzero_ps(); T];
        for block in packed.chunks_exact(F::PACKED_BYTES) {
            let d = head::<F>(block, 0);
            for bytes in block[F::FIRST_PART..].chunks_exact(F::PART_BYTES) {
                match F::SCALES {
                    Grain::Block | Grain::Part => {
                        add_products::<D, F, T, 0, 2>(d, bytes, &x, &mut sums);
                    }
                    Grain::Half => {
                        add_products::<D, F, T, 0, 1>(d, bytes, &x, &mut sums);
                        add_products::<D, F, T, 1, 2>(d, bytes, &x, &mut sums);
                    }
                }
                if let Some(grain) = F::MINS {
                    let m = head::<F>(block, F::HEAD_BYTES);
                    add_mins(m, &bytes[F::MIN_BYTES..], grain, &x, &mut sums);
                }
                for x in &mut x {
                    *x = x.add(1);
                }
            }
        }
        sums
    }
}

/// Adds the halves `FROM..TO` of a part, which share a scale, without minimums.
///
/// # Safety
/// As [`Dot::dot`]; `bytes` are the packed part.
#[inline(always)]
unsafe fn add_products<D: Dot, F, const T: usize, const FROM: usize, const TO: usize>(
    d: __m256,
    bytes: &[u8],
    x: &[*const Part; T],
    sums: &mut [__m256; T],
) where
    F: Format<Codes: Unpack>,
{
    // SAFETY: by the contract of this function.
    unsafe {
        let scale = scaled(d, &bytes[F::SCALE_BYTES..], F::SCALES, FROM);
        let dots = D::dot::<F::Codes, T, FROM, TO>(bytes, x);
        for ((x, dot), sum) in x.iter().zip(dots).zip(sums) {
            let scale = _mm256_mul_ps(scale, _mm256_set1_ps((**x).scale));
            *sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), scale, *sum);
        }
    }
}

/// Adds the minimums of a part.
///
/// # Safety
/// As [`add_products`]; `factors` are those of the minimums of the part.
#[inline(always)]
unsafe fn add_mins<const T: usize>(
    m: __m256,
    factors: &[u8],
    grain: Grain,
    x: &[*const Part; T],
    sums: &mut [__m256; T],
) {
    // SAFETY: by the contract of this function.
    unsafe {
        let min = scaled(m, factors, grain, 0);
        if grain != Grain::Half {
            for (x, sum) in x.iter().zip(sums) {
                let x = _mm256_set1_ps((**x).weighted_sum);
                *sum = _mm256_fmadd_ps(min, x, *sum);
            }
            return;
        }
        let high_min = scaled(m, factors, grain, 1);
        for (x, sum) in x.iter().zip(sums) {
            let [low, high] = (**x).sums.map(|sum| (**x).scale * sum as f32);
            *sum = _mm256_fmadd_ps(min, _mm256_set1_ps(low), *sum);
            *sum = _mm256_fmadd_ps(high_min, _mm256_set1_ps(high), *sum);
        }
    }
}

/// Eight `d` or `m`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn head<F: Format>(block: &[u8], at: usize) -> __m256 {
    debug_assert!(at + F::HEAD_BYTES <= block.len());
    // SAFETY: every caller reads inside a block whose size it was promised.
    unsafe {
        let at = block.as_ptr().add(at);
        match F::HEAD {
            DType::F32 => Single::load(at),
            DType::BF16 => Brain::load(at),
            _ => Half::load(at),
        }
    }
}

/// `d` times the factors of half `half` of a part, or of all of it.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn scaled(d: __m256, factors: &[u8], grain: Grain, half: usize) -> __m256 {
    if grain == Grain::Block {
        return d;
    }
    let at = half * TILE_ROWS;
    debug_assert!(at + TILE_ROWS <= factors.len());
    // SAFETY: as in `head`.
    let factors = unsafe { _mm_loadl_epi64(factors.as_ptr().add(at).cast()) };
    _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(factors)))
}

/// Four codes of group `group` of a part, in every lane.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn broadcast(x: *const Part, group: usize) -> __m256i {
    // SAFETY: every caller's group is inside the part.
    let codes = unsafe { (&raw const (*x).codes).cast::<i32>().add(group) };
    // SAFETY: as above; the codes of a part are aligned as its scale is.
    _mm256_set1_epi32(unsafe { codes.read() })
}

/// The sum of the codes of the halves `FROM..TO` of a part.
///
/// # Safety
/// `x` must lead to a part.
#[inline(always)]
unsafe fn sum<const FROM: usize, const TO: usize>(x: *const Part) -> i32 {
    // SAFETY: by the contract of this function.
    let [low, high] = unsafe { (*x).sums };
    match (FROM, TO) {
        (0, 1) => low,
        (1, 2) => high,
        _ => low + high,
    }
}
