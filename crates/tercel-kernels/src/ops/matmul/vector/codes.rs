//! The codes of a part as bytes in registers: four of each row at a time.

use super::tiles::{At, Tiles};
use crate::quant::{Bits, Bytes, Codes, Lookup, Signed, Values};

/// Codes as a kernel multiplies them.
pub(super) trait Unpack: Codes {
    /// Whether bytes of [`group`](Self::group) have a sign.
    #[cfg(target_arch = "x86_64")]
    const IS_SIGNED: bool = true;

    /// What [`group`](Self::group) has where the code stands for 0.
    const ZERO: i32 = 0;

    /// What [`unsigned`](Self::unsigned) has where the code stands for 0.
    #[cfg(target_arch = "x86_64")]
    const UNSIGNED_ZERO: i32 = Self::ZERO + 128;

    /// A byte for each code of a group.
    ///
    /// # Safety
    /// Needs the features of `R`; `planes` must have `BYTES` in each tile.
    unsafe fn group<R: Tiles>(planes: At, group: usize) -> R::Ints;

    /// A byte without a sign for each code of a group.
    ///
    /// # Safety
    /// As [`group`](Self::group).
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn unsigned<R: Tiles>(planes: At, group: usize) -> R::Ints {
        // SAFETY: by the contract of this function.
        unsafe { R::xor(Self::group::<R>(planes, group), R::all_bytes(-128)) }
    }
}

impl<const LOW: i32, const HIGH: i32, const ZERO: i32> Unpack for Bits<LOW, HIGH, ZERO> {
    #[cfg(target_arch = "x86_64")]
    const IS_SIGNED: bool = false;
    const ZERO: i32 = ZERO;
    #[cfg(target_arch = "x86_64")]
    const UNSIGNED_ZERO: i32 = ZERO;

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn unsigned<R: Tiles>(planes: At, group: usize) -> R::Ints {
        // SAFETY: by the contract of this function.
        unsafe { Self::group::<R>(planes, group) }
    }

    #[inline(always)]
    unsafe fn group<R: Tiles>(planes: At, group: usize) -> R::Ints {
        // SAFETY: by the contract of this function.
        unsafe {
            let low = bits::<R, LOW, 0>(planes, group);
            if HIGH == 0 {
                return low;
            }
            R::or(
                low,
                bits::<R, HIGH, LOW>(planes.add(Self::HIGH_PLANE), group),
            )
        }
    }
}

impl Unpack for Signed {
    #[inline(always)]
    unsafe fn group<R: Tiles>(planes: At, group: usize) -> R::Ints {
        // SAFETY: by the contract of this function.
        unsafe { R::load_codes(planes.add(group * 32)) }
    }
}

impl Unpack for Bytes {
    const ZERO: i32 = -128;

    #[inline(always)]
    unsafe fn group<R: Tiles>(planes: At, group: usize) -> R::Ints {
        // SAFETY: by the contract of this function.
        unsafe { Signed::group::<R>(planes, group) }
    }
}

impl<V: Values> Unpack for Lookup<V> {
    #[inline(always)]
    unsafe fn group<R: Tiles>(planes: At, group: usize) -> R::Ints {
        // SAFETY: by the contract of this function.
        unsafe { R::look_up(&V::VALUES, bits::<R, 4, 0>(planes, group)) }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn unsigned<R: Tiles>(planes: At, group: usize) -> R::Ints {
        // SAFETY: as above.
        unsafe {
            R::look_up(
                &const { unsigned(V::VALUES) },
                bits::<R, 4, 0>(planes, group),
            )
        }
    }
}

/// The values of a table, each 128 more, in bytes without a sign.
#[cfg(target_arch = "x86_64")]
const fn unsigned(mut values: [i8; 16]) -> [i8; 16] {
    let mut i = 0;
    while i < values.len() {
        values[i] ^= -128;
        i += 1;
    }
    values
}

/// The `WIDTH` bits of each code of a group out of a plane, moved up by `BY`.
///
/// # Safety
/// As [`Unpack::group`].
#[inline(always)]
unsafe fn bits<R: Tiles, const WIDTH: i32, const BY: i32>(plane: At, group: usize) -> R::Ints {
    let groups = 8 / WIDTH as usize;
    // The loop over groups is unrolled, so what it is shifted by is a constant.
    let up = BY - WIDTH * (group % groups) as i32;
    // SAFETY: by the contract of this function.
    unsafe {
        let held = R::load_codes(plane.add(group / groups * 32));
        R::and(R::shift(held, up), R::all_bytes(((1 << WIDTH) - 1) << BY))
    }
}
