//! Weights that are floats.

use super::super::Input;
use super::tiles::{At, Tiles};
use crate::TILE_ROWS;

/// A float type of weights.
pub(super) trait Float {
    const BYTES: usize;
    /// The numbers of one column of the tiles.
    ///
    /// # Safety
    /// Needs the features of `R`; `at` must have eight numbers in each tile.
    unsafe fn load<R: Tiles>(at: At) -> R::Floats;
}

pub(super) struct Single;
pub(super) struct Half;
pub(super) struct Brain;

impl Float for Single {
    const BYTES: usize = 4;
    #[inline(always)]
    unsafe fn load<R: Tiles>(at: At) -> R::Floats {
        // SAFETY: by the contract of this function.
        unsafe { R::load_singles(at) }
    }
}

impl Float for Half {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn load<R: Tiles>(at: At) -> R::Floats {
        // SAFETY: by the contract of this function.
        unsafe { <R as Tiles>::load_halves(at) }
    }
}

impl Float for Brain {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn load<R: Tiles>(at: At) -> R::Floats {
        // SAFETY: by the contract of this function.
        unsafe { R::load_brains(at) }
    }
}

/// The sums of the rows times `T` tokens: of even columns and odd ones, then both.
///
/// # Safety
/// Needs the features of `R`, and must become part of a function that has them; each tile must have
/// `cols` columns.
#[inline(always)]
pub(super) unsafe fn product<R: Tiles, F: Float, const T: usize>(
    tiles: At,
    cols: usize,
    input: Input<'_>,
    token: usize,
) -> [R::Floats; T] {
    let mut x = [std::ptr::null::<f32>(); T];
    for (i, x) in x.iter_mut().enumerate() {
        *x = input.x[(token + i) * cols..][..cols].as_ptr();
    }
    // SAFETY: by the contract of this function and, by the slices, the columns are there.
    unsafe {
        let mut even = [R::zeros(); T];
        let mut odd = [R::zeros(); T];
        let mut column = tiles;
        for k in (0..cols & !1).step_by(2) {
            add_column::<R, F, T>(column, &x, k, &mut even);
            add_column::<R, F, T>(column.add(TILE_ROWS * F::BYTES), &x, k + 1, &mut odd);
            column = column.add(2 * TILE_ROWS * F::BYTES);
        }
        if cols % 2 == 1 {
            add_column::<R, F, T>(column, &x, cols - 1, &mut even);
        }
        for (even, odd) in even.iter_mut().zip(odd) {
            *even = R::add(*even, odd);
        }
        even
    }
}

/// # Safety
/// As [`product`]; column `k` must be at `column`, and in each of `x`.
#[inline(always)]
unsafe fn add_column<R: Tiles, F: Float, const T: usize>(
    column: At,
    x: &[*const f32; T],
    k: usize,
    sums: &mut [R::Floats; T],
) {
    // SAFETY: by the contract of this function.
    unsafe {
        let column = F::load::<R>(column);
        for (x, sum) in x.iter().zip(sums) {
            *sum = R::mul_add(column, R::all(*x.add(k)), *sum);
        }
    }
}
