//! Thirty-two columns of the state at a time through all tokens. What a token reads of the state
//! is summed while the one before writes it, so that each token passes over the state once.

use super::{Head, scalar};
use crate::ops::registers::Eight;

/// Rows of a state whose columns are copied side by side: with a long stride between them they
/// would fall into the same few lines of the first cache.
const MAX_COPIED_ROWS: usize = 128;
/// From so many tokens on the copy pays.
const MIN_COPIED_TOKENS: usize = 4;
/// Columns computed together.
const WIDTH: usize = 32;

/// # Safety
/// Must become part of a function that has the features of `R`.
#[inline(always)]
pub(super) unsafe fn run<R: Eight>(head: &Head<'_>, state: &mut [f32]) {
    let dim = head.shape.value_dim;
    let rows = head.shape.key_dim;
    let mut at = 0;
    // SAFETY: by the contract of this function.
    unsafe {
        while at + WIDTH <= dim {
            if head.n < MIN_COPIED_TOKENS || rows > MAX_COPIED_ROWS {
                columns::<R, { WIDTH / 8 }>(head, at, &mut state[at..], dim);
            } else {
                let mut copy = [0.0; MAX_COPIED_ROWS * WIDTH];
                let copy = &mut copy[..rows * WIDTH];
                for (copy, row) in copy.chunks_exact_mut(WIDTH).zip(state.chunks_exact(dim)) {
                    copy.copy_from_slice(&row[at..at + WIDTH]);
                }
                columns::<R, { WIDTH / 8 }>(head, at, copy, WIDTH);
                for (copy, row) in copy.chunks_exact(WIDTH).zip(state.chunks_exact_mut(dim)) {
                    row[at..at + WIDTH].copy_from_slice(copy);
                }
            }
            at += WIDTH;
        }
        while at + 8 <= dim {
            columns::<R, 1>(head, at, &mut state[at..], dim);
            at += 8;
        }
    }
    scalar::columns(head, at..dim, state);
}

/// Computes `8 * W` columns from `at` on. `state` begins with them; its rows are `stride` apart.
///
/// # Safety
/// As [`run`].
#[inline(always)]
unsafe fn columns<R: Eight, const W: usize>(
    head: &Head<'_>,
    at: usize,
    state: &mut [f32],
    stride: usize,
) {
    let rows = head.shape.key_dim;
    assert!(8 * W <= stride && state.len() >= (rows - 1) * stride + 8 * W && head.n > 0);
    assert!(head.token(0).k.len() == rows);
    let place = |row: usize, i: usize| row * stride + 8 * i;
    // SAFETY: by the contract of this function. Each `row` is one of the state and of every key and
    // query, and the columns are inside, by the assertions.
    unsafe {
        let zero = [R::zeros(); W];
        // S^T k of the next token, before its decay.
        let mut seen = zero;
        for (row, k) in head.token(0).k.iter().enumerate() {
            let k = R::all(*k);
            for (i, seen) in seen.iter_mut().enumerate() {
                *seen = R::mul_add(k, R::load(state.as_ptr().add(place(row, i))), *seen);
            }
        }
        for index in 0..head.n {
            let token = head.token(index);
            // The last token has no next; what is summed with its own key is not used.
            let next = head.token((index + 1).min(head.n - 1)).k;
            assert!(token.q.len() == rows && token.k.len() == rows && next.len() == rows);
            assert!(at + 8 * W <= token.v.len());
            let (g, beta) = (R::all(token.decay), R::all(token.beta));
            let mut delta = zero;
            for (i, delta) in delta.iter_mut().enumerate() {
                let v = R::load(token.v.as_ptr().add(at + 8 * i));
                *delta = R::mul(R::mul_sub(g, seen[i], v), beta);
            }
            let mut y = zero;
            seen = zero;
            for row in 0..rows {
                let q = R::all(*token.q.get_unchecked(row));
                let k = R::all(*token.k.get_unchecked(row));
                let next = R::all(*next.get_unchecked(row));
                for i in 0..W {
                    let pointer = state.as_mut_ptr().add(place(row, i));
                    let s = R::mul(g, R::load(pointer));
                    let s = R::mul_add(k, delta[i], s);
                    R::store(pointer, s);
                    y[i] = R::mul_add(q, s, y[i]);
                    seen[i] = R::mul_add(next, s, seen[i]);
                }
            }
            // This call computes the head, and the last result is gone.
            let out = head.out(index);
            for (out, y) in out[at..at + 8 * W].chunks_exact_mut(8).zip(y) {
                R::store(out.as_mut_ptr(), y);
            }
        }
    }
}
