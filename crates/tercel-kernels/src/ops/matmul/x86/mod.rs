//! Eight or sixteen rows in the lanes of a register, one to eight tokens at a time.
//!
//! What multiplies the codes differs from one instruction set to the next ([`Dot`]); all around it
//! is the same. Functions that are `inline(always)` become part of a `tile_*` that has the processor
//! features of its set, and are compiled for those.

mod avx2;
mod codes;
mod floats;
mod lanes;
mod vnni;

use tercel_formats::DType;

use super::super::quantize::Part;
use super::Input;
use crate::layout::with_layout;
use crate::quant::{Format, Grain, formats::*};
use crate::{PackedMatrix, TILE_ROWS};
use codes::Unpack;
use floats::{Brain, Float, Half, Single};
use lanes::{At, Lanes};

pub(super) use avx2::tile as tile_avx2;
pub(super) use vnni::{tile_avx_vnni, tile_avx512_vnni, two_tiles_avx512_vnni};

/// How an instruction set multiplies codes with activations.
trait Dot {
    type Lanes: Lanes;

    /// Integer sums of the elements of the halves `FROM..TO` of each row times part `part` of each
    /// token.
    ///
    /// # Safety
    /// Needs the features of the instruction set. `planes` must have the codes of a part, and each
    /// of `x` must lead to one.
    unsafe fn dot<C: Unpack, const T: usize, const FROM: usize, const TO: usize>(
        planes: At,
        x: &[*const Part; T],
    ) -> [<Self::Lanes as Lanes>::Ints; T];
}

type Floats<D> = <<D as Dot>::Lanes as Lanes>::Floats;

/// The products of the rows of as many tiles as registers have the rows of, from `tile` on, with `T`
/// tokens from `token` on.
///
/// # Safety
/// Needs the features of `D`, AVX2, FMA and F16C; must become part of a function that has them.
/// `ROWS` must be the rows of the registers.
#[inline(always)]
unsafe fn tiles<D: Dot, const T: usize, const ROWS: usize>(
    weights: &PackedMatrix,
    tile: usize,
    input: Input<'_>,
    token: usize,
) -> [[f32; ROWS]; T] {
    assert!(
        ROWS == D::Lanes::TILES * TILE_ROWS && tile + D::Lanes::TILES <= weights.tiles(),
        "there are so many tiles"
    );
    let packed = weights.tile(tile);
    let tiles = At::new(packed.as_ptr(), packed.len());
    let cols = weights.cols();
    // SAFETY: by the contract of this function; a tile has all columns.
    let sums = unsafe {
        with_layout!(weights.layout(),
            F => quantized::<D, F, T>(tiles, packed.len() / F::PACKED_BYTES, input, token),
            float dtype => match dtype {
                DType::F16 => floats::product::<D::Lanes, Half, T>(tiles, cols, input, token),
                DType::BF16 => floats::product::<D::Lanes, Brain, T>(tiles, cols, input, token),
                _ => floats::product::<D::Lanes, Single, T>(tiles, cols, input, token),
            }
        )
    };
    let mut rows = [[0.0; ROWS]; T];
    for (rows, sum) in rows.iter_mut().zip(sums) {
        // SAFETY: `rows` has room for the rows of all tiles.
        unsafe { D::Lanes::store(sum, rows.as_mut_ptr()) };
    }
    rows
}

/// # Safety
/// As [`tiles`]; each has so many blocks.
#[inline(always)]
unsafe fn quantized<D: Dot, F: Format<Codes: Unpack>, const T: usize>(
    tiles: At,
    blocks: usize,
    input: Input<'_>,
    token: usize,
) -> [Floats<D>; T] {
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
        let mut sums = [D::Lanes::zeros(); T];
        let mut block = tiles;
        for _ in 0..blocks {
            let d = head::<D::Lanes, F>(block);
            let mut part = block.add(F::FIRST_PART);
            for _ in 0..F::PARTS {
                match F::SCALES {
                    Grain::Block | Grain::Part => {
                        add_products::<D, F, T, 0, 2>(d, part, &x, &mut sums);
                    }
                    Grain::Half => {
                        add_products::<D, F, T, 0, 1>(d, part, &x, &mut sums);
                        add_products::<D, F, T, 1, 2>(d, part, &x, &mut sums);
                    }
                }
                if let Some(grain) = F::MINS {
                    let m = head::<D::Lanes, F>(block.add(F::HEAD_BYTES));
                    let factors = part.add(F::MIN_BYTES);
                    add_mins::<D::Lanes, T>(m, factors, grain, &x, &mut sums);
                }
                for x in &mut x {
                    *x = x.add(1);
                }
                part = part.add(F::PART_BYTES);
            }
            block = block.add(F::PACKED_BYTES);
        }
        sums
    }
}

/// Adds the halves `FROM..TO` of a part, which share a scale, without minimums.
///
/// # Safety
/// As [`Dot::dot`]; `part` is the packed part.
#[inline(always)]
unsafe fn add_products<D: Dot, F, const T: usize, const FROM: usize, const TO: usize>(
    d: Floats<D>,
    part: At,
    x: &[*const Part; T],
    sums: &mut [Floats<D>; T],
) where
    F: Format<Codes: Unpack>,
{
    // SAFETY: by the contract of this function.
    unsafe {
        let scale = scaled::<D::Lanes>(d, part.add(F::SCALE_BYTES), F::SCALES, FROM);
        let dots = D::dot::<F::Codes, T, FROM, TO>(part, x);
        for ((x, dot), sum) in x.iter().zip(dots).zip(sums) {
            let scale = D::Lanes::mul(scale, D::Lanes::all((**x).scale));
            *sum = D::Lanes::mul_add(D::Lanes::to_floats(dot), scale, *sum);
        }
    }
}

/// Adds the minimums of a part.
///
/// # Safety
/// As [`add_products`]; `factors` are those of the minimums of the part.
#[inline(always)]
unsafe fn add_mins<L: Lanes, const T: usize>(
    m: L::Floats,
    factors: At,
    grain: Grain,
    x: &[*const Part; T],
    sums: &mut [L::Floats; T],
) {
    // SAFETY: by the contract of this function.
    unsafe {
        let min = scaled::<L>(m, factors, grain, 0);
        if grain != Grain::Half {
            for (x, sum) in x.iter().zip(sums) {
                *sum = L::mul_add(min, L::all((**x).weighted_sum), *sum);
            }
            return;
        }
        let high_min = scaled::<L>(m, factors, grain, 1);
        for (x, sum) in x.iter().zip(sums) {
            let [low, high] = (**x).sums.map(|sum| (**x).scale * sum as f32);
            *sum = L::mul_add(min, L::all(low), *sum);
            *sum = L::mul_add(high_min, L::all(high), *sum);
        }
    }
}

/// A `d` or `m` for each row.
///
/// # Safety
/// Needs the features of `L`; `at` must have them.
#[inline(always)]
unsafe fn head<L: Lanes, F: Format>(at: At) -> L::Floats {
    // SAFETY: by the contract of this function.
    unsafe {
        match F::HEAD {
            DType::F32 => Single::load::<L>(at),
            DType::BF16 => Brain::load::<L>(at),
            _ => Half::load::<L>(at),
        }
    }
}

/// `d` times the factors of half `half` of a part, or of all of it.
///
/// # Safety
/// Needs the features of `L`; `factors` must have those of the half.
#[inline(always)]
unsafe fn scaled<L: Lanes>(d: L::Floats, factors: At, grain: Grain, half: usize) -> L::Floats {
    if grain == Grain::Block {
        return d;
    }
    // SAFETY: by the contract of this function.
    unsafe { L::mul(d, L::load_i8(factors.add(half * TILE_ROWS))) }
}

/// Four codes of group `group` of a part, in every lane.
///
/// # Safety
/// Needs the features of `L`; `x` must lead to a part that has the group.
#[inline(always)]
unsafe fn broadcast<L: Lanes>(x: *const Part, group: usize) -> L::Ints {
    // SAFETY: by the contract of this function; the codes of a part are aligned as its scale is.
    unsafe {
        let codes = (&raw const (*x).codes).cast::<i32>().add(group);
        L::all_ints(codes.read())
    }
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
