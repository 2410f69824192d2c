//! Vector registers, the same to a kernel on every processor.
//!
//! A kernel is written once, for any [`Registers`] or for those of eight lanes ([`Eight`]), and
//! compiled for each; only this folder, and what multiplies codes in `matmul`, names instructions.
//! The functions of kernels are `inline(always)`: they become part of one that has the features of
//! its processor, and are compiled for those.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod each;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(test)]
mod tests;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::Avx512;
pub(crate) use each::{Each, for_each};
#[cfg(target_arch = "aarch64")]
pub(crate) use neon::Neon;

/// Lanes of 32 bits.
///
/// # Safety
/// All functions need the features of the implementation, and pointers that lead to as much as they
/// read or write.
pub(crate) trait Registers: Sized {
    /// Numbers in a register.
    const LANES: usize;
    /// Registers of this width that the processor has.
    const COUNT: usize;
    /// These, or half of one. Sums of lanes are kept in eight whatever the width, so that every
    /// processor adds in the same order.
    type Eight: Eight;
    type Floats: Copy;
    /// Integers of 32 bits; some functions take each as two of 16 or four of 8.
    type Ints: Copy;

    unsafe fn zeros() -> Self::Floats;
    /// A number in every lane.
    unsafe fn all(x: f32) -> Self::Floats;
    unsafe fn load(at: *const f32) -> Self::Floats;
    unsafe fn load_halves(at: *const u16) -> Self::Floats;
    unsafe fn store(at: *mut f32, x: Self::Floats);
    unsafe fn add(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    unsafe fn sub(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    unsafe fn mul(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `sum + a * b`, rounded once.
    unsafe fn mul_add(a: Self::Floats, b: Self::Floats, sum: Self::Floats) -> Self::Floats;
    /// `sum - a * b`, rounded once.
    unsafe fn mul_sub(a: Self::Floats, b: Self::Floats, sum: Self::Floats) -> Self::Floats;
    /// The greater; `b` where one of them is no number.
    unsafe fn max(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// The lesser; `b` where one of them is no number.
    unsafe fn min(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// The nearest integers, ties to even.
    unsafe fn round(x: Self::Floats) -> Self::Floats;
    /// `x * 2^n`, for integers in -126..=128.
    unsafe fn times_power_of_two(x: Self::Floats, n: Self::Floats) -> Self::Floats;
    /// `x`, or 0 where `y` is less than `bound`.
    unsafe fn zero_below(x: Self::Floats, y: Self::Floats, bound: Self::Floats) -> Self::Floats;
    /// The largest lane.
    unsafe fn largest(x: Self::Floats) -> f32;
    /// Adds lane `i` to sum `i % 8`.
    unsafe fn add_to_eight(sums: EightFloats<Self>, x: Self::Floats) -> EightFloats<Self>;

    unsafe fn int_zeros() -> Self::Ints;
    unsafe fn all_ints(x: i32) -> Self::Ints;
    unsafe fn all_bytes(x: i8) -> Self::Ints;
    unsafe fn sub_ints(a: Self::Ints, b: Self::Ints) -> Self::Ints;
    unsafe fn and(a: Self::Ints, b: Self::Ints) -> Self::Ints;
    unsafe fn or(a: Self::Ints, b: Self::Ints) -> Self::Ints;
    #[cfg(target_arch = "x86_64")]
    unsafe fn xor(a: Self::Ints, b: Self::Ints) -> Self::Ints;
    /// Moves the bits of each 16 up, or down where `by` is negative.
    unsafe fn shift(x: Self::Ints, by: i32) -> Self::Ints;
    /// Of sixteen bytes those that the low four bits of each byte of `index` say; the others must
    /// be 0.
    unsafe fn look_up(table: &[i8; 16], index: Self::Ints) -> Self::Ints;
    unsafe fn to_floats(x: Self::Ints) -> Self::Floats;
    /// Two bytes for each lane, widened to 16 bits.
    unsafe fn load_pairs(at: *const u8) -> Self::Ints;
    /// Adds to each lane both products of pairs of 16 bits.
    unsafe fn add_pairs(a: Self::Ints, b: Self::Ints, sum: Self::Ints) -> Self::Ints;
    /// Starts loading what is there.
    unsafe fn prefetch(at: *const u8);
}

pub(crate) type EightFloats<R> = <<R as Registers>::Eight as Registers>::Floats;

/// Eight lanes.
///
/// # Safety
/// As [`Registers`].
pub(crate) trait Eight: Registers<Eight = Self> {
    unsafe fn load_brains(at: *const u16) -> Self::Floats;
    /// Signed bytes, as floats.
    unsafe fn load_bytes(at: *const u8) -> Self::Floats;
    unsafe fn div(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    unsafe fn abs(x: Self::Floats) -> Self::Floats;
    /// `x`, or 0 where it is no number.
    unsafe fn zero_nans(x: Self::Floats) -> Self::Floats;
    /// The sum of all lanes: of halves, of quarters, of both.
    unsafe fn sum(x: Self::Floats) -> f32;

    unsafe fn load_ints(at: *const u8) -> Self::Ints;
    unsafe fn add_ints(a: Self::Ints, b: Self::Ints) -> Self::Ints;
    unsafe fn max_ints(a: Self::Ints, b: Self::Ints) -> Self::Ints;
    /// The nearest integers, ties to even. They must fit.
    unsafe fn to_ints(x: Self::Floats) -> Self::Ints;
    /// The bits of the numbers.
    unsafe fn bits(x: Self::Floats) -> Self::Ints;
    unsafe fn sum_ints(x: Self::Ints) -> i32;
    unsafe fn largest_int(x: Self::Ints) -> i32;
    /// Writes integers that fit in 8 bits.
    unsafe fn store_bytes(at: *mut i8, x: [Self::Ints; 4]);
    /// Writes integers that fit in 16 bits.
    unsafe fn store_shorts(at: *mut i16, x: [Self::Ints; 2]);
}

/// Gives functions of an implementation the features that they need.
macro_rules! with_features {
    ($features:literal: $(
        $(#[$doc:meta])*
        unsafe fn $name:ident ( $($arg:ident : $type:ty),* ) $(-> $out:ty)? $body:block
    )*) => {
        $(
            $(#[$doc])*
            #[inline]
            #[target_feature(enable = $features)]
            unsafe fn $name($($arg: $type),*) $(-> $out)? $body
        )*
    };
}
use with_features;

/// `e^x`, within 2 ULP for results that are normal numbers; smaller ones are 0.
///
/// Range reduction to `|r| <= ln(2) / 2` and the polynomial of Cephes' `expf`.
///
/// # Safety
/// Must become part of a function that has the features of `R`.
#[inline(always)]
pub(crate) unsafe fn exp<R: Registers>(x: R::Floats) -> R::Floats {
    /// Below, the result is no normal number.
    const LOWEST: f32 = -87.336_54;
    /// Above the largest whose result is finite.
    const HIGHEST: f32 = 89.0;
    // SAFETY: by the contract of this function.
    unsafe {
        let lowest = R::all(LOWEST);
        // The order of operands keeps what is no number.
        let clamped = R::max(lowest, R::min(R::all(HIGHEST), x));
        let n = R::round(R::mul(clamped, R::all(std::f32::consts::LOG2_E)));
        // ln(2) in two pieces, so that the product with n loses nothing.
        let r = R::mul_sub(n, R::all(0.693_359_4), clamped);
        let r = R::mul_sub(n, R::all(-2.121_944_4e-4), r);
        let mut p = R::all(1.987_569_1e-4);
        for coefficient in [
            1.398_199_9e-3,
            8.333_452e-3,
            4.166_579_6e-2,
            0.166_666_66,
            0.5,
        ] {
            p = R::mul_add(p, r, R::all(coefficient));
        }
        let p = R::add(R::mul_add(p, R::mul(r, r), r), R::all(1.0));
        R::zero_below(R::times_power_of_two(p, n), x, lowest)
    }
}

/// `x / (1 + e^-s)`
///
/// # Safety
/// As [`exp`].
#[inline(always)]
pub(crate) unsafe fn gated_by_sigmoid<R: Eight>(x: R::Floats, s: R::Floats) -> R::Floats {
    // SAFETY: by the contract of this function.
    unsafe {
        let power = exp::<R>(R::sub(R::zeros(), s));
        R::div(x, R::add(R::all(1.0), power))
    }
}
