//! The reference.

use super::BLOCK;

/// Replaces `x`, one token's inputs of a few channels, by their convolution with the rows
/// `before`, oldest first.
pub(super) fn row(before: &[&[f32]], weights: &[[f32; BLOCK]], x: &mut [f32]) {
    for (lane, x) in x.iter_mut().enumerate() {
        let mut sum = 0.0;
        for (before, weights) in before.iter().zip(weights) {
            sum += before[lane] * weights[lane];
        }
        sum += *x * weights[before.len()][lane];
        *x = sum / (1.0 + (-sum).exp());
    }
}
