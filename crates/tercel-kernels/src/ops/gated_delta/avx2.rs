//! Thirty-two columns of the state at a time through all tokens. What a token reads of the state
//! is summed while the one before writes it, so that each token passes over the state once.

use std::arch::x86_64::*;

use super::{Head, scalar};

/// Rows of a state whose columns are copied side by side: with a long stride between them they
/// would fall into the same few lines of the first cache.
const MAX_COPIED_ROWS: usize = 128;
/// From so many tokens on the copy pays.
const MIN_COPIED_TOKENS: usize = 4;
/// Columns computed together.
const WIDTH: usize = 32;

/// # Safety
/// Needs the named processor features.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn run(head: &Head<'_>, state: &mut [f32]) {
    let dim = head.shape.value_dim;
    let mut at = 0;
    let rows = head.shape.key_dim;
    while at + WIDTH <= dim {
        if head.n < MIN_COPIED_TOKENS || rows > MAX_COPIED_ROWS {
            columns::<{ WIDTH / 8 }>(head, at, &mut state[at..], dim);
        } else {
            let mut copy = [0.0; MAX_COPIED_ROWS * WIDTH];
            let copy = &mut copy[..rows * WIDTH];
            for (copy, row) in copy.chunks_exact_mut(WIDTH).zip(state.chunks_exact(dim)) {
                copy.copy_from_slice(&row[at..at + WIDTH]);
            }
            columns::<{ WIDTH / 8 }>(head, at, copy, WIDTH);
            for (copy, row) in copy.chunks_exact(WIDTH).zip(state.chunks_exact_mut(dim)) {
                row[at..at + WIDTH].copy_from_slice(copy);
            }
        }
        at += WIDTH;
    }
    while at + 8 <= dim {
        columns::<1>(head, at, &mut state[at..], dim);
        at += 8;
    }
    scalar::columns(head, at..dim, state);
}

/// Computes `8 * W` columns from `at` on. `state` begins with them; its rows are `stride` apart.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn columns<const W: usize>(head: &Head<'_>, at: usize, state: &mut [f32], stride: usize) {
    let rows = head.shape.key_dim;
    assert!(8 * W <= stride && state.len() >= (rows - 1) * stride + 8 * W && head.n > 0);
    let zero = [_mm256_setzero_ps(); W];
    let place = |row: usize, i: usize| row * stride + 8 * i;
    // S^T k of the next token, before its decay.
    let mut seen = zero;
    assert!(head.token(0).k.len() == rows);
    for (row, k) in head.token(0).k.iter().enumerate() {
        let k = _mm256_set1_ps(*k);
        for (i, seen) in seen.iter_mut().enumerate() {
            // SAFETY: `row` is a row and the columns are inside, by the assertion.
            let s = unsafe { _mm256_loadu_ps(state.as_ptr().add(place(row, i))) };
            *seen = _mm256_fmadd_ps(k, s, *seen);
        }
    }
    for index in 0..head.n {
        let token = head.token(index);
        // The last token has no next; what is summed with its own key is not used.
        let next = head.token((index + 1).min(head.n - 1)).k;
        assert!(token.q.len() == rows && token.k.len() == rows && next.len() == rows);
        assert!(at + 8 * W <= token.v.len());
        let (g, beta) = (_mm256_set1_ps(token.decay), _mm256_set1_ps(token.beta));
        let delta: [__m256; W] = std::array::from_fn(|i| {
            // SAFETY: the columns are inside by the assertions.
            let v = unsafe { _mm256_loadu_ps(token.v.as_ptr().add(at + 8 * i)) };
            _mm256_mul_ps(_mm256_fnmadd_ps(g, seen[i], v), beta)
        });
        let mut y = zero;
        seen = zero;
        for row in 0..rows {
            // SAFETY: `row` is a row, and all three have so many, by the assertions.
            let (q, k, next) = unsafe {
                (
                    _mm256_set1_ps(*token.q.get_unchecked(row)),
                    _mm256_set1_ps(*token.k.get_unchecked(row)),
                    _mm256_set1_ps(*next.get_unchecked(row)),
                )
            };
            for i in 0..W {
                // SAFETY: as above.
                let s = unsafe {
                    let pointer = state.as_mut_ptr().add(place(row, i));
                    let s = _mm256_mul_ps(g, _mm256_loadu_ps(pointer));
                    let s = _mm256_fmadd_ps(k, delta[i], s);
                    _mm256_storeu_ps(pointer, s);
                    s
                };
                y[i] = _mm256_fmadd_ps(q, s, y[i]);
                seen[i] = _mm256_fmadd_ps(next, s, seen[i]);
            }
        }
        // SAFETY: this call computes the head, and the last result is gone.
        let out = unsafe { head.out(index) };
        for (out, y) in out[at..at + 8 * W].chunks_exact_mut(8).zip(y) {
            // SAFETY: the chunk has eight floats.
            unsafe { _mm256_storeu_ps(out.as_mut_ptr(), y) };
        }
    }
}
