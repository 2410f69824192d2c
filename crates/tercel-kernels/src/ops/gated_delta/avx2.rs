//! Thirty-two columns of the state at a time through all tokens. What a token reads of the state
//! is summed while the one before writes it, so that each token passes over the state once.

use std::arch::x86_64::*;

use super::{Head, scalar};

/// # Safety
/// Needs the named processor features.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn run(head: &Head<'_>, state: &mut [f32]) {
    let dim = head.shape.value_dim;
    let mut at = 0;
    while at + 32 <= dim {
        columns::<4>(head, at, state);
        at += 32;
    }
    while at + 8 <= dim {
        columns::<1>(head, at, state);
        at += 8;
    }
    scalar::columns(head, at..dim, state);
}

/// Computes `8 * W` columns from `at` on.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn columns<const W: usize>(head: &Head<'_>, at: usize, state: &mut [f32]) {
    let (rows, stride) = (head.shape.key_dim, head.shape.value_dim);
    assert!(at + 8 * W <= stride && state.len() == rows * stride && head.n > 0);
    let zero = [_mm256_setzero_ps(); W];
    let place = |row: usize, i: usize| row * stride + at + 8 * i;
    // S^T k of the next token, before its decay.
    let mut seen = zero;
    for (row, k) in head.token(0).k.iter().enumerate().take(rows) {
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
        assert!(token.v.len() == stride);
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
