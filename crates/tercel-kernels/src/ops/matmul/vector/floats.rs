//! Weights that are floats.

use super::super::Input;
use super::FEW;
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

/// Columns whose numbers are held at once: each token's pointer is needed once for all of them, since
/// the pointers of many tokens do not fit the registers.
const HELD: usize = 4;

/// The sums of the rows times `T` tokens: of even columns and odd ones, then both.
///
/// # Safety
/// Must become part of a function that has the features of `R`; each tile must have `cols` columns.
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
        // Of even columns and of odd ones.
        let mut sums = [[R::zeros(); 2]; T];
        let whole = cols / HELD * HELD;
        for k in (0..whole).step_by(HELD) {
            let columns = tiles.add(k * TILE_ROWS * F::BYTES);
            if T <= FEW {
                columns.fetch_next::<R>(HELD * TILE_ROWS * F::BYTES);
            }
            add_columns::<R, F, T, HELD>(columns, &x, k, &mut sums);
        }
        for k in whole..cols {
            let column = tiles.add(k * TILE_ROWS * F::BYTES);
            add_columns::<R, F, T, 1>(column, &x, k, &mut sums);
            for sums in &mut sums {
                sums.swap(0, 1);
            }
        }
        // An odd number of swaps leaves them the other way round, which is the same sum.
        let mut both = [R::zeros(); T];
        for (both, [even, odd]) in both.iter_mut().zip(sums) {
            *both = R::add(even, odd);
        }
        both
    }
}

/// Adds `N` columns from `k` on, the first of them to the first sum, the next to the second, and so
/// by turns.
///
/// # Safety
/// As [`product`]; the columns must be at `columns`, and in each of `x`.
#[inline(always)]
unsafe fn add_columns<R: Tiles, F: Float, const T: usize, const N: usize>(
    columns: At,
    x: &[*const f32; T],
    k: usize,
    sums: &mut [[R::Floats; 2]; T],
) {
    // SAFETY: by the contract of this function.
    unsafe {
        let mut held = [R::zeros(); N];
        for (i, held) in held.iter_mut().enumerate() {
            *held = F::load::<R>(columns.add(i * TILE_ROWS * F::BYTES));
        }
        for (x, sums) in x.iter().zip(sums) {
            for (i, column) in held.into_iter().enumerate() {
                sums[i % 2] = R::mul_add(column, R::all(*x.add(k + i)), sums[i % 2]);
            }
        }
    }
}
