//! The decoder that Llama made common: norm, attention, norm, feed-forward, each added to the
//! residual stream. The families that are built so differ in what their files say.

use tercel_kernels::ops::gated::Activation;

use super::Model;
use crate::NnError;
use crate::backend::{Act, Backend, Matrix, MixtureId, Outputs, RopeId, Vector, project};
use crate::layers::{Attention, FeedForward, Linear, Norms};
use crate::loader::Loader;
use crate::runner::ModelInfo;

/// In what families differ.
pub(super) struct Design {
    /// The epsilon of norms.
    pub(super) eps: f32,
    pub(super) rope: RopeId,
    /// The window of each layer.
    pub(super) windows: Vec<Option<usize>>,
    /// Whether query and key heads have norms.
    pub(super) head_norms: bool,
    /// Makes the feed-forward part of a layer.
    pub(super) mlp: fn(&mut Loader<'_, '_>, &ModelInfo, usize) -> Result<Mlp, NnError>,
}

/// The feed-forward part of a layer.
pub(super) enum Mlp {
    Dense { gated: FeedForward, down: Linear },
    Experts { router: Matrix, experts: MixtureId },
}

/// See the module.
pub(super) struct Decoder {
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
    ffn_norm: Vector,
    mlp: Mlp,
}

impl Decoder {
    pub(super) fn new(
        w: &mut Loader<'_, '_>,
        info: ModelInfo,
        design: &Design,
    ) -> Result<Self, NnError> {
        let (hidden, vocab) = (info.hidden_size, info.vocab_size);
        let embedding = w.table("token_embd.weight", vocab, hidden)?;
        let layers = (0..info.n_layers).map(|i| Layer::new(w, &info, design, i));
        Ok(Self {
            eps: design.eps,
            embedding,
            layers: layers.collect::<Result<_, _>>()?,
            norm: w.vector("output_norm.weight", hidden)?,
            head: w.head(embedding, vocab, hidden)?,
            info,
        })
    }
}

impl Layer {
    fn new(
        w: &mut Loader<'_, '_>,
        info: &ModelInfo,
        design: &Design,
        i: usize,
    ) -> Result<Self, NnError> {
        let (hidden, heads) = (info.hidden_size, info.n_heads * info.head_dim);
        let name = |part: &str| format!("blk.{i}.{part}");
        let window = design.windows.get(i).copied().flatten();
        let mut attention = Attention::new(w, info, i, design.rope, window)?;
        if design.head_norms {
            attention = attention.with_norms(Norms {
                q: w.vector(&name("attn_q_norm.weight"), info.head_dim)?,
                k: w.vector(&name("attn_k_norm.weight"), info.head_dim)?,
                eps: design.eps,
            });
        }
        Ok(Self {
            attention_norm: w.vector(&name("attn_norm.weight"), hidden)?,
            attention,
            o: Linear::new(w, &name("attn_output"), hidden, heads)?,
            ffn_norm: w.vector(&name("ffn_norm.weight"), hidden)?,
            mlp: (design.mlp)(w, info, i)?,
        })
    }
}

/// The feed-forward part of a model without experts.
pub(super) fn dense(w: &mut Loader<'_, '_>, info: &ModelInfo, i: usize) -> Result<Mlp, NnError> {
    let down = format!("blk.{i}.ffn_down");
    Ok(Mlp::Dense {
        gated: FeedForward::new(w, info, i, Activation::Silu)?,
        down: Linear::new(w, &down, info.hidden_size, info.feed_forward)?,
    })
}

impl Mlp {
    /// Adds the result to `sum`.
    fn add_to(&self, run: &mut dyn Backend, sum: Act, x: Act) {
        match self {
            Self::Dense { gated, down } => {
                let h = gated.apply(run, x);
                down.add_to(run, sum, h);
            }
            Self::Experts { router, experts } => {
                let [logits] = project(run, x, [*router]);
                run.mixture_add(sum, x, logits, *experts);
            }
        }
    }
}

impl Model for Decoder {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn forward(&self, run: &mut dyn Backend) -> Outputs {
        let x = run.embed(self.embedding);
        for layer in &self.layers {
            let mark = run.mark();
            let h = run.rms_norm(x, layer.attention_norm, self.eps);
            let h = layer.attention.apply(run, h);
            layer.o.add_to(run, x, h);
            run.release(mark);

            let h = run.rms_norm(x, layer.ffn_norm, self.eps);
            layer.mlp.add_to(run, x, h);
            run.release(mark);
        }
        Outputs::compute(run, x, self.norm, self.eps, self.head)
    }
}
