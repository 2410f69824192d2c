//! Llama 2 and 3 (Touvron et al., 2023; Dubey et al., 2024), and what shares their shape:
//! SmolLM2, Mistral.

use tercel_kernels::ops::attention::Shape;
use tercel_kernels::ops::gated::Activation;
use tercel_kernels::ops::rope::Pairing;

use super::Model;
use crate::NnError;
use crate::backend::{Act, AttentionId, Backend, Matrix, Rope, RopeId, Vector, project};
use crate::loader::Loader;
use crate::runner::ModelInfo;

pub(super) struct Llama {
    info: ModelInfo,
    eps: f32,
    rope: RopeId,
    embedding: Matrix,
    layers: Vec<Layer>,
    norm: Vector,
    head: Matrix,
}

struct Layer {
    attention: AttentionId,
    attention_norm: Vector,
    q: Matrix,
    k: Matrix,
    v: Matrix,
    o: Matrix,
    ffn_norm: Vector,
    gate: Matrix,
    up: Matrix,
    down: Matrix,
}

impl Llama {
    pub(super) fn new(w: &mut Loader<'_, '_>) -> Result<Self, NnError> {
        let info = ModelInfo::read(w)?;
        let (hidden, vocab) = (info.hidden_size, info.vocab_size);
        let embedding = w.matrix("token_embd.weight", vocab, hidden)?;
        let tied = !w.has_tensor("output.weight");
        Ok(Self {
            eps: w.positive_or("attention.layer_norm_rms_epsilon", 1e-5)?,
            rope: rope(w, &info)?,
            embedding,
            layers: (0..info.n_layers)
                .map(|i| Layer::new(w, &info, i))
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
    fn new(w: &mut Loader<'_, '_>, info: &ModelInfo, i: usize) -> Result<Self, NnError> {
        let &ModelInfo {
            hidden_size: hidden,
            feed_forward,
            head_dim,
            ..
        } = info;
        let (q, kv) = (info.n_heads * head_dim, info.n_kv_heads * head_dim);
        let name = |part: &str| format!("blk.{i}.{part}.weight");
        Ok(Self {
            attention: w.attention(Shape {
                n_heads: info.n_heads,
                n_kv_heads: info.n_kv_heads,
                head_dim,
                scale: 1.0 / (head_dim as f32).sqrt(),
                window: info.sliding_window,
            })?,
            attention_norm: w.vector(&name("attn_norm"), hidden)?,
            q: w.matrix(&name("attn_q"), q, hidden)?,
            k: w.matrix(&name("attn_k"), kv, hidden)?,
            v: w.matrix(&name("attn_v"), kv, hidden)?,
            o: w.matrix(&name("attn_output"), hidden, q)?,
            ffn_norm: w.vector(&name("ffn_norm"), hidden)?,
            gate: w.matrix(&name("ffn_gate"), feed_forward, hidden)?,
            up: w.matrix(&name("ffn_up"), feed_forward, hidden)?,
            down: w.matrix(&name("ffn_down"), hidden, feed_forward)?,
        })
    }
}

/// GGUF files of this architecture have the rows of q and k permuted so that pairs are adjacent.
/// Llama 3.1 and later stretch the low frequencies by factors that lie in a tensor.
fn rope(w: &mut Loader<'_, '_>, info: &ModelInfo) -> Result<RopeId, NnError> {
    let head_dim = info.head_dim;
    let dims = w.count_or("rope.dimension_count", 2..=head_dim, head_dim)?;
    if !dims.is_multiple_of(2) {
        let problem = format!("{dims} elements do not make pairs");
        return Err(NnError::Config {
            field: w.key("rope.dimension_count"),
            problem,
        });
    }
    let base = f64::from(w.positive_or("rope.freq_base", 10_000.0)?);
    let mut rope = Rope::new(head_dim, dims, base, Pairing::Adjacent);
    rope = rope.divided_by(std::iter::repeat_n(super::linear_scaling(w)?, dims / 2));
    if w.has_tensor("rope_freqs.weight") {
        let factors = w.numbers("rope_freqs.weight", dims / 2)?;
        rope = rope.divided_by(factors.into_iter().map(f64::from));
    }
    Ok(w.rope(rope))
}

impl Model for Llama {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn forward(&self, run: &mut dyn Backend) -> Act {
        let x = run.embed(self.embedding);
        for layer in &self.layers {
            let mark = run.mark();
            let h = run.rms_norm(x, layer.attention_norm, self.eps);
            let [q, k, v] = project(run, h, [layer.q, layer.k, layer.v]);
            run.rope(q, self.rope);
            run.rope(k, self.rope);
            let attended = run.attention(layer.attention, q, k, v);
            run.matmul_add(x, attended, layer.o);
            run.release(mark);

            let h = run.rms_norm(x, layer.ffn_norm, self.eps);
            let [gate, up] = project(run, h, [layer.gate, layer.up]);
            run.gated(Activation::Silu, gate, up);
            run.matmul_add(x, gate, layer.down);
            run.release(mark);
        }
        let x = run.outputs(x);
        let x = run.rms_norm(x, self.norm, self.eps);
        let [logits] = project(run, x, [self.head]);
        logits
    }
}
