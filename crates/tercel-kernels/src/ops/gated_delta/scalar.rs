//! The reference, which also computes the columns that fill no vector.

use std::ops::Range;

use super::Head;

pub(super) fn run(head: &Head<'_>, state: &mut [f32]) {
    columns(head, 0..head.shape.value_dim, state);
}

/// Computes some columns of a head: one does not depend on another.
pub(super) fn columns(head: &Head<'_>, columns: Range<usize>, state: &mut [f32]) {
    let stride = head.shape.value_dim;
    for column in columns {
        for index in 0..head.n {
            let token = head.token(index);
            let g = token.decay;
            let mut seen = 0.0f32;
            for (s, k) in state[column..].iter().step_by(stride).zip(token.k) {
                seen = k.mul_add(*s, seen);
            }
            let delta = (-g).mul_add(seen, token.v[column]) * token.beta;
            let mut y = 0.0f32;
            let rows = state[column..].iter_mut().step_by(stride);
            for ((s, k), q) in rows.zip(token.k).zip(token.q) {
                *s = k.mul_add(delta, g * *s);
                y = q.mul_add(*s, y);
            }
            // SAFETY: this call computes the head, and the result lives no longer than the line.
            unsafe { head.out(index)[column] = y };
        }
    }
}
