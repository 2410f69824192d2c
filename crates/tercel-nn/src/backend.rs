//! The operations a model is made of.

use tercel_kernels::ops::gated::Activation;
use tercel_kernels::ops::rope::Pairing;

/// A matrix of weights, `(out, in)`, that the [`Loader`](crate::loader::Loader) planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matrix(pub(crate) usize);

/// A vector of weights that the [`Loader`](crate::loader::Loader) planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vector(pub(crate) usize);

/// A rotary embedding that the [`Loader`](crate::loader::Loader) planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RopeId(pub(crate) usize);

/// One layer's attention and its part of the KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionId(pub(crate) usize);

/// One recurrent layer and its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecurrentId(pub(crate) usize);

/// One layer of experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MixtureId(pub(crate) usize);

/// A tensor of activations, `(rows, cols)`: one row per token, or per wanted output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Act {
    pub(crate) slot: usize,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
}

/// What a forward pass gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outputs {
    /// The normed hidden states, `(outputs, hidden_size)`: first those that logits were made of,
    /// then those that are wanted themselves.
    pub(crate) hidden: Act,
    /// `(outputs with logits, vocab_size)`.
    pub(crate) logits: Act,
}

impl Outputs {
    /// The end of every model: the last norm of the wanted rows of `x`, and the head.
    pub fn compute(run: &mut dyn Backend, x: Act, norm: Vector, eps: f32, head: Matrix) -> Self {
        let x = run.outputs(x);
        let hidden = run.rms_norm(x, norm, eps);
        let predicting = run.predicting(hidden);
        let [logits] = project(run, predicting, [head]);
        Self { hidden, logits }
    }
}

/// A point in the order of allocations: see [`Backend::release`].
#[derive(Clone, Copy, Debug)]
pub struct Mark(pub(crate) usize);

/// Rotary embedding of a head's first elements.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Elements of a head.
    pub head_dim: usize,
    /// Which elements form a pair.
    pub pairing: Pairing,
    /// Angle per position of each pair; twice their number is turned, the rest is left.
    pub frequencies: Vec<f64>,
}

impl Rope {
    /// The frequencies `base^(-2i/dims)` of the original paper.
    pub fn new(head_dim: usize, dims: usize, base: f64, pairing: Pairing) -> Self {
        let frequency = |i: usize| base.powf(-2.0 * i as f64 / dims as f64);
        Self {
            head_dim,
            pairing,
            frequencies: (0..dims / 2).map(frequency).collect(),
        }
    }

    /// Each frequency divided by its factor.
    #[must_use]
    pub fn divided_by(mut self, factors: impl IntoIterator<Item = f64>) -> Self {
        for (frequency, factor) in self.frequencies.iter_mut().zip(factors) {
            *frequency /= factor;
        }
        self
    }
}

/// Where a forward pass runs.
///
/// A model calls these in its forward pass and knows nothing else: not how weights are stored,
/// how many tokens share the pass, nor what computes them. Tensors come from a stack: what was
/// made after a [`mark`](Backend::mark) is given back by [`release`](Backend::release).
pub trait Backend {
    /// The rows of `table` for the tokens of the pass.
    fn embed(&mut self, table: Matrix) -> Act;

    /// `x * weights^T` for each of the weights, into as many new tensors.
    fn matmul(&mut self, x: Act, weights: &[Matrix], out: &mut [Act]);

    /// `sum += x * weights^T`.
    fn matmul_add(&mut self, sum: Act, x: Act, weights: Matrix);

    /// `x += bias` for each row.
    fn add_bias(&mut self, x: Act, bias: Vector);

    /// Root-mean-square norm of each row.
    fn rms_norm(&mut self, x: Act, weight: Vector, eps: f32) -> Act;

    /// Root-mean-square norm of each head of each row, in place; a head is as long as `weight`.
    fn norm_heads(&mut self, x: Act, weight: Vector, eps: f32);

    /// Turns the heads of each row by its position, in place.
    fn rope(&mut self, x: Act, rope: RopeId);

    /// Appends `k` and `v` to the layer's cache and attends from `q`.
    fn attention(&mut self, layer: AttentionId, q: Act, k: Act, v: Act) -> Act;

    /// The first and the second halves of heads of twice `head_dim`.
    fn split_heads(&mut self, x: Act, head_dim: usize) -> [Act; 2];

    /// A short convolution over the tokens of `qkv`, then the gated delta rule; both go on from
    /// where the sequence's state was left. The contents of the inputs are used up.
    fn delta_rule(&mut self, layer: RecurrentId, qkv: Act, a: Act, b: Act) -> Act;

    /// Norm of each head of each row, times `silu(gate)`, in place; a head is as long as `weight`.
    fn norm_gated(&mut self, x: Act, weight: Vector, eps: f32, gate: Act);

    /// `x *= sigmoid(gate)`.
    fn mul_sigmoid(&mut self, x: Act, gate: Act);

    /// Adds to each row of `sum` what the experts that `logits` chooses make of that row of `x`.
    fn mixture_add(&mut self, sum: Act, x: Act, logits: Act, experts: MixtureId);

    /// `gate = activation(gate) * up`.
    fn gated(&mut self, activation: Activation, gate: Act, up: Act);

    /// `x += y`.
    fn add(&mut self, x: Act, y: Act);

    /// `x *= factor`.
    fn scale(&mut self, x: Act, factor: f32);

    /// The rows whose logits are wanted, then those whose hidden states are.
    fn outputs(&mut self, x: Act) -> Act;

    /// Of rows in the order of [`outputs`](Backend::outputs), those whose logits are wanted. The
    /// same numbers, not a copy.
    fn predicting(&self, x: Act) -> Act;

    /// Remembers what is allocated now.
    fn mark(&mut self) -> Mark;

    /// Gives back all that was allocated since `mark`.
    fn release(&mut self, mark: Mark);
}

/// [`Backend::matmul`] for a known number of weights.
pub fn project<const N: usize>(run: &mut dyn Backend, x: Act, weights: [Matrix; N]) -> [Act; N] {
    let mut out = [x; N];
    run.matmul(x, &weights, &mut out);
    out
}
