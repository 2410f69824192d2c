//! Qwen 3 (Qwen Team, 2025): norms on query and key heads in place of the biases of Qwen 2.

use tercel_kernels::ops::rope::Pairing;

use super::decoder::{Decoder, Design, dense};
use super::{Family, rotary, windows};
use crate::NnError;
use crate::loader::Loader;
use crate::runner::ModelInfo;

pub(super) const FAMILY: Family = Family {
    name: "qwen3",
    model_types: &["qwen3"],
    tensors: &[],
    defaults: &[("attention.key_length", 128)],
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
        head_norms: true,
        mlp: dense,
    };
    Decoder::new(w, info, &design)
}
