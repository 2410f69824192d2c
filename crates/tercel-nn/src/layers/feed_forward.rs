//! The feed-forward layer.

use tercel_kernels::ops::gated::Activation;

use super::{Linear, linear};
use crate::NnError;
use crate::backend::{Act, Backend};
use crate::loader::Loader;
use crate::runner::ModelInfo;

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
