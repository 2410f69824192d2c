//! NEON: 32 registers of four lanes, taken two at a time.

use std::arch::aarch64::*;
use std::arch::asm;

use super::{Eight, Registers, with_features};

pub(crate) enum Neon {}

type Floats = (float32x4_t, float32x4_t);
type Ints = (int32x4_t, int32x4_t);

/// Applies a function of single registers to both of each argument.
macro_rules! both {
    ($function:expr, $($x:expr),+) => {
        ($function($($x.0),+), $function($($x.1),+))
    };
}

impl Registers for Neon {
    const LANES: usize = 8;
    const COUNT: usize = 16;
    type Eight = Self;
    type Floats = Floats;
    type Ints = Ints;

    with_features! { "neon":
        unsafe fn zeros() -> Floats {
            (vdupq_n_f32(0.0), vdupq_n_f32(0.0))
        }

        unsafe fn all(x: f32) -> Floats {
            (vdupq_n_f32(x), vdupq_n_f32(x))
        }

        unsafe fn load(at: *const f32) -> Floats {
            // SAFETY: by the contract of the trait.
            unsafe { (vld1q_f32(at), vld1q_f32(at.add(4))) }
        }

        unsafe fn load_halves(at: *const u16) -> Floats {
            // SAFETY: by the contract of the trait; the instructions touch registers only.
            unsafe {
                let halves = vld1q_u16(at);
                let (low, high): (float32x4_t, float32x4_t);
                asm!(
                    "fcvtl {low:v}.4s, {halves:v}.4h",
                    "fcvtl2 {high:v}.4s, {halves:v}.8h",
                    halves = in(vreg) halves,
                    low = out(vreg) low,
                    high = lateout(vreg) high,
                    options(pure, nomem, nostack, preserves_flags),
                );
                (low, high)
            }
        }

        unsafe fn store(at: *mut f32, x: Floats) {
            // SAFETY: by the contract of the trait.
            unsafe {
                vst1q_f32(at, x.0);
                vst1q_f32(at.add(4), x.1);
            }
        }

        unsafe fn add(a: Floats, b: Floats) -> Floats {
            both!(vaddq_f32, a, b)
        }

        unsafe fn sub(a: Floats, b: Floats) -> Floats {
            both!(vsubq_f32, a, b)
        }

        unsafe fn mul(a: Floats, b: Floats) -> Floats {
            both!(vmulq_f32, a, b)
        }

        unsafe fn mul_add(a: Floats, b: Floats, sum: Floats) -> Floats {
            both!(vfmaq_f32, sum, a, b)
        }

        unsafe fn mul_sub(a: Floats, b: Floats, sum: Floats) -> Floats {
            both!(vfmsq_f32, sum, a, b)
        }

        unsafe fn max(a: Floats, b: Floats) -> Floats {
            both!(vbslq_f32, both!(vcgtq_f32, a, b), a, b)
        }

        unsafe fn min(a: Floats, b: Floats) -> Floats {
            both!(vbslq_f32, both!(vcltq_f32, a, b), a, b)
        }

        unsafe fn round(x: Floats) -> Floats {
            both!(vrndnq_f32, x)
        }

        unsafe fn times_power_of_two(x: Floats, n: Floats) -> Floats {
            both!(times_power_of_two, x, n)
        }

        unsafe fn zero_below(x: Floats, y: Floats, bound: Floats) -> Floats {
            both!(zero_where, x, both!(vcltq_f32, y, bound))
        }

        unsafe fn largest(x: Floats) -> f32 {
            vmaxvq_f32(vmaxq_f32(x.0, x.1))
        }

        unsafe fn add_to_eight(sums: Floats, x: Floats) -> Floats {
            both!(vaddq_f32, sums, x)
        }

        unsafe fn int_zeros() -> Ints {
            (vdupq_n_s32(0), vdupq_n_s32(0))
        }

        unsafe fn all_ints(x: i32) -> Ints {
            (vdupq_n_s32(x), vdupq_n_s32(x))
        }

        unsafe fn all_bytes(x: i8) -> Ints {
            let bytes = vreinterpretq_s32_s8(vdupq_n_s8(x));
            (bytes, bytes)
        }

        unsafe fn sub_ints(a: Ints, b: Ints) -> Ints {
            both!(vsubq_s32, a, b)
        }

        unsafe fn and(a: Ints, b: Ints) -> Ints {
            both!(vandq_s32, a, b)
        }

        unsafe fn or(a: Ints, b: Ints) -> Ints {
            both!(vorrq_s32, a, b)
        }

        unsafe fn shift(x: Ints, by: i32) -> Ints {
            let by = vdupq_n_s16(by as i16);
            (shift(x.0, by), shift(x.1, by))
        }

        unsafe fn look_up(table: &[i8; 16], index: Ints) -> Ints {
            // SAFETY: the table has sixteen bytes.
            let table = unsafe { vld1q_s8(table.as_ptr()) };
            (look_up(table, index.0), look_up(table, index.1))
        }

        unsafe fn to_floats(x: Ints) -> Floats {
            both!(vcvtq_f32_s32, x)
        }

        unsafe fn load_pairs(at: *const u8) -> Ints {
            // SAFETY: by the contract of the trait.
            let bytes = unsafe { vld1q_s8(at.cast()) };
            (
                vreinterpretq_s32_s16(vmovl_s8(vget_low_s8(bytes))),
                vreinterpretq_s32_s16(vmovl_high_s8(bytes)),
            )
        }

        unsafe fn add_pairs(a: Ints, b: Ints, sum: Ints) -> Ints {
            both!(add_pairs, a, b, sum)
        }

        unsafe fn prefetch(at: *const u8) {
            // SAFETY: it touches nothing.
            unsafe {
                asm!(
                    "prfm pldl1keep, [{at}]",
                    at = in(reg) at,
                    options(readonly, nostack, preserves_flags),
                );
            }
        }
    }
}

impl Eight for Neon {
    with_features! { "neon":
        unsafe fn load_brains(at: *const u16) -> Floats {
            // SAFETY: by the contract of the trait.
            let brains = unsafe { vld1q_u16(at) };
            (
                vreinterpretq_f32_u32(vshll_n_u16::<16>(vget_low_u16(brains))),
                vreinterpretq_f32_u32(vshll_high_n_u16::<16>(brains)),
            )
        }

        unsafe fn load_bytes(at: *const u8) -> Floats {
            // SAFETY: by the contract of the trait.
            let shorts = vmovl_s8(unsafe { vld1_s8(at.cast()) });
            (
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(shorts))),
                vcvtq_f32_s32(vmovl_high_s16(shorts)),
            )
        }

        unsafe fn div(a: Floats, b: Floats) -> Floats {
            both!(vdivq_f32, a, b)
        }

        unsafe fn abs(x: Floats) -> Floats {
            both!(vabsq_f32, x)
        }

        unsafe fn zero_nans(x: Floats) -> Floats {
            let is_number = both!(vceqq_f32, x, x);
            both!(zero_where, x, both!(vmvnq_u32, is_number))
        }

        unsafe fn sum(x: Floats) -> f32 {
            let x = vaddq_f32(x.0, x.1);
            let x = vadd_f32(vget_low_f32(x), vget_high_f32(x));
            vget_lane_f32::<0>(x) + vget_lane_f32::<1>(x)
        }

        unsafe fn load_ints(at: *const u8) -> Ints {
            // SAFETY: by the contract of the trait.
            let (low, high) = unsafe { (vld1q_u8(at), vld1q_u8(at.add(16))) };
            (vreinterpretq_s32_u8(low), vreinterpretq_s32_u8(high))
        }

        unsafe fn add_ints(a: Ints, b: Ints) -> Ints {
            both!(vaddq_s32, a, b)
        }

        unsafe fn max_ints(a: Ints, b: Ints) -> Ints {
            both!(vmaxq_s32, a, b)
        }

        unsafe fn to_ints(x: Floats) -> Ints {
            both!(vcvtnq_s32_f32, x)
        }

        unsafe fn bits(x: Floats) -> Ints {
            both!(vreinterpretq_s32_f32, x)
        }

        unsafe fn sum_ints(x: Ints) -> i32 {
            vaddvq_s32(vaddq_s32(x.0, x.1))
        }

        unsafe fn largest_int(x: Ints) -> i32 {
            vmaxvq_s32(vmaxq_s32(x.0, x.1))
        }

        unsafe fn store_bytes(at: *mut i8, x: [Ints; 4]) {
            for (i, x) in x.into_iter().enumerate() {
                // SAFETY: by the contract of the trait.
                unsafe { vst1_s8(at.add(8 * i), vqmovn_s16(shorts(x))) };
            }
        }

        unsafe fn store_shorts(at: *mut i16, x: [Ints; 2]) {
            for (i, x) in x.into_iter().enumerate() {
                // SAFETY: by the contract of the trait.
                unsafe { vst1q_s16(at.add(8 * i), shorts(x)) };
            }
        }
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn times_power_of_two(x: float32x4_t, n: float32x4_t) -> float32x4_t {
    // In two factors: n may be 128, whose power is no float.
    let n = vcvtnq_s32_f32(n);
    let half = vshrq_n_s32::<1>(n);
    let rest = vsubq_s32(n, half);
    vmulq_f32(vmulq_f32(x, power_of_two(half)), power_of_two(rest))
}

/// `2^n` of integers whose power is a normal number.
#[inline]
#[target_feature(enable = "neon")]
fn power_of_two(n: int32x4_t) -> float32x4_t {
    vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(n, vdupq_n_s32(127))))
}

#[inline]
#[target_feature(enable = "neon")]
fn zero_where(x: float32x4_t, mask: uint32x4_t) -> float32x4_t {
    vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(x), mask))
}

/// Moves the bits of each 16 up, or down where `by` is negative.
#[inline]
#[target_feature(enable = "neon")]
fn shift(x: int32x4_t, by: int16x8_t) -> int32x4_t {
    vreinterpretq_s32_u16(vshlq_u16(vreinterpretq_u16_s32(x), by))
}

#[inline]
#[target_feature(enable = "neon")]
fn look_up(table: int8x16_t, index: int32x4_t) -> int32x4_t {
    vreinterpretq_s32_s8(vqtbl1q_s8(table, vreinterpretq_u8_s32(index)))
}

/// Adds to each lane both products of pairs of 16 bits.
#[inline]
#[target_feature(enable = "neon")]
fn add_pairs(a: int32x4_t, b: int32x4_t, sum: int32x4_t) -> int32x4_t {
    let (a, b) = (vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b));
    let low = vmull_s16(vget_low_s16(a), vget_low_s16(b));
    let high = vmull_high_s16(a, b);
    vaddq_s32(sum, vpaddq_s32(low, high))
}

/// Eight integers that fit in 16 bits.
#[inline]
#[target_feature(enable = "neon")]
fn shorts(x: Ints) -> int16x8_t {
    vcombine_s16(vqmovn_s32(x.0), vqmovn_s32(x.1))
}
