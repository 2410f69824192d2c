//! Eight channels at a time; a tail is padded, so that a channel's place does not change its bits.

use super::{BLOCK, MAX_TAPS};
use crate::ops::registers::{Eight, gated_by_sigmoid};

/// # Safety
/// Must become part of a function that has the features of `R`.
#[inline(always)]
pub(super) unsafe fn row<R: Eight>(before: &[&[f32]], weights: &[[f32; BLOCK]], x: &mut [f32]) {
    let taps = before.len() + 1;
    assert!(taps == weights.len() && taps <= MAX_TAPS && x.len() <= BLOCK);
    assert!(before.iter().all(|row| row.len() == x.len()));
    let whole = x.len() / 8 * 8;
    // SAFETY: by the contract of this function; `lane + 8` is inside each row, the weights are as
    // wide as a block, and a tail begins at least eight before their end.
    unsafe {
        let mut sums = [R::zeros(); BLOCK / 8];
        for (row, weights) in before.iter().zip(weights) {
            for (sum, lane) in sums.iter_mut().zip((0..whole).step_by(8)) {
                let input = R::load(row.as_ptr().add(lane));
                *sum = R::mul_add(input, R::load(weights.as_ptr().add(lane)), *sum);
            }
        }
        let last = weights[taps - 1].as_ptr();
        for (sum, lane) in sums.iter().zip((0..whole).step_by(8)) {
            let at = x.as_mut_ptr().add(lane);
            let sum = R::mul_add(R::load(at), R::load(last.add(lane)), *sum);
            R::store(at, gated_by_sigmoid::<R>(sum, sum));
        }
        if whole == x.len() {
            return;
        }
        let mut sum = R::zeros();
        let mut padded = [0.0; 8];
        let tail = x.len() - whole;
        for (tap, weights) in weights.iter().enumerate() {
            let row = before.get(tap).copied().unwrap_or(x);
            padded[..tail].copy_from_slice(&row[whole..]);
            let weight = R::load(weights.as_ptr().add(whole));
            sum = R::mul_add(R::load(padded.as_ptr()), weight, sum);
        }
        R::store(padded.as_mut_ptr(), gated_by_sigmoid::<R>(sum, sum));
        x[whole..].copy_from_slice(&padded[..tail]);
    }
}
