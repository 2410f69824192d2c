//! The reference.

use super::Part;
use crate::quant::PART;

pub(super) fn block(x: &[f32], part: &mut Part) {
    let largest = x.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
    let poison: f32 = x.iter().map(|x| x * 0.0).sum();
    let inverse = super::inverse(largest);
    let mut sums = [0; 2];
    for (i, (x, code)) in x.iter().zip(&mut part.codes).enumerate() {
        *code = (x * inverse).round_ties_even() as i8;
        sums[i / (PART / 2)] += i32::from(*code);
    }
    part.finish(largest / 127.0 + poison, sums);
}
