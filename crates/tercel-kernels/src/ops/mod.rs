//! The operations of a forward pass, one folder each: `mod.rs` has the contract and the division
//! of work among threads, `scalar.rs` the reference, `vector.rs` the version for any [`registers`].
//!
//! Shapes are row-major, the number of tokens first: `(n, cols)`.

pub mod attention;
pub mod elementwise;
pub mod gated;
pub mod gated_delta;
pub mod matmul;
pub mod norm_gated;
pub mod quantize;
pub(crate) mod registers;
pub mod rms_norm;
pub mod rope;
pub mod route;
pub mod short_conv;

use std::marker::PhantomData;
use std::ops::Range;

/// A slice that several threads write, each its own part.
pub(crate) struct SharedMut<'a, T> {
    pointer: *mut T,
    len: usize,
    lifetime: PhantomData<&'a mut [T]>,
}

// SAFETY: the only access is `slice`, whose callers promise disjoint ranges.
unsafe impl<T: Send> Sync for SharedMut<'_, T> {}

impl<'a, T> SharedMut<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self {
            pointer: slice.as_mut_ptr(),
            len: slice.len(),
            lifetime: PhantomData,
        }
    }

    /// The elements of `range`.
    ///
    /// # Safety
    /// While the result lives, no other call may give out an overlapping range.
    ///
    /// # Panics
    /// When the range is outside the slice.
    #[expect(clippy::mut_from_ref, reason = "disjointness is the caller's promise")]
    pub(crate) unsafe fn slice(&self, range: Range<usize>) -> &mut [T] {
        assert!(
            range.start <= range.end && range.end <= self.len,
            "{range:?} of {}",
            self.len
        );
        // SAFETY: inside the slice by the check above; exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.add(range.start), range.len()) }
    }
}

/// Random floats for tests: a fixed sequence for each seed, in -1..1.
#[cfg(test)]
pub(crate) fn random(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}
