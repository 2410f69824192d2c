//! Llama 2 and 3 (Touvron et al., 2023; Dubey et al., 2024), and what shares their shape:
//! SmolLM2, Mistral.

use tercel_formats::checkpoint::Packaging;
use tercel_kernels::ops::rope::Pairing;

use super::decoder::{Decoder, Design, dense};
use super::{Family, rotary, windows};
use crate::NnError;
use crate::loader::Loader;
use crate::runner::ModelInfo;

pub(super) const FAMILY: Family = Family {
    name: "llama",
    model_types: &["llama", "mistral"],
    tensors: &[],
    defaults: &[],
    construct: |w| Ok(Box::new(new(w)?)),
};

fn new(w: &mut Loader<'_, '_>) -> Result<Decoder, NnError> {
    let info = ModelInfo::read(w)?;
    w.only("hidden_act", "silu")?;
    // GGUF files of this architecture have the rows of q and k permuted so that pairs are
    // adjacent.
    let pairing = match w.packaging() {
        Packaging::Gguf => Pairing::Adjacent,
        _ => Pairing::Halves,
    };
    let rope = rotary::read(w, &info, 10_000.0, pairing)?;
    let design = Design {
        eps: w.positive_or("attention.layer_norm_rms_epsilon", 1e-5)? as f32,
        rope: w.rope(rope),
        // Mistral: where there is a window, every layer has it.
        windows: windows::read(w, &info, |_| true)?,
        head_norms: false,
        mlp: dense,
    };
    Decoder::new(w, info, &design)
}
