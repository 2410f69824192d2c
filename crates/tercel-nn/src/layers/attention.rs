//! Attention.

use tercel_kernels::ops::attention::Shape;

use super::{Linear, linear};
use crate::NnError;
use crate::backend::{Act, AttentionId, Backend, RopeId, Vector};
use crate::loader::Loader;
use crate::runner::ModelInfo;

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
