//! Eight or sixteen rows in the lanes of a register, one to eight tokens at a time.
//!
//! What multiplies the codes differs from one instruction set to the next ([`Dot`]); all around it
//! is the same. Functions that are `inline(always)` become part of a `tile_*` that has the processor
//! features of its set, and are compiled for those.

mod codes;
mod floats;
mod fours;
#[cfg(target_arch = "aarch64")]
mod matrices;
#[cfg(target_arch = "x86_64")]
mod pairs;
mod tiles;

use tercel_formats::DType;

use super::super::quantize::Part;
use super::Input;
use crate::layout::with_layout;
use crate::ops::registers::Registers;
use crate::quant::{Format, Grain, formats::*};
use crate::{PackedMatrix, TILE_ROWS};
use codes::Unpack;
use floats::{Brain, Float, Half, Single};
use fours::Fours;
use tiles::{At, Tiles};

/// Makes a version for the features of a processor.
macro_rules! version {
    ($(#[$doc:meta])* $name:ident, $features:literal, $dot:ty, $rows:expr) => {
        /// The products of the rows of
        $(#[$doc])*
        ///
        /// # Safety
        /// Needs the named processor features.
        #[target_feature(enable = $features)]
        pub(super) unsafe fn $name<const TOKENS: usize>(
            weights: &PackedMatrix,
            tile: usize,
            input: Input<'_>,
            token: usize,
        ) -> [[f32; $rows]; TOKENS] {
            // SAFETY: this function has the features.
            unsafe { tiles::<$dot, TOKENS, { $rows }>(weights, tile, input, token) }
        }
    };
}

#[cfg(target_arch = "x86_64")]
version! {
    /// one tile with `TOKENS` tokens from `token` on.
    tile_avx2, "avx2,fma,f16c", pairs::Pairs, TILE_ROWS
}
#[cfg(target_arch = "x86_64")]
version! {
    /// one tile with `TOKENS` tokens from `token` on.
    tile_avx_vnni, "avx2,fma,f16c,avxvnni", Fours<fours::Vex>, TILE_ROWS
}
#[cfg(target_arch = "x86_64")]
version! {
    /// one tile with `TOKENS` tokens from `token` on.
    tile_avx512_vnni, "avx2,fma,f16c,avx512f,avx512vl,avx512vnni", Fours<fours::Evex>, TILE_ROWS
}
#[cfg(target_arch = "x86_64")]
version! {
    /// two tiles that follow each other with `TOKENS` tokens from `token` on.
    two_tiles_avx512_vnni, "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni",
    Fours<fours::Wide>, 2 * TILE_ROWS
}

/// The products of the rows of two tiles of floats that follow each other with `TOKENS` tokens from
/// `token` on: without codes to unpack, the registers hold the sums of more tokens.
///
/// # Safety
/// Needs the named processor features.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) unsafe fn two_tiles_of_floats_avx512<const TOKENS: usize>(
    weights: &PackedMatrix,
    tile: usize,
    input: Input<'_>,
    token: usize,
) -> [[f32; 2 * TILE_ROWS]; TOKENS] {
    use crate::ops::registers::Avx512;
    let crate::Layout::Plain(dtype) = weights.layout() else {
        unreachable!("floats are plain")
    };
    assert!(!weights.is_quantized() && tile + 2 <= weights.tiles());
    let tiles = At::of(weights.tile(tile));
    // SAFETY: this function has the features; a tile has all columns.
    unsafe {
        let sums = floats::<Avx512, TOKENS>(dtype, tiles, weights.cols(), input, token);
        in_rows::<Avx512, TOKENS, { 2 * TILE_ROWS }>(sums)
    }
}

#[cfg(target_arch = "aarch64")]
version! {
    /// one tile with `TOKENS` tokens from `token` on.
    tile_neon, "neon", Fours<fours::Multiplied>, TILE_ROWS
}
#[cfg(target_arch = "aarch64")]
version! {
    /// one tile with `TOKENS` tokens from `token` on.
    tile_neon_dotprod, "neon,dotprod", Fours<fours::Sdot>, TILE_ROWS
}
#[cfg(target_arch = "aarch64")]
version! {
    /// one tile with `TOKENS` tokens from `token` on.
    tile_neon_i8mm, "neon,dotprod,i8mm", matrices::Matrices, TILE_ROWS
}

/// With up to so many tokens, a product waits for its weights; with more, it finds them where the
/// first tokens left them.
const FEW: usize = 8;

/// How an instruction set multiplies codes with activations.
trait Dot {
    type Registers: Tiles;

    /// Integer sums of the elements of the halves `FROM..TO` of each row times part `part` of each
    /// token.
    ///
    /// # Safety
    /// Needs the features of the instruction set. `planes` must have the codes of a part, and each
    /// of `x` must lead to one.
    unsafe fn dot<C: Unpack, const T: usize, const FROM: usize, const TO: usize>(
        planes: At,
        x: &[*const Part; T],
    ) -> [<Self::Registers as Registers>::Ints; T];
}

type Floats<D> = <<D as Dot>::Registers as Registers>::Floats;

/// The products of the rows of as many tiles as registers have the rows of, from `tile` on, with `T`
/// tokens from `token` on.
///
/// # Safety
/// Must become part of a function that has the features of `D`.
/// `ROWS` must be the rows of the registers.
#[inline(always)]
unsafe fn tiles<D: Dot, const T: usize, const ROWS: usize>(
    weights: &PackedMatrix,
    tile: usize,
    input: Input<'_>,
    token: usize,
) -> [[f32; ROWS]; T] {
    assert!(
        ROWS == D::Registers::TILES * TILE_ROWS && tile + D::Registers::TILES <= weights.tiles(),
        "there are so many tiles"
    );
    let packed = weights.tile(tile);
    let tiles = At::of(packed);
    let cols = weights.cols();
    // SAFETY: by the contract of this function; a tile has all columns.
    unsafe {
        let sums = with_layout!(weights.layout(),
            F => quantized::<D, F, T>(tiles, packed.len() / F::PACKED_BYTES, input, token),
            float dtype => floats::<D::Registers, T>(dtype, tiles, cols, input, token)
        );
        in_rows::<D::Registers, T, ROWS>(sums)
    }
}

/// # Safety
/// As [`tiles`], which have so many columns of `dtype`.
#[inline(always)]
unsafe fn floats<R: Tiles, const T: usize>(
    dtype: DType,
    tiles: At,
    cols: usize,
    input: Input<'_>,
    token: usize,
) -> [R::Floats; T] {
    // SAFETY: by the contract of this function.
    unsafe {
        match dtype {
            DType::F16 => floats::product::<R, Half, T>(tiles, cols, input, token),
            DType::BF16 => floats::product::<R, Brain, T>(tiles, cols, input, token),
            _ => floats::product::<R, Single, T>(tiles, cols, input, token),
        }
    }
}

/// The lanes of sums, for each token.
///
/// # Safety
/// As [`tiles`].
#[inline(always)]
unsafe fn in_rows<R: Tiles, const T: usize, const ROWS: usize>(
    sums: [R::Floats; T],
) -> [[f32; ROWS]; T] {
    assert!(ROWS == R::LANES, "a lane is a row");
    let mut rows = [[0.0; ROWS]; T];
    for (rows, sum) in rows.iter_mut().zip(sums) {
        // SAFETY: by the contract of this function; `rows` has room for all lanes.
        unsafe { R::store(rows.as_mut_ptr(), sum) };
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
        let mut sums = [D::Registers::zeros(); T];
        let mut block = tiles;
        for _ in 0..blocks {
            if T <= FEW {
                block.fetch_next::<D::Registers>(F::PACKED_BYTES);
            }
            let d = head::<D::Registers, F>(block);
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
                    let m = head::<D::Registers, F>(block.add(F::HEAD_BYTES));
                    let factors = part.add(F::MIN_BYTES);
                    add_mins::<D::Registers, T>(m, factors, grain, &x, &mut sums);
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
        let scale = scaled::<D::Registers>(d, part.add(F::SCALE_BYTES), F::SCALES, FROM);
        let dots = D::dot::<F::Codes, T, FROM, TO>(part, x);
        for ((x, dot), sum) in x.iter().zip(dots).zip(sums) {
            let scale = D::Registers::mul(scale, D::Registers::all((**x).scale));
            *sum = D::Registers::mul_add(D::Registers::to_floats(dot), scale, *sum);
        }
    }
}

/// Adds the minimums of a part.
///
/// # Safety
/// As [`add_products`]; `factors` are those of the minimums of the part.
#[inline(always)]
unsafe fn add_mins<R: Tiles, const T: usize>(
    m: R::Floats,
    factors: At,
    grain: Grain,
    x: &[*const Part; T],
    sums: &mut [R::Floats; T],
) {
    // SAFETY: by the contract of this function.
    unsafe {
        let min = scaled::<R>(m, factors, grain, 0);
        if grain != Grain::Half {
            for (x, sum) in x.iter().zip(sums) {
                *sum = R::mul_add(min, R::all((**x).weighted_sum), *sum);
            }
            return;
        }
        let high_min = scaled::<R>(m, factors, grain, 1);
        for (x, sum) in x.iter().zip(sums) {
            let [low, high] = (**x).sums.map(|sum| (**x).scale * sum as f32);
            *sum = R::mul_add(min, R::all(low), *sum);
            *sum = R::mul_add(high_min, R::all(high), *sum);
        }
    }
}

/// A `d` or `m` for each row.
///
/// # Safety
/// Needs the features of `R`; `at` must have them.
#[inline(always)]
unsafe fn head<R: Tiles, F: Format>(at: At) -> R::Floats {
    // SAFETY: by the contract of this function.
    unsafe {
        match F::HEAD {
            DType::F32 => Single::load::<R>(at),
            DType::BF16 => Brain::load::<R>(at),
            _ => Half::load::<R>(at),
        }
    }
}

/// `d` times the factors of half `half` of a part, or of all of it.
///
/// # Safety
/// Needs the features of `R`; `factors` must have those of the half.
#[inline(always)]
unsafe fn scaled<R: Tiles>(d: R::Floats, factors: At, grain: Grain, half: usize) -> R::Floats {
    if grain == Grain::Block {
        return d;
    }
    // SAFETY: by the contract of this function.
    unsafe { R::mul(d, <R as Tiles>::load_bytes(factors.add(half * TILE_ROWS))) }
}

/// Four codes of group `group` of a part, in every lane.
///
/// # Safety
/// Needs the features of `R`; `x` must lead to a part that has the group.
#[inline(always)]
unsafe fn broadcast<R: Tiles>(x: *const Part, group: usize) -> R::Ints {
    // SAFETY: by the contract of this function; the codes of a part are aligned as its scale is.
    unsafe {
        let codes = (&raw const (*x).codes).cast::<i32>().add(group);
        R::all_ints(codes.read())
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
