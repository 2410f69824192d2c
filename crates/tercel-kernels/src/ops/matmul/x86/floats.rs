//! Weights that are floats.

use std::arch::x86_64::*;

use super::super::Input;
use crate::TILE_ROWS;

/// A float type of weights.
pub(super) trait Float {
    const BYTES: usize;
    /// Eight numbers of one column of a tile.
    ///
    /// # Safety
    /// Needs AVX2 and F16C; `at` must have eight numbers.
    unsafe fn load(at: *const u8) -> __m256;
}

pub(super) struct Single;
pub(super) struct Half;
pub(super) struct Brain;

impl Float for Single {
    const BYTES: usize = 4;
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load(at: *const u8) -> __m256 {
        // SAFETY: by the contract of this function.
        unsafe { _mm256_loadu_ps(at.cast()) }
    }
}

impl Float for Half {
    const BYTES: usize = 2;
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load(at: *const u8) -> __m256 {
        // SAFETY: by the contract of this function.
        _mm256_cvtph_ps(unsafe { _mm_loadu_si128(at.cast()) })
    }
}

impl Float for Brain {
    const BYTES: usize = 2;
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load(at: *const u8) -> __m256 {
        // SAFETY: by the contract of this function.
        let bits = _mm256_cvtepu16_epi32(unsafe { _mm_loadu_si128(at.cast()) });
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits))
    }
}

/// The sums of eight rows times `T` tokens: of even columns and odd ones, then both.
///
/// # Safety
/// Needs AVX2, FMA and F16C; must become part of a function that has them.
#[inline(always)]
pub(super) unsafe fn product<F: Float, const T: usize>(
    packed: &[u8],
    cols: usize,
    input: Input<'_>,
    token: usize,
) -> [__m256; T] {
    let mut x = [std::ptr::null::<f32>(); T];
    for (i, x) in x.iter_mut().enumerate() {
        *x = input.x[(token + i) * cols..][..cols].as_ptr();
    }
    assert!(
        packed.len() == cols * TILE_ROWS * F::BYTES,
        "a tile has all columns"
    );
    // SAFETY: by the contract of this function and, by the assertion and the slices, the columns
    // are there.
    unsafe {
        let column = |k: usize| packed.as_ptr().add(k * TILE_ROWS * F::BYTES);
        let mut even = [_mm256_setzero_ps(); T];
        let mut odd = even;
        for k in (0..cols & !1).step_by(2) {
            add_column::<F, T>(column(k), &x, k, &mut even);
            add_column::<F, T>(column(k + 1), &x, k + 1, &mut odd);
        }
        if cols % 2 == 1 {
            add_column::<F, T>(column(cols - 1), &x, cols - 1, &mut even);
        }
        for (even, odd) in even.iter_mut().zip(odd) {
            *even = _mm256_add_ps(*even, odd);
        }
        even
    }
}

/// # Safety
/// As [`product`]; column `k` must be at `column`, and in each of `x`.
#[inline(always)]
unsafe fn add_column<F: Float, const T: usize>(
    column: *const u8,
    x: &[*const f32; T],
    k: usize,
    sums: &mut [__m256; T],
) {
    // SAFETY: by the contract of this function.
    unsafe {
        let column = F::load(column);
        for (x, sum) in x.iter().zip(sums) {
            *sum = _mm256_fmadd_ps(column, _mm256_set1_ps(*x.add(k)), *sum);
        }
    }
}
