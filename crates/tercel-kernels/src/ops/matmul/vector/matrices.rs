//! NEON's products of matrices of bytes: two rows times two tokens, eight columns at a time.
//!
//! Two groups of codes that follow each other are the eight columns; their 32-bit lanes, zipped, are
//! two rows a register.

use std::arch::aarch64::*;
use std::arch::asm;

use super::fours::{Fours, Sdot};
use super::tiles::At;
use super::{Dot, Part, Unpack, sum};
use crate::ops::registers::{Neon, Registers};
use crate::quant::GROUPS;

/// Registers of two rows in a tile.
const ROW_PAIRS: usize = 4;

pub(super) enum Matrices {}

impl Dot for Matrices {
    type Registers = Neon;

    #[inline(always)]
    unsafe fn dot<C: Unpack, const T: usize, const FROM: usize, const TO: usize>(
        planes: At,
        x: &[*const Part; T],
    ) -> [<Neon as Registers>::Ints; T] {
        // SAFETY: by the contract of the trait.
        unsafe {
            if T % 2 == 1 {
                // One token fills half a matrix.
                return Fours::<Sdot>::dot::<C, T, FROM, TO>(planes, x);
            }
            // `[pair of tokens][pair of rows]`, the rows of the first token and of the second by
            // turns: a tile has at most `T / 2` used pairs.
            let mut products = [[vdupq_n_s32(0); ROW_PAIRS]; T];
            for group in (FROM * GROUPS / 2..TO * GROUPS / 2).step_by(2) {
                let rows = rows_of(
                    C::group::<Neon>(planes, group),
                    C::group::<Neon>(planes, group + 1),
                );
                for (x, products) in x.chunks_exact(2).zip(&mut products) {
                    let tokens = two_tokens(x[0], x[1], group);
                    for (product, rows) in products.iter_mut().zip(rows) {
                        *product = smmla(*product, rows, tokens);
                    }
                }
            }
            let mut dots = [Neon::int_zeros(); T];
            for (dots, products) in dots.chunks_exact_mut(2).zip(products) {
                let [even, odd] = rows_in_lanes(products);
                (dots[0], dots[1]) = (even, odd);
            }
            if C::ZERO != 0 {
                for (x, dot) in x.iter().zip(&mut dots) {
                    let zeros = Neon::all_ints(C::ZERO * sum::<FROM, TO>(*x));
                    *dot = Neon::sub_ints(*dot, zeros);
                }
            }
            dots
        }
    }
}

/// The eight columns of two groups, two rows a register.
#[inline]
#[target_feature(enable = "neon")]
fn rows_of(
    first: (int32x4_t, int32x4_t),
    second: (int32x4_t, int32x4_t),
) -> [int32x4_t; ROW_PAIRS] {
    [
        vzip1q_s32(first.0, second.0),
        vzip2q_s32(first.0, second.0),
        vzip1q_s32(first.1, second.1),
        vzip2q_s32(first.1, second.1),
    ]
}

/// The codes of groups `group` and `group + 1` of two tokens.
///
/// # Safety
/// Both must lead to a part that has the groups.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn two_tokens(first: *const Part, second: *const Part, group: usize) -> int32x4_t {
    // SAFETY: by the contract of this function.
    let [first, second] = [first, second].map(|part| unsafe {
        let codes = (&raw const (*part).codes).cast::<i8>();
        vld1_s8(codes.add(4 * group))
    });
    vreinterpretq_s32_s8(vcombine_s8(first, second))
}

/// A lane for each row, of the first token and of the second.
#[inline]
#[target_feature(enable = "neon")]
fn rows_in_lanes(products: [int32x4_t; ROW_PAIRS]) -> [(int32x4_t, int32x4_t); 2] {
    let [a, b, c, d] = products;
    [
        (vuzp1q_s32(a, b), vuzp1q_s32(c, d)),
        (vuzp2q_s32(a, b), vuzp2q_s32(c, d)),
    ]
}

/// Adds the products of two rows of eight and two rows of eight: first times first, first times
/// second, second times first, second times second.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn smmla(mut sums: int32x4_t, rows: int32x4_t, tokens: int32x4_t) -> int32x4_t {
    // SAFETY: the instruction touches registers only.
    unsafe {
        asm!(
            "smmla {sums:v}.4s, {rows:v}.16b, {tokens:v}.16b",
            sums = inout(vreg) sums,
            rows = in(vreg) rows,
            tokens = in(vreg) tokens,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}
