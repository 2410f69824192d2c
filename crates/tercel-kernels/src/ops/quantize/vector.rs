//! The numbers of a part in four registers.

use super::Part;
use crate::ops::registers::Eight;
use crate::quant::PART;

/// # Safety
/// Must become part of a function that has the features of `R`.
#[inline(always)]
pub(super) unsafe fn block<R: Eight>(x: &[f32], part: &mut Part) {
    assert!(x.len() == PART, "a block has {PART} elements");
    // SAFETY: by the contract of this function; four registers of eight are the 32 numbers, and so
    // many codes has a part.
    unsafe {
        let mut loaded = [R::zeros(); 4];
        for (i, loaded) in loaded.iter_mut().enumerate() {
            *loaded = R::load(x.as_ptr().add(8 * i));
        }
        let (mut largest, mut poison) = (R::zeros(), R::zeros());
        for x in loaded {
            // A NaN as the first operand is passed over, as `f32::max` does.
            largest = R::max(R::abs(x), largest);
            poison = R::add(poison, R::mul(x, R::zeros()));
        }
        let largest = R::largest(largest);
        let inverse = R::all(super::inverse(largest));
        let mut codes = [R::int_zeros(); 4];
        for (code, x) in codes.iter_mut().zip(loaded) {
            // A NaN becomes 0, as in the reference; its block is poisoned by the scale.
            *code = R::to_ints(R::zero_nans(R::mul(x, inverse)));
        }
        R::store_bytes(part.codes.as_mut_ptr(), codes);
        let sums = [
            R::sum_ints(R::add_ints(codes[0], codes[1])),
            R::sum_ints(R::add_ints(codes[2], codes[3])),
        ];
        part.finish(largest / 127.0 + R::sum(poison), sums);
    }
}
