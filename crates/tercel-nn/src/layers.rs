//! The parts that most transformers are made of.

use tercel_kernels::ops::attention::Shape;
use tercel_kernels::ops::gated::Activation;

use crate::NnError;
use crate::backend::{Act, AttentionId, Backend, Matrix, RopeId, Vector, project};
use crate::loader::Loader;
use crate::runner::ModelInfo;

/// `x * weight^T + bias`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Linear {
    weight: Matrix,
    bias: Option<Vector>,
}

impl Linear {
    /// The tensors `NAME.weight` and, where there is one, `NAME.bias`.
    pub(crate) fn new(
        w: &mut Loader<'_, '_>,
        name: &str,
        rows: usize,
        cols: usize,
    ) -> Result<Self, NnError> {
        let weight = w.matrix(&format!("{name}.weight"), rows, cols)?;
        Self::with_bias(w, weight, name, rows)
    }

    fn with_bias(
        w: &mut Loader<'_, '_>,
        weight: Matrix,
        name: &str,
        rows: usize,
    ) -> Result<Self, NnError> {
        let bias = w.vector_if(&format!("{name}.bias"), rows)?;
        Ok(Self { weight, bias })
    }

    /// Into a new tensor.
    pub(crate) fn apply(&self, run: &mut dyn Backend, x: Act) -> Act {
        let [out] = linear(run, x, [*self]);
        out
    }

    /// Adds to `sum`.
    pub(crate) fn add_to(&self, run: &mut dyn Backend, sum: Act, x: Act) {
        run.matmul_add(sum, x, self.weight);
        if let Some(bias) = self.bias {
            run.add_bias(sum, bias);
        }
    }
}

/// Several layers of one input.
pub(crate) fn linear<const N: usize>(
    run: &mut dyn Backend,
    x: Act,
    layers: [Linear; N],
) -> [Act; N] {
    let out = project(run, x, layers.map(|layer| layer.weight));
    for (out, layer) in out.into_iter().zip(layers) {
        if let Some(bias) = layer.bias {
            run.add_bias(out, bias);
        }
    }
    out
}

/// Self-attention with grouped heads (Ainslie et al., 2023), up to the output projection.
pub(crate) struct Attention {
    id: AttentionId,
    rope: RopeId,
    q: Linear,
    k: Linear,
    v: Linear,
    norms: Option<Norms>,
}

/// Norms of query and key heads (Dehghani et al., 2023).
#[derive(Clone, Copy)]
pub(crate) struct Norms {
    pub(crate) q: Vector,
    pub(crate) k: Vector,
    pub(crate) eps: f32,
}

impl Attention {
    /// The attention of layer `i`; `window` is how many tokens it sees, all when `None`.
    pub(crate) fn new(
        w: &mut Loader<'_, '_>,
        info: &ModelInfo,
        i: usize,
        rope: RopeId,
        window: Option<usize>,
    ) -> Result<Self, NnError> {
        let scale = 1.0 / (info.head_dim as f32).sqrt();
        Self::scaled(w, info, i, rope, window, scale)
    }

    /// As [`new`](Self::new), with scores multiplied by `scale`.
    pub(crate) fn scaled(
        w: &mut Loader<'_, '_>,
        info: &ModelInfo,
        i: usize,
        rope: RopeId,
        window: Option<usize>,
        scale: f32,
    ) -> Result<Self, NnError> {
        let name = |part: &str| format!("blk.{i}.{part}");
        let rows = [info.n_heads, info.n_kv_heads, info.n_kv_heads].map(|n| n * info.head_dim);
        let names = ["attn_q", "attn_k", "attn_v"].map(name);
        let weights = names.each_ref().map(|name| format!("{name}.weight"));
        let parts = [0, 1, 2].map(|i| (weights[i].as_str(), rows[i]));
        let weights = w.matrices(parts, &name("attn_qkv.weight"), info.hidden_size)?;
        let shape = Shape {
            n_heads: info.n_heads,
            n_kv_heads: info.n_kv_heads,
            head_dim: info.head_dim,
            scale,
            window,
        };
        Ok(Self {
            id: w.attention(shape)?,
            rope,
            q: Linear::with_bias(w, weights[0], &names[0], rows[0])?,
            k: Linear::with_bias(w, weights[1], &names[1], rows[1])?,
            v: Linear::with_bias(w, weights[2], &names[2], rows[2])?,
            norms: None,
        })
    }

    /// With norms on query and key heads.
    pub(crate) fn with_norms(self, norms: Norms) -> Self {
        Self {
            norms: Some(norms),
            ..self
        }
    }

    /// What the heads gather, `(rows, n_heads * head_dim)`.
    pub(crate) fn apply(&self, run: &mut dyn Backend, x: Act) -> Act {
        let [q, k, v] = linear(run, x, [self.q, self.k, self.v]);
        attend(run, self.id, self.rope, self.norms, [q, k, v])
    }
}

/// Norms and turns the heads of `q` and `k`, then attends.
pub(crate) fn attend(
    run: &mut dyn Backend,
    id: AttentionId,
    rope: RopeId,
    norms: Option<Norms>,
    [q, k, v]: [Act; 3],
) -> Act {
    if let Some(norms) = norms {
        run.norm_heads(q, norms.q, norms.eps);
        run.norm_heads(k, norms.k, norms.eps);
    }
    run.rope(q, rope);
    run.rope(k, rope);
    run.attention(id, q, k, v)
}

/// A gated feed-forward layer (Shazeer, 2020), up to the projection down.
pub(crate) struct FeedForward {
    gate: Linear,
    up: Linear,
    activation: Activation,
}

impl FeedForward {
    /// That of layer `i`.
    pub(crate) fn new(
        w: &mut Loader<'_, '_>,
        info: &ModelInfo,
        i: usize,
        activation: Activation,
    ) -> Result<Self, NnError> {
        let rows = info.feed_forward;
        let name = |part: &str| format!("blk.{i}.{part}");
        let parts = [name("ffn_gate.weight"), name("ffn_up.weight")];
        let parts = parts.each_ref().map(|name| (name.as_str(), rows));
        let fused = name("ffn_gate_up.weight");
        let [gate, up] = w.matrices(parts, &fused, info.hidden_size)?;
        Ok(Self {
            gate: Linear::with_bias(w, gate, &name("ffn_gate"), rows)?,
            up: Linear::with_bias(w, up, &name("ffn_up"), rows)?,
            activation,
        })
    }

    /// `activation(gate) * up`.
    pub(crate) fn apply(&self, run: &mut dyn Backend, x: Act) -> Act {
        let [gate, up] = linear(run, x, [self.gate, self.up]);
        run.gated(self.activation, gate, up);
        gate
    }
}
