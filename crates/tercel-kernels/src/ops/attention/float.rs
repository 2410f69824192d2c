//! Pages of half or single floats.
//!
//! The part of one key head in a page: keys `(head_dim, PAGE)`, then values `(PAGE, head_dim)`.

use std::fmt::Debug;
use std::marker::PhantomData;

use half::f16;

use super::PAGE;
use super::cache::Encoding;
use crate::Plain;
use crate::ops::registers::Registers;

/// Numbers as they are, rounded to `E`.
#[derive(Debug)]
pub(super) struct Float<E>(PhantomData<E>);

/// A float in memory.
pub(super) trait Element: Plain + Debug {
    /// The nearest number of this type.
    fn from_f32(x: f32) -> Self;

    /// The number as a single float.
    fn to_f32(self) -> f32;

    /// Consecutive numbers that fill a register.
    ///
    /// # Safety
    /// Needs the features of `R`, and so many numbers behind `at`.
    unsafe fn load<R: Registers>(at: *const Self) -> R::Floats;
}

impl<E: Element> Encoding for Float<E> {
    type Element = E;

    fn part_len(head_dim: usize) -> usize {
        2 * head_dim * PAGE
    }

    fn store(part: &mut [E], slot: usize, k: &[f32], v: &[f32]) {
        let dim = k.len();
        let (keys, values) = part.split_at_mut(dim * PAGE);
        for (column, x) in keys.chunks_exact_mut(PAGE).zip(k) {
            column[slot] = E::from_f32(*x);
        }
        for (out, x) in values[slot * dim..(slot + 1) * dim].iter_mut().zip(v) {
            *out = E::from_f32(*x);
        }
    }

    fn key(part: &[E], _head_dim: usize, token: usize, d: usize) -> f32 {
        part[d * PAGE + token].to_f32()
    }

    fn value(part: &[E], head_dim: usize, token: usize, d: usize) -> f32 {
        part[head_dim * PAGE + token * head_dim + d].to_f32()
    }
}

/// Half floats, as their bits.
impl Element for u16 {
    fn from_f32(x: f32) -> Self {
        f16::from_f32(x).to_bits()
    }

    fn to_f32(self) -> f32 {
        f16::from_bits(self).to_f32()
    }

    #[inline(always)]
    unsafe fn load<R: Registers>(at: *const Self) -> R::Floats {
        // SAFETY: by the contract of this function.
        unsafe { R::load_halves(at) }
    }
}

/// Single floats: the reference for what rounding costs.
impl Element for f32 {
    fn from_f32(x: f32) -> Self {
        x
    }

    fn to_f32(self) -> f32 {
        self
    }

    #[inline(always)]
    unsafe fn load<R: Registers>(at: *const Self) -> R::Floats {
        // SAFETY: by the contract of this function.
        unsafe { R::load(at) }
    }
}
