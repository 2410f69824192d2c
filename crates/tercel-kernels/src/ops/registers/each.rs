//! Functions of each number by itself.

use super::Eight;

/// A function of a number and of `N` others at its place.
pub(crate) trait Each<const N: usize> {
    /// # Safety
    /// Needs the features of `R`.
    unsafe fn of<R: Eight>(&self, x: R::Floats, others: [R::Floats; N]) -> R::Floats;
}

/// Replaces every number of `x`. A tail is padded, so that a number's place does not change its
/// bits.
///
/// # Safety
/// Must become part of a function that has the features of `R`.
///
/// # Panics
/// When the lengths differ.
#[inline(always)]
pub(crate) unsafe fn for_each<R: Eight, const N: usize>(
    function: &impl Each<N>,
    x: &mut [f32],
    others: [&[f32]; N],
) {
    let len = x.len();
    for other in others {
        assert!(other.len() == len, "every number has its others");
    }
    let whole = len / R::LANES * R::LANES;
    let (body, tail) = x.split_at_mut(whole);
    for (i, x) in body.chunks_exact_mut(R::LANES).enumerate() {
        // SAFETY: all have a register's worth of numbers there, since they are as long as `x`.
        unsafe {
            let others = others.map(|other| other.as_ptr().add(i * R::LANES));
            replace::<R, N>(function, x.as_mut_ptr(), others);
        }
    }
    if tail.is_empty() {
        return;
    }
    let mut padded = [0.0; 8];
    let mut padded_others = [[0.0; 8]; N];
    padded[..tail.len()].copy_from_slice(tail);
    for (padded, other) in padded_others.iter_mut().zip(others) {
        padded[..tail.len()].copy_from_slice(&other[whole..]);
    }
    // SAFETY: the arrays have eight numbers.
    unsafe {
        let others = padded_others.each_ref().map(|other| other.as_ptr());
        replace::<R, N>(function, padded.as_mut_ptr(), others);
    }
    tail.copy_from_slice(&padded[..tail.len()]);
}

/// # Safety
/// As [`for_each`]; the pointers must lead to eight numbers.
#[inline(always)]
unsafe fn replace<R: Eight, const N: usize>(
    function: &impl Each<N>,
    x: *mut f32,
    others: [*const f32; N],
) {
    // SAFETY: by the contract of this function.
    unsafe {
        let mut loaded = [R::zeros(); N];
        for (loaded, other) in loaded.iter_mut().zip(others) {
            *loaded = R::load(other);
        }
        R::store(x, function.of::<R>(R::load(x), loaded));
    }
}
