//! The layer that carries a state instead of attending.

use tercel_formats::checkpoint::Packaging;
use tercel_kernels::ops::gated_delta::{Shape, Sharing};

use super::{Linear, linear};
use crate::NnError;
use crate::backend::{Act, Backend, RecurrentId, Vector};
use crate::loader::{Loader, Recurrent};

/// A short convolution, the gated delta rule (Yang et al., 2025), and a gated norm, up to the
/// output projection.
pub(crate) struct GatedDelta {
    id: RecurrentId,
    /// Queries, keys and values; the gate of the output; the decay; the strength of a write.
    projections: [Linear; 4],
    norm: Vector,
    eps: f32,
}

impl GatedDelta {
    /// That of layer `i`, and how wide its output is.
    pub(crate) fn new(
        w: &mut Loader<'_, '_>,
        hidden: usize,
        i: usize,
        eps: f32,
    ) -> Result<(Self, usize), NnError> {
        let name = |part: &str| format!("blk.{i}.{part}");
        let shape = shape(w)?;
        let heads = shape.n_value_heads;
        let kernel = w.count("ssm.conv_kernel", 2..=8)?;
        let conv = w.numbers(&name("ssm_conv1d.weight"), &[shape.qkv_len(), kernel])?;
        let mut decay = w.numbers(&name("ssm_a"), &[heads])?;
        if w.packaging() != Packaging::Gguf {
            decay.iter_mut().for_each(|a_log| *a_log = -a_log.exp());
        }
        let layer = Recurrent {
            shape,
            kernel,
            conv: w.constant(conv),
            decay: w.constant(decay),
            dt_bias: w.vector(&name("ssm_dt.bias"), heads)?,
        };
        let delta = Self {
            id: w.recurrent(layer),
            projections: [
                Linear::new(w, &name("attn_qkv"), shape.qkv_len(), hidden)?,
                Linear::new(w, &name("attn_gate"), shape.out_len(), hidden)?,
                Linear::delicate(w, &name("ssm_alpha"), heads, hidden)?,
                Linear::delicate(w, &name("ssm_beta"), heads, hidden)?,
            ],
            norm: w.vector(&name("ssm_norm.weight"), shape.value_dim)?,
            eps,
        };
        Ok((delta, shape.out_len()))
    }

    /// What the heads read from their states, normed and gated.
    pub(crate) fn apply(&self, run: &mut dyn Backend, x: Act) -> Act {
        let [qkv, gate, a, b] = linear(run, x, self.projections);
        let h = run.delta_rule(self.id, qkv, a, b);
        run.norm_gated(h, self.norm, self.eps, gate);
        h
    }
}

fn shape(w: &Loader<'_, '_>) -> Result<Shape, NnError> {
    let n_key_heads = w.count("ssm.group_count", 1..=1024)?;
    let n_value_heads = w.count("ssm.time_step_rank", 1..=1024)?;
    let key_dim = w.count("ssm.state_size", 1..=1024)?;
    if !n_value_heads.is_multiple_of(n_key_heads) {
        let problem = format!("{n_value_heads} value heads cannot share {n_key_heads} key heads");
        return Err(w.refuse("ssm.time_step_rank", problem));
    }
    // Converters to GGUF reorder the value heads.
    let (value_dim, sharing) = if w.packaging() == Packaging::Gguf {
        let inner = w.count("ssm.inner_size", n_value_heads..=1 << 20)?;
        (inner / n_value_heads, Sharing::Tiled)
    } else {
        let value_dim = w.count("linear_value_head_dim", 1..=1024)?;
        (value_dim, Sharing::Grouped)
    };
    Ok(Shape {
        n_key_heads,
        n_value_heads,
        key_dim,
        value_dim,
        sharing,
    })
}
