//! Qwen 2 and 2.5 (Qwen Team, 2024): Llama with biases on queries, keys and values.

use tercel_kernels::ops::rope::Pairing;

use super::decoder::{Decoder, Design, dense};
use super::{Family, rotary, windows};
use crate::NnError;
use crate::loader::Loader;
use crate::runner::ModelInfo;

pub(super) const FAMILY: Family = Family {
    name: "qwen2",
    model_types: &["qwen2"],
    tensors: &[],
    defaults: &[],
    construct: |w| Ok(Box::new(new(w)?)),
};

fn new(w: &mut Loader<'_, '_>) -> Result<Decoder, NnError> {
    let info = ModelInfo::read(w)?;
    w.only("hidden_act", "silu")?;
    let rope = rotary::read(w, &info, 10_000.0, Pairing::Halves)?;
    let design = Design {
        eps: w.positive_or("attention.layer_norm_rms_epsilon", 1e-6)? as f32,
        rope: w.rope(rope),
        windows: windows::read(w, &info, |_| false)?,
        head_norms: false,
        mlp: dense,
    };
    Decoder::new(w, info, &design)
}
