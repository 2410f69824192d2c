//! The gated delta rule, token by token (Yang et al., 2024; transformers,
//! `torch_recurrent_gated_delta_rule`). Each value head has a state `S`, `(key_dim, value_dim)`:
//!
//! ```text
//! S = g * S;  d = (v - S^T k) * beta;  S = S + k d^T;  y = S^T q
//! g = exp(decay * softplus(a + dt_bias));  beta = sigmoid(b)
//! q = l2_norm(q) / sqrt(key_dim);  k = l2_norm(k)
//! ```
//!
//! # Order
//! Every element of the state and of the output is the same chain of fused multiplications and
//! additions in every version, along the key dimension from 0 and token after token. So an output
//! depends neither on the instruction set, nor on the threads, nor on how a sequence was cut.

mod scalar;
#[cfg(test)]
mod tests;
mod vector;

use std::ops::Range;

use super::SharedMut;
use crate::dispatch::{dispatch, versions};
use crate::{Isa, Pool};

versions! {
    fn run(head: &Head<'_>, state: &mut [f32]);
}

/// Keeps the norm of a head of zeros from being a division by zero.
const NORM_EPS: f32 = 1e-6;
/// From here on `softplus(x)` is `x`, as in torch.
const SOFTPLUS_LINEAR: f32 = 20.0;
/// Fewer numbers to normalise than this are not worth another thread.
const MIN_NUMBERS: usize = 8192;
/// Fewer numbers of state to visit than this are not worth another thread.
const MIN_STATE: usize = 8192;

/// Which value heads share a key head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Neighbours: value head `h` has key head `h / (n_value_heads / n_key_heads)`, as Hugging
    /// Face checkpoints are laid out.
    Grouped,
    /// Value head `h` has key head `h % n_key_heads`, as GGUF files of the `qwen35` architectures
    /// are laid out.
    Tiled,
}

/// Sizes of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Heads of queries and of keys.
    pub n_key_heads: usize,
    /// Heads of values, each with a state; a multiple of `n_key_heads`.
    pub n_value_heads: usize,
    /// Elements of a query or key head.
    pub key_dim: usize,
    /// Elements of a value head.
    pub value_dim: usize,
    /// Which value heads share a key head.
    pub sharing: Sharing,
}

impl Shape {
    /// Numbers of queries, keys and values of a token, in this order.
    pub fn qkv_len(&self) -> usize {
        2 * self.n_key_heads * self.key_dim + self.out_len()
    }

    /// Numbers of output of a token.
    pub fn out_len(&self) -> usize {
        self.n_value_heads * self.value_dim
    }

    /// Numbers of state of a sequence.
    pub fn state_len(&self) -> usize {
        self.n_value_heads * self.head_len()
    }

    fn head_len(&self) -> usize {
        self.key_dim * self.value_dim
    }

    fn key_head(&self, value_head: usize) -> usize {
        match self.sharing {
            Sharing::Grouped => value_head / (self.n_value_heads / self.n_key_heads),
            Sharing::Tiled => value_head % self.n_key_heads,
        }
    }
}

/// Runs consecutive tokens of one sequence through a layer.
///
/// `qkv` is `(n, qkv_len)`: a token's queries, keys and values, after the convolution. `a` and `b`
/// are `(n, n_value_heads)`. These three are inputs whose contents are used up: the call leaves
/// normalised heads, `g` and `beta` there. `decay`, which is `-exp(A_log)`, and `dt_bias` are
/// `(n_value_heads)`. `state` is `(n_value_heads, key_dim, value_dim)`, zeros before the first
/// token of a sequence. `out` is `(n, n_value_heads, value_dim)`.
///
/// # Panics
/// When a length does not fit the shape, or the shape has a zero or heads that cannot be shared
/// evenly.
#[expect(
    clippy::too_many_arguments,
    reason = "an operation names all it touches"
)]
pub fn gated_delta(
    pool: &mut Pool,
    isa: Isa,
    shape: &Shape,
    qkv: &mut [f32],
    a: &mut [f32],
    b: &mut [f32],
    decay: &[f32],
    dt_bias: &[f32],
    state: &mut [f32],
    out: &mut [f32],
) {
    let heads = shape.n_value_heads;
    assert!(
        shape.n_key_heads > 0 && heads > 0 && heads.is_multiple_of(shape.n_key_heads),
        "{heads} value heads cannot share {} key heads",
        shape.n_key_heads
    );
    assert!(shape.head_len() > 0, "an empty state");
    let n = a.len() / heads;
    assert!(
        a.len() == n * heads && b.len() == a.len(),
        "{} and {} numbers for the gates of {heads} heads",
        a.len(),
        b.len()
    );
    assert!(
        qkv.len() == n * shape.qkv_len() && out.len() == n * shape.out_len(),
        "{} inputs and {} outputs of {n} tokens",
        qkv.len(),
        out.len()
    );
    assert!(
        decay.len() == heads && dt_bias.len() == heads && state.len() == shape.state_len(),
        "parameters and state of {heads} heads"
    );
    if n == 0 {
        return;
    }
    prepare(pool, shape, qkv, a, b, decay, dt_bias);
    let (state, out) = (SharedMut::new(state), SharedMut::new(out));
    let job = |_, range: Range<usize>| {
        for index in range {
            let len = shape.head_len();
            // SAFETY: each head has its own state, and belongs to one range.
            let state = unsafe { state.slice(index * len..(index + 1) * len) };
            let head = Head {
                shape,
                index,
                n,
                qkv,
                decay: a,
                beta: b,
                out: &out,
            };
            dispatch!(isa, run(&head, state));
        }
    };
    pool.run(heads, MIN_STATE.div_ceil(shape.head_len() * n), job);
}

/// Turns queries and keys into unit vectors, `a` into `g` and `b` into `beta`.
fn prepare(
    pool: &mut Pool,
    shape: &Shape,
    qkv: &mut [f32],
    a: &mut [f32],
    b: &mut [f32],
    decay: &[f32],
    dt_bias: &[f32],
) {
    let heads = shape.n_value_heads;
    let n = a.len() / heads;
    let keys_len = shape.n_key_heads * shape.key_dim;
    let scale = 1.0 / (shape.key_dim as f32).sqrt();
    let (qkv, a, b) = (SharedMut::new(qkv), SharedMut::new(a), SharedMut::new(b));
    let job = |_, tokens: Range<usize>| {
        for token in tokens {
            let (at, gates) = (token * shape.qkv_len(), token * heads..(token + 1) * heads);
            // SAFETY: each token belongs to one range.
            let (qk, a, b) = unsafe {
                (
                    qkv.slice(at..at + 2 * keys_len),
                    a.slice(gates.clone()),
                    b.slice(gates),
                )
            };
            let (q, k) = qk.split_at_mut(keys_len);
            for head in q.chunks_exact_mut(shape.key_dim) {
                normalise(head, scale);
            }
            for head in k.chunks_exact_mut(shape.key_dim) {
                normalise(head, 1.0);
            }
            for ((a, decay), bias) in a.iter_mut().zip(decay).zip(dt_bias) {
                *a = (decay * softplus(*a + bias)).exp();
            }
            for b in b {
                *b = 1.0 / (1.0 + (-*b).exp());
            }
        }
    };
    pool.run(n, MIN_NUMBERS.div_ceil(2 * keys_len), job);
}

/// `x = x / |x| * factor`
fn normalise(x: &mut [f32], factor: f32) {
    // Eight sums, which the compiler keeps in a vector.
    let mut sums = [0.0f32; 8];
    let chunks = x.chunks_exact(8);
    for (sum, x) in sums.iter_mut().zip(chunks.remainder()) {
        *sum += x * x;
    }
    for chunk in chunks {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *sum += x * x;
        }
    }
    let factor = factor / (sums.iter().sum::<f32>() + NORM_EPS).sqrt();
    for x in x {
        *x *= factor;
    }
}

/// `ln(1 + e^x)`
fn softplus(x: f32) -> f32 {
    if x > SOFTPLUS_LINEAR {
        x
    } else {
        x.exp().ln_1p()
    }
}

/// What a kernel computes: all tokens of one value head.
struct Head<'a> {
    shape: &'a Shape,
    index: usize,
    n: usize,
    /// `(n, qkv_len)`, with normalised queries and keys.
    qkv: &'a [f32],
    /// `(n, n_value_heads)`
    decay: &'a [f32],
    /// `(n, n_value_heads)`
    beta: &'a [f32],
    /// `(n, n_value_heads, value_dim)`, of which a call writes its own head.
    out: &'a SharedMut<'a, f32>,
}

/// One token of a head.
struct Token<'a> {
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    decay: f32,
    beta: f32,
}

impl Head<'_> {
    fn token(&self, index: usize) -> Token<'_> {
        let shape = self.shape;
        let (dim, heads) = (shape.key_dim, shape.n_key_heads);
        let row = &self.qkv[index * shape.qkv_len()..(index + 1) * shape.qkv_len()];
        let (q, rest) = row.split_at(heads * dim);
        let (k, v) = rest.split_at(heads * dim);
        let key = shape.key_head(self.index) * dim;
        let value = self.index * shape.value_dim;
        let gate = index * shape.n_value_heads + self.index;
        Token {
            q: &q[key..key + dim],
            k: &k[key..key + dim],
            v: &v[value..value + shape.value_dim],
            decay: self.decay[gate],
            beta: self.beta[gate],
        }
    }

    /// The output of a token, `(value_dim)`.
    ///
    /// # Safety
    /// Only the one call that computes this head may ask, and the last result must be gone.
    #[expect(clippy::mut_from_ref, reason = "disjointness is the caller's promise")]
    unsafe fn out(&self, token: usize) -> &mut [f32] {
        let dim = self.shape.value_dim;
        let at = token * self.shape.out_len() + self.index * dim;
        // SAFETY: heads do not overlap; the rest is the contract of this function.
        unsafe { self.out.slice(at..at + dim) }
    }
}
