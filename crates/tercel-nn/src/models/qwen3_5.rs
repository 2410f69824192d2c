//! Qwen 3.5 (Qwen Team, 2026), text: three of four layers carry a state instead of attending, by
//! the gated delta rule (Yang et al., 2025); attention is gated, and turns a quarter of each head.

use tercel_formats::checkpoint::{Field, Packaging};
use tercel_kernels::ops::attention::Shape;
use tercel_kernels::ops::gated::Activation;
use tercel_kernels::ops::rope::Pairing;

use super::{Family, Model, rotary};
use crate::NnError;
use crate::backend::{Act, AttentionId, Backend, Matrix, Outputs, RopeId, Vector};
use crate::layers::{FeedForward, GatedDelta, Linear, Norms, attend, linear};
use crate::loader::Loader;
use crate::runner::ModelInfo;

pub(super) const FAMILY: Family = Family {
    name: "qwen35",
    model_types: &["qwen3_5_text", "qwen3_5"],
    tensors: &[
        ("post_attention_norm", "post_attention_layernorm"),
        ("attn_qkv", "linear_attn.in_proj_qkv"),
        ("attn_gate", "linear_attn.in_proj_z"),
        ("ssm_alpha", "linear_attn.in_proj_a"),
        ("ssm_beta", "linear_attn.in_proj_b"),
        ("ssm_conv1d", "linear_attn.conv1d"),
        ("ssm_dt.bias", "linear_attn.dt_bias"),
        ("ssm_a", "linear_attn.A_log"),
        ("ssm_norm", "linear_attn.norm"),
        ("ssm_out", "linear_attn.out_proj"),
    ],
    defaults: &[("attention.key_length", 256)],
    construct: |w| Ok(Box::new(Qwen35::new(w)?)),
};

struct Qwen35 {
    info: ModelInfo,
    eps: f32,
    embedding: Matrix,
    layers: Vec<Layer>,
    norm: Vector,
    head: Matrix,
}

struct Layer {
    mixer_norm: Vector,
    mixer: Mixer,
    o: Linear,
    ffn_norm: Vector,
    feed_forward: FeedForward,
    down: Linear,
}

/// What brings tokens together.
enum Mixer {
    Attention {
        id: AttentionId,
        rope: RopeId,
        norms: Norms,
        head_dim: usize,
        /// Query and gate of each head in turn, then keys, then values.
        qkv: [Linear; 3],
    },
    Delta(GatedDelta),
}

impl Qwen35 {
    fn new(w: &mut Loader<'_, '_>) -> Result<Self, NnError> {
        let mut info = ModelInfo::read(w)?;
        w.only("hidden_act", "silu")?;
        // Layers that predict further tokens come last, and have no part in the text model.
        info.n_layers -= w.count_or("nextn_predict_layers", 0..=info.n_layers - 1, 0)?;
        w.leave_out_layers_from(info.n_layers);
        let (hidden, vocab) = (info.hidden_size, info.vocab_size);
        let rope = rotary::read(w, &info, 10_000.0, Pairing::Halves)?;
        let rope = w.rope(rope);
        let eps = w.positive_or("attention.layer_norm_rms_epsilon", 1e-6)? as f32;
        let embedding = w.table("token_embd.weight", vocab, hidden)?;
        let attending = attending_layers(w, &info)?;
        let layers = attending.into_iter().enumerate();
        let layers =
            layers.map(|(i, attends)| Layer::new(w, &info, i, attends.then_some(rope), eps));
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
        attends: Option<RopeId>,
        eps: f32,
    ) -> Result<Self, NnError> {
        let hidden = info.hidden_size;
        let name = |part: &str| format!("blk.{i}.{part}");
        let (mixer, o) = match attends {
            Some(rope) => Mixer::attention(w, info, i, rope, eps)?,
            None => {
                let (delta, width) = GatedDelta::new(w, hidden, i, eps)?;
                (
                    Mixer::Delta(delta),
                    Linear::new(w, &name("ssm_out"), hidden, width)?,
                )
            }
        };
        Ok(Self {
            mixer_norm: norm(w, &name("attn_norm.weight"), hidden)?,
            mixer,
            o,
            ffn_norm: norm(w, &name("post_attention_norm.weight"), hidden)?,
            feed_forward: FeedForward::new(w, info, i, Activation::Silu)?,
            down: Linear::new(w, &name("ffn_down"), hidden, info.feed_forward)?,
        })
    }
}

impl Mixer {
    fn attention(
        w: &mut Loader<'_, '_>,
        info: &ModelInfo,
        i: usize,
        rope: RopeId,
        eps: f32,
    ) -> Result<(Self, Linear), NnError> {
        let (hidden, head_dim) = (info.hidden_size, info.head_dim);
        let (heads, kv) = (info.n_heads * head_dim, info.n_kv_heads * head_dim);
        let name = |part: &str| format!("blk.{i}.{part}");
        let shape = Shape {
            n_heads: info.n_heads,
            n_kv_heads: info.n_kv_heads,
            head_dim,
            scale: 1.0 / (head_dim as f32).sqrt(),
            window: None,
        };
        let mixer = Self::Attention {
            id: w.attention(shape)?,
            rope,
            norms: Norms {
                q: norm(w, &name("attn_q_norm.weight"), head_dim)?,
                k: norm(w, &name("attn_k_norm.weight"), head_dim)?,
                eps,
            },
            head_dim,
            qkv: [
                Linear::new(w, &name("attn_q"), 2 * heads, hidden)?,
                Linear::new(w, &name("attn_k"), kv, hidden)?,
                Linear::new(w, &name("attn_v"), kv, hidden)?,
            ],
        };
        Ok((mixer, Linear::new(w, &name("attn_output"), hidden, heads)?))
    }

    fn apply(&self, run: &mut dyn Backend, x: Act) -> Act {
        match self {
            Self::Attention {
                id,
                rope,
                norms,
                head_dim,
                qkv,
            } => {
                let [q, k, v] = linear(run, x, *qkv);
                let [q, gate] = run.split_heads(q, *head_dim);
                let h = attend(run, *id, *rope, Some(*norms), [q, k, v]);
                run.mul_sigmoid(h, gate);
                h
            }
            Self::Delta(delta) => delta.apply(run, x),
        }
    }
}

/// Which layers attend: every fourth, unless the configuration says otherwise.
fn attending_layers(w: &Loader<'_, '_>, info: &ModelInfo) -> Result<Vec<bool>, NnError> {
    const TYPES: &str = "layer_types";
    const RECURRENT: &str = "attention.recurrent_layers";
    let layers = 0..info.n_layers;
    let (key, found) = match (w.field(TYPES), w.field(RECURRENT)) {
        (Some(Field::List(types)), _) => (TYPES, types),
        (_, Some(Field::List(flags))) => (RECURRENT, flags),
        _ => {
            let period = w.count_or("full_attention_interval", 1..=1024, 4)?;
            return Ok(layers.map(|i| (i + 1).is_multiple_of(period)).collect());
        }
    };
    let attends = |field: &Field<'_>| match field {
        Field::Text("full_attention") | Field::Bool(false) => Some(true),
        Field::Text("linear_attention") | Field::Bool(true) => Some(false),
        _ => None,
    };
    let found: Option<Vec<bool>> = found.iter().take(info.n_layers).map(attends).collect();
    found
        .filter(|found| found.len() == info.n_layers)
        .ok_or_else(|| {
            w.refuse(
                key,
                format!("not one known kind for each of {} layers", info.n_layers),
            )
        })
}

/// Norms multiply by one more than what safetensors of transformers hold; GGUF and MLX files have
/// it added already.
fn norm(w: &mut Loader<'_, '_>, name: &str, len: usize) -> Result<Vector, NnError> {
    let mut values = w.numbers(name, &[len])?;
    if w.packaging() == Packaging::HuggingFace {
        values.iter_mut().for_each(|value| *value += 1.0);
    }
    Ok(w.constant(values))
}

impl Model for Qwen35 {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn forward(&self, run: &mut dyn Backend) -> Outputs {
        let x = run.embed(self.embedding);
        for layer in &self.layers {
            let mark = run.mark();
            let h = run.rms_norm(x, layer.mixer_norm, self.eps);
            let h = layer.mixer.apply(run, h);
            layer.o.add_to(run, x, h);
            run.release(mark);

            let h = run.rms_norm(x, layer.ffn_norm, self.eps);
            let h = layer.feed_forward.apply(run, h);
            layer.down.add_to(run, x, h);
            run.release(mark);
        }
        Outputs::compute(run, x, self.norm, self.eps, self.head)
    }
}
