//! Gemma 3, text (Gemma Team, 2025): norms before and after each block, norms on query and key
//! heads, and sliding windows on all but every sixth layer.

use tercel_formats::gguf::Value;
use tercel_kernels::ops::attention::Shape;
use tercel_kernels::ops::gated::Activation;
use tercel_kernels::ops::rope::Pairing;

use super::Model;
use crate::NnError;
use crate::backend::{Act, AttentionId, Backend, Matrix, Rope, RopeId, Vector, project};
use crate::loader::Loader;
use crate::runner::ModelInfo;

pub(super) struct Gemma3 {
    info: ModelInfo,
    eps: f32,
    embedding: Matrix,
    layers: Vec<Layer>,
    norm: Vector,
    head: Matrix,
}

struct Layer {
    attention: AttentionId,
    rope: RopeId,
    attention_norm: Vector,
    q: Matrix,
    k: Matrix,
    v: Matrix,
    o: Matrix,
    q_norm: Vector,
    k_norm: Vector,
    post_attention_norm: Vector,
    ffn_norm: Vector,
    gate: Matrix,
    up: Matrix,
    down: Matrix,
    post_ffn_norm: Vector,
}

/// Layers of the 27B model, the only size that scales queries by another width than the head's.
const LAYERS_27B: usize = 62;

impl Gemma3 {
    pub(super) fn new(w: &mut Loader<'_, '_>) -> Result<Self, NnError> {
        let info = ModelInfo::read(w)?;
        let (hidden, vocab, dim) = (info.hidden_size, info.vocab_size, info.head_dim);
        let global_base = f64::from(w.positive_or("rope.freq_base", 1_000_000.0)?);
        let local_base = f64::from(w.positive_or("rope.freq_base_swa", 10_000.0)?);
        let scaling = std::iter::repeat_n(super::linear_scaling(w)?, dim / 2);
        let global = Rope::new(dim, dim, global_base, Pairing::Halves).divided_by(scaling);
        let ropes = [
            w.rope(global),
            w.rope(Rope::new(dim, dim, local_base, Pairing::Halves)),
        ];

        let embedding = w.matrix("token_embd.weight", vocab, hidden)?;
        let tied = !w.has_tensor("output.weight");
        let windowed = windowed_layers(w, &info)?;
        let layer = |w: &mut Loader<'_, '_>, i: usize| {
            Layer::new(w, &info, i, ropes[usize::from(windowed[i])], windowed[i])
        };
        Ok(Self {
            eps: w.positive_or("attention.layer_norm_rms_epsilon", 1e-6)?,
            embedding,
            layers: (0..info.n_layers)
                .map(|i| layer(w, i))
                .collect::<Result<_, _>>()?,
            norm: w.vector("output_norm.weight", hidden)?,
            head: if tied {
                embedding
            } else {
                w.matrix("output.weight", vocab, hidden)?
            },
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
        windowed: bool,
    ) -> Result<Self, NnError> {
        let &ModelInfo {
            hidden_size: hidden,
            feed_forward,
            head_dim,
            n_heads,
            ..
        } = info;
        let (q, kv) = (n_heads * head_dim, info.n_kv_heads * head_dim);
        let width = if info.n_layers == LAYERS_27B {
            hidden / n_heads
        } else {
            head_dim
        };
        let name = |part: &str| format!("blk.{i}.{part}.weight");
        Ok(Self {
            attention: w.attention(Shape {
                n_heads,
                n_kv_heads: info.n_kv_heads,
                head_dim,
                scale: 1.0 / (width as f32).sqrt(),
                window: info.sliding_window.filter(|_| windowed),
            })?,
            rope,
            attention_norm: w.vector(&name("attn_norm"), hidden)?,
            q: w.matrix(&name("attn_q"), q, hidden)?,
            k: w.matrix(&name("attn_k"), kv, hidden)?,
            v: w.matrix(&name("attn_v"), kv, hidden)?,
            o: w.matrix(&name("attn_output"), hidden, q)?,
            q_norm: w.vector(&name("attn_q_norm"), head_dim)?,
            k_norm: w.vector(&name("attn_k_norm"), head_dim)?,
            post_attention_norm: w.vector(&name("post_attention_norm"), hidden)?,
            ffn_norm: w.vector(&name("ffn_norm"), hidden)?,
            gate: w.matrix(&name("ffn_gate"), feed_forward, hidden)?,
            up: w.matrix(&name("ffn_up"), feed_forward, hidden)?,
            down: w.matrix(&name("ffn_down"), hidden, feed_forward)?,
            post_ffn_norm: w.vector(&name("post_ffw_norm"), hidden)?,
        })
    }
}

/// Which layers see a window only: all but every sixth, unless the file says otherwise, by a
/// period or layer by layer.
fn windowed_layers(w: &Loader<'_, '_>, info: &ModelInfo) -> Result<Vec<bool>, NnError> {
    const KEY: &str = "attention.sliding_window_pattern";
    if let Some(Value::Array(array)) = w.field(KEY) {
        let layers = array.iter().map(|value| match value {
            Value::Bool(windowed) => Some(windowed),
            _ => None,
        });
        let layers: Option<Vec<bool>> = layers.collect();
        return layers
            .filter(|layers| layers.len() == info.n_layers)
            .ok_or_else(|| {
                let problem = format!("not one bool for each of {} layers", info.n_layers);
                NnError::Config {
                    field: w.key(KEY),
                    problem,
                }
            });
    }
    let period = w.count_or(KEY, 1..=1024, 6)?;
    Ok((1..=info.n_layers)
        .map(|layer| !layer.is_multiple_of(period))
        .collect())
}

impl Model for Gemma3 {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn forward(&self, run: &mut dyn Backend) -> Act {
        let x = run.embed(self.embedding);
        run.scale(x, (self.info.hidden_size as f32).sqrt());
        for layer in &self.layers {
            let mark = run.mark();
            let h = run.rms_norm(x, layer.attention_norm, self.eps);
            let [q, k, v] = project(run, h, [layer.q, layer.k, layer.v]);
            run.norm_heads(q, layer.q_norm, self.eps);
            run.norm_heads(k, layer.k_norm, self.eps);
            run.rope(q, layer.rope);
            run.rope(k, layer.rope);
            let attended = run.attention(layer.attention, q, k, v);
            let [h] = project(run, attended, [layer.o]);
            let h = run.rms_norm(h, layer.post_attention_norm, self.eps);
            run.add(x, h);
            run.release(mark);

            let h = run.rms_norm(x, layer.ffn_norm, self.eps);
            let [gate, up] = project(run, h, [layer.gate, layer.up]);
            run.gated(Activation::GeluTanh, gate, up);
            let [h] = project(run, gate, [layer.down]);
            let h = run.rms_norm(h, layer.post_ffn_norm, self.eps);
            run.add(x, h);
            run.release(mark);
        }
        let x = run.outputs(x);
        let x = run.rms_norm(x, self.norm, self.eps);
        let [logits] = project(run, x, [self.head]);
        logits
    }
}
