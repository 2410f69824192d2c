//! Four products of bytes, added to a 32-bit sum by one instruction: that of VNNI, which comes in
//! two encodings, and that of NEON's dot products.

use std::marker::PhantomData;

use super::tiles::{At, Tiles};
use super::{Dot, Part, Unpack, broadcast, sum};
use crate::ops::registers::Registers;
use crate::quant::GROUPS;

/// The instruction.
///
/// # Safety
/// All functions need the features of the implementation.
pub(super) trait Instruction {
    type Registers: Tiles;

    /// Codes of a group as the instruction wants them: with a sign, where it does not say otherwise.
    ///
    /// # Safety
    /// As [`Unpack::group`].
    #[inline(always)]
    unsafe fn codes<C: Unpack>(planes: At, group: usize) -> <Self::Registers as Registers>::Ints {
        // SAFETY: by the contract of this function.
        unsafe { C::group::<Self::Registers>(planes, group) }
    }

    /// What [`codes`](Self::codes) has where the code stands for 0.
    fn zero<C: Unpack>() -> i32 {
        C::ZERO
    }

    /// Adds to the sum of each lane four products of `codes` and `x`.
    unsafe fn add(
        sums: <Self::Registers as Registers>::Ints,
        codes: <Self::Registers as Registers>::Ints,
        x: <Self::Registers as Registers>::Ints,
    ) -> <Self::Registers as Registers>::Ints;
}

pub(super) struct Fours<I>(PhantomData<I>);

impl<I: Instruction> Dot for Fours<I> {
    type Registers = I::Registers;

    #[inline(always)]
    unsafe fn dot<C: Unpack, const T: usize, const FROM: usize, const TO: usize>(
        planes: At,
        x: &[*const Part; T],
    ) -> [<I::Registers as Registers>::Ints; T] {
        // SAFETY: by the contract of the trait.
        unsafe {
            let mut dots = [I::Registers::int_zeros(); T];
            for group in FROM * GROUPS / 2..TO * GROUPS / 2 {
                let codes = I::codes::<C>(planes, group);
                for (x, dot) in x.iter().zip(&mut dots) {
                    *dot = I::add(*dot, codes, broadcast::<I::Registers>(*x, group));
                }
            }
            let zero = I::zero::<C>();
            if zero != 0 {
                for (x, dot) in x.iter().zip(&mut dots) {
                    let zeros = I::Registers::all_ints(zero * sum::<FROM, TO>(*x));
                    *dot = I::Registers::sub_ints(*dot, zeros);
                }
            }
            dots
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use vnni::{Evex, Vex, Wide};

#[cfg(target_arch = "x86_64")]
mod vnni {
    use std::arch::x86_64::*;

    use super::{At, Instruction, Unpack};
    use crate::ops::registers::{Avx2, Avx512};

    /// That of AVX-VNNI.
    pub(in super::super) enum Vex {}

    /// That of AVX-512, with twice the registers.
    pub(in super::super) enum Evex {}

    /// That of AVX-512 in its full width.
    pub(in super::super) enum Wide {}

    /// All take codes without a sign, and an activation with one.
    macro_rules! instruction {
        ($type:ty, $registers:ty, $ints:ty, $features:literal, $add:ident) => {
            impl Instruction for $type {
                type Registers = $registers;

                #[inline(always)]
                unsafe fn codes<C: Unpack>(planes: At, group: usize) -> $ints {
                    // SAFETY: by the contract of the trait.
                    unsafe { C::unsigned::<$registers>(planes, group) }
                }

                fn zero<C: Unpack>() -> i32 {
                    C::UNSIGNED_ZERO
                }

                #[inline]
                #[target_feature(enable = $features)]
                unsafe fn add(sums: $ints, codes: $ints, x: $ints) -> $ints {
                    $add(sums, codes, x)
                }
            }
        };
    }

    instruction!(Vex, Avx2, __m256i, "avx2,avxvnni", _mm256_dpbusd_avx_epi32);
    instruction!(
        Evex,
        Avx2,
        __m256i,
        "avx2,avx512f,avx512vl,avx512vnni",
        _mm256_dpbusd_epi32
    );
    instruction!(
        Wide,
        Avx512,
        __m512i,
        "avx512f,avx512vnni",
        _mm512_dpbusd_epi32
    );
}

#[cfg(target_arch = "aarch64")]
pub(super) use neon::{Multiplied, Sdot};

#[cfg(target_arch = "aarch64")]
mod neon {
    use std::arch::aarch64::*;
    use std::arch::asm;

    use super::Instruction;
    use crate::ops::registers::{Neon, Registers};

    type Ints = <Neon as Registers>::Ints;

    /// That of the dot products.
    pub(in super::super) enum Sdot {}

    /// What stands in for it where there is none: products of 16 bits, added in pairs twice.
    pub(in super::super) enum Multiplied {}

    impl Instruction for Sdot {
        type Registers = Neon;

        #[inline]
        #[target_feature(enable = "neon,dotprod")]
        unsafe fn add(sums: Ints, codes: Ints, x: Ints) -> Ints {
            (sdot(sums.0, codes.0, x.0), sdot(sums.1, codes.1, x.1))
        }
    }

    impl Instruction for Multiplied {
        type Registers = Neon;

        #[inline]
        #[target_feature(enable = "neon")]
        unsafe fn add(sums: Ints, codes: Ints, x: Ints) -> Ints {
            (
                multiplied(sums.0, codes.0, x.0),
                multiplied(sums.1, codes.1, x.1),
            )
        }
    }

    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    fn sdot(mut sums: int32x4_t, codes: int32x4_t, x: int32x4_t) -> int32x4_t {
        // SAFETY: the instruction touches registers only.
        unsafe {
            asm!(
                "sdot {sums:v}.4s, {codes:v}.16b, {x:v}.16b",
                sums = inout(vreg) sums,
                codes = in(vreg) codes,
                x = in(vreg) x,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        sums
    }

    #[inline]
    #[target_feature(enable = "neon")]
    fn multiplied(sums: int32x4_t, codes: int32x4_t, x: int32x4_t) -> int32x4_t {
        let (codes, x) = (vreinterpretq_s8_s32(codes), vreinterpretq_s8_s32(x));
        let low = vmull_s8(vget_low_s8(codes), vget_low_s8(x));
        let high = vmull_high_s8(codes, x);
        // Two products are at most 2 * 128 * 127, which fits in 16 bits.
        vpadalq_s16(sums, vpaddq_s16(low, high))
    }
}
