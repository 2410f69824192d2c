//! Gemma 3, text (Gemma Team, 2025): norms before and after each block, norms on query and key
//! heads, and sliding windows on all but every sixth layer.

use tercel_formats::checkpoint::Packaging;
use tercel_kernels::ops::gated::Activation;
use tercel_kernels::ops::rope::Pairing;

use super::{Family, Model, rotary, windows};
use crate::NnError;
use crate::backend::{Backend, Matrix, Outputs, Rope, RopeId, Vector};
use crate::layers::{Attention, FeedForward, Linear, Norms};
use crate::loader::Loader;
use crate::runner::ModelInfo;

pub(super) const FAMILY: Family = Family {
    name: "gemma3",
    model_types: &["gemma3_text", "gemma3"],
    tensors: &[
        ("post_attention_norm", "post_attention_layernorm"),
        ("ffn_norm", "pre_feedforward_layernorm"),
        ("post_ffw_norm", "post_feedforward_layernorm"),
    ],
    // Those of the 4B model, whose configuration names but what differs.
    defaults: &[
        ("attention.head_count", 8),
        ("attention.head_count_kv", 4),
        ("attention.key_length", 256),
        ("attention.sliding_window", 4096),
        ("context_length", 131_072),
        ("query_pre_attn_scalar", 256),
        ("vocab_size", 262_208),
    ],
    construct: |w| Ok(Box::new(Gemma3::new(w)?)),
};

struct Gemma3 {
    info: ModelInfo,
    eps: f32,
    embedding: Matrix,
    layers: Vec<Layer>,
    norm: Vector,
    head: Matrix,
}

struct Layer {
    attention_norm: Vector,
    attention: Attention,
    o: Linear,
    post_attention_norm: Vector,
    ffn_norm: Vector,
    feed_forward: FeedForward,
    down: Linear,
    post_ffn_norm: Vector,
}

/// Layers of the 27B model, the only size that scales queries by another width than the head's.
const LAYERS_27B: usize = 62;

impl Gemma3 {
    fn new(w: &mut Loader<'_, '_>) -> Result<Self, NnError> {
        let info = ModelInfo::read(w)?;
        w.only("hidden_activation", "gelu_pytorch_tanh")?;
        for capped in ["attn_logit_softcapping", "final_logit_softcapping"] {
            if w.has_field(capped) {
                return Err(w.refuse(capped, "capped scores are not supported"));
            }
        }
        let (hidden, vocab, dim) = (info.hidden_size, info.vocab_size, info.head_dim);
        let global = rotary::read(w, &info, 1_000_000.0, Pairing::Halves)?;
        let local_base = w.positive_or("rope.freq_base_swa", 10_000.0)?;
        let local = Rope::new(dim, dim, local_base, Pairing::Halves);
        let (global, local) = (w.rope(global), w.rope(local));
        let eps = w.positive_or("attention.layer_norm_rms_epsilon", 1e-6)? as f32;
        let embedding = w.table("token_embd.weight", vocab, hidden)?;
        let windows = windows::read(w, &info, |i| !(i + 1).is_multiple_of(6))?;
        let layers = windows.into_iter().enumerate().map(|(i, window)| {
            let rope = if window.is_some() { local } else { global };
            Layer::new(w, &info, i, rope, window, eps)
        });
        let layers = layers.collect::<Result<_, _>>()?;
        Ok(Self {
            eps,
            embedding,
            layers,
            norm: norm(w, "output_norm.weight", hidden)?,
            head: w.head(embedding, vocab, hidden)?,
            info,
        })
    }
}

impl Layer {
    fn new(
        w: &mut Loader<'_, '_>,
        info: &ModelInfo,
        i: usize,
        rope: RopeId,
        window: Option<usize>,
        eps: f32,
    ) -> Result<Self, NnError> {
        let (hidden, head_dim) = (info.hidden_size, info.head_dim);
        let name = |part: &str| format!("blk.{i}.{part}");
        let scale = 1.0 / query_width(w, info)?.sqrt();
        let attention = Attention::scaled(w, info, i, rope, window, scale)?.with_norms(Norms {
            q: norm(w, &name("attn_q_norm.weight"), head_dim)?,
            k: norm(w, &name("attn_k_norm.weight"), head_dim)?,
            eps,
        });
        Ok(Self {
            attention_norm: norm(w, &name("attn_norm.weight"), hidden)?,
            attention,
            o: Linear::new(w, &name("attn_output"), hidden, info.n_heads * head_dim)?,
            post_attention_norm: norm(w, &name("post_attention_norm.weight"), hidden)?,
            ffn_norm: norm(w, &name("ffn_norm.weight"), hidden)?,
            feed_forward: FeedForward::new(w, info, i, Activation::GeluTanh)?,
            down: Linear::new(w, &name("ffn_down"), hidden, info.feed_forward)?,
            post_ffn_norm: norm(w, &name("post_ffw_norm.weight"), hidden)?,
        })
    }
}

/// Norms multiply by one more than what safetensors hold; GGUF files have it added already.
fn norm(w: &mut Loader<'_, '_>, name: &str, len: usize) -> Result<Vector, NnError> {
    let mut values = w.numbers(name, &[len])?;
    if w.packaging() != Packaging::Gguf {
        values.iter_mut().for_each(|value| *value += 1.0);
    }
    Ok(w.constant(values))
}

/// The width by whose root queries are scaled down.
fn query_width(w: &Loader<'_, '_>, info: &ModelInfo) -> Result<f32, NnError> {
    Ok(match w.packaging() {
        Packaging::Gguf if info.n_layers == LAYERS_27B => (info.hidden_size / info.n_heads) as f32,
        Packaging::Gguf => info.head_dim as f32,
        _ => w.positive_or("query_pre_attn_scalar", 256.0)? as f32,
    })
}

impl Model for Gemma3 {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn forward(&self, run: &mut dyn Backend) -> Outputs {
        let x = run.embed(self.embedding);
        run.scale(x, (self.info.hidden_size as f32).sqrt());
        for layer in &self.layers {
            let mark = run.mark();
            let h = run.rms_norm(x, layer.attention_norm, self.eps);
            let h = layer.attention.apply(run, h);
            let h = layer.o.apply(run, h);
            let h = run.rms_norm(h, layer.post_attention_norm, self.eps);
            run.add(x, h);
            run.release(mark);

            let h = run.rms_norm(x, layer.ffn_norm, self.eps);
            let h = layer.feed_forward.apply(run, h);
            let h = layer.down.apply(run, h);
            let h = run.rms_norm(h, layer.post_ffn_norm, self.eps);
            run.add(x, h);
            run.release(mark);
        }
        Outputs::compute(run, x, self.norm, self.eps, self.head)
    }
}
