//! A checkpoint looked at tensor by tensor: what each is for, and what loading makes of it.

use std::collections::HashMap;

use serde::Serialize;
use tercel_formats::Checkpoint;
use tercel_formats::checkpoint::Tensor;
use tercel_kernels::{Layout, Target, quant};

use crate::NnError;
use crate::loader::PlannedMatrix;
use crate::models;
use crate::runner::ModelInfo;

/// What a survey of a checkpoint finds.
#[derive(Debug)]
#[non_exhaustive]
pub struct Survey {
    /// The sizes of the model, where the configuration allows to tell them.
    pub info: Option<ModelInfo>,
    /// The tensors, in the order of the files.
    pub tensors: Vec<PlannedTensor>,
    /// All that keeps the checkpoint from being loaded; empty where nothing does.
    pub problems: Vec<NnError>,
}

/// One tensor, and what loading makes of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PlannedTensor {
    /// Its name in the files.
    pub name: String,
    /// What it is for.
    pub function: Function,
    /// Elements along each dimension, the slowest first.
    pub shape: Vec<usize>,
    /// The type it is stored in, such as `BF16`.
    pub dtype: String,
    /// Its size in the files.
    pub bytes: u64,
    /// How several matrices lie in it, where several do.
    pub packing: Option<Packing>,
    /// The type it gets in memory; `None` where it is not loaded.
    pub becomes: Option<String>,
    /// Its size in memory.
    pub bytes_after: u64,
    /// Why it becomes that.
    pub treatment: Treatment,
}

/// What a tensor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Function {
    /// Turns tokens into vectors.
    Embedding,
    /// Queries.
    Query,
    /// Keys.
    Key,
    /// Values.
    Value,
    /// Queries, keys and values, or their like in a recurrent layer.
    QueryKeyValue,
    /// The output of attention.
    AttentionOutput,
    /// The feed-forward part of a layer.
    FeedForward,
    /// Chooses experts.
    Router,
    /// Experts of a layer.
    Experts,
    /// The recurrence of a layer.
    Recurrent,
    /// A norm.
    Norm,
    /// Factors of rotary frequencies.
    Rotary,
    /// Turns vectors into logits.
    Head,
    /// Nothing that a text model needs.
    Unused,
}

impl Function {
    /// Its name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedding => "embedding",
            Self::Query => "query",
            Self::Key => "key",
            Self::Value => "value",
            Self::QueryKeyValue => "query/key/value",
            Self::AttentionOutput => "attention output",
            Self::FeedForward => "feed-forward",
            Self::Router => "router",
            Self::Experts => "experts",
            Self::Recurrent => "recurrent",
            Self::Norm => "norm",
            Self::Rotary => "rotary",
            Self::Head => "head",
            Self::Unused => "unused",
        }
    }

    /// The function of a tensor by its name in GGUF files.
    fn of(name: &str) -> Self {
        let part = match name.strip_prefix("blk.") {
            Some(rest) => rest.split_once('.').map_or(rest, |(_, part)| part),
            None => name,
        };
        let stem = part
            .strip_suffix(".weight")
            .or_else(|| part.strip_suffix(".bias"))
            .unwrap_or(part);
        match stem {
            "token_embd" => Self::Embedding,
            "output" => Self::Head,
            "attn_q" => Self::Query,
            "attn_k" => Self::Key,
            "attn_v" => Self::Value,
            "attn_qkv" => Self::QueryKeyValue,
            "attn_output" | "attn_gate" => Self::AttentionOutput,
            "ffn_gate_inp" => Self::Router,
            "rope_freqs" => Self::Rotary,
            _ if stem.ends_with("norm") => Self::Norm,
            _ if stem.starts_with("ssm_") => Self::Recurrent,
            _ if stem.contains("_exps") || stem.contains("experts") => Self::Experts,
            _ => Self::FeedForward,
        }
    }
}

/// How several matrices lie in one tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
#[non_exhaustive]
pub enum Packing {
    /// Matrices of the same input, one below the other; cut by rows.
    Fused {
        /// How many.
        parts: usize,
    },
    /// One matrix for each expert.
    Stacked {
        /// How many experts.
        experts: usize,
    },
    /// For each expert several matrices of the same input, one below the other.
    StackedFused {
        /// How many experts.
        experts: usize,
        /// How many matrices of each.
        parts: usize,
    },
}

/// Why a tensor becomes what it becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Treatment {
    /// It gets the type that was asked for.
    Quantized,
    /// Embeddings and heads get a finer type than the rest.
    Finer,
    /// The blocks of the type that was asked for do not divide its rows, so another one stands in.
    Fallback,
    /// Much depends on this small matrix: it stays as it is.
    Delicate,
    /// It is quantized already.
    AlreadyQuantized,
    /// Vectors are kept as single floats.
    Vector,
    /// Nothing else was asked for.
    AsStored,
    /// It is not loaded.
    NotLoaded,
}

/// Looks at every tensor of a checkpoint whose weights are to become `target`.
pub(crate) fn survey(checkpoint: &Checkpoint<'_>, target: Target) -> Survey {
    let loader = match models::loader(checkpoint, target) {
        Ok(loader) => loader,
        Err(error) => {
            let tensors = checkpoint.tensors().iter();
            return Survey {
                info: None,
                tensors: tensors
                    .map(|tensor| planned(tensor, None, &[], target))
                    .collect(),
                problems: vec![error],
            };
        }
    };
    let mut loader = loader.tolerant();
    let constructed = models::construct_with(&mut loader);
    let mut problems = loader.problems();
    let info = constructed.map_err(|error| problems.push(error)).ok();
    let mut matrices = HashMap::<&str, Vec<&PlannedMatrix<'_>>>::new();
    for matrix in &loader.plan.matrices {
        matrices.entry(&matrix.name).or_default().push(matrix);
    }
    let tensors = checkpoint.tensors().iter().map(|tensor| {
        let of_tensor = matrices.get(tensor.name.as_str());
        let asked = loader.asked_as(&tensor.name);
        planned(
            tensor,
            asked.as_deref(),
            of_tensor.map_or(&[], Vec::as_slice),
            target,
        )
    });
    Survey {
        info,
        tensors: tensors.collect(),
        problems,
    }
}

/// A tensor that the model asked for under the name `asked`, and the matrices cut out of it.
fn planned(
    tensor: &Tensor<'_>,
    asked: Option<&str>,
    matrices: &[&PlannedMatrix<'_>],
    target: Target,
) -> PlannedTensor {
    let (becomes, bytes_after, treatment) = match (matrices.first(), asked) {
        (Some(first), _) => {
            let layout = Layout::of(&first.storage, first.cols, first.target).ok();
            let bytes = matrices.iter().map(|matrix| matrix.bytes as u64).sum();
            let becomes = layout.map(|layout| layout.to_string());
            (becomes, bytes, treatment(first, layout, target))
        }
        (None, Some(_)) => {
            let bytes = tensor.elements().saturating_mul(size_of::<f32>() as u64);
            (Some("F32".to_owned()), bytes, Treatment::Vector)
        }
        (None, None) => (None, 0, Treatment::NotLoaded),
    };
    PlannedTensor {
        name: tensor.name.clone(),
        function: asked.map_or(Function::Unused, Function::of),
        shape: tensor.shape.clone(),
        dtype: tensor.storage.kind(),
        bytes: tensor.storage.bytes() as u64,
        packing: packing(tensor, matrices.len()),
        becomes,
        bytes_after,
        treatment,
    }
}

fn packing(tensor: &Tensor<'_>, matrices: usize) -> Option<Packing> {
    match tensor.shape[..] {
        [experts, _, _] if experts > 0 && matrices > experts => Some(Packing::StackedFused {
            experts,
            parts: matrices / experts,
        }),
        [experts, _, _] if matrices > 0 => Some(Packing::Stacked { experts }),
        _ if matrices > 1 => Some(Packing::Fused { parts: matrices }),
        _ => None,
    }
}

fn treatment(matrix: &PlannedMatrix<'_>, becomes: Option<Layout>, asked: Target) -> Treatment {
    let Target::Quantize(dtype) = asked else {
        return Treatment::AsStored;
    };
    let stored = Layout::of(&matrix.storage, matrix.cols, Target::AsStored);
    if stored.is_ok_and(|stored| !stored.is_float()) {
        return Treatment::AlreadyQuantized;
    }
    match matrix.target {
        Target::Quantize(own) if quant::fallback(own, matrix.cols) != own => Treatment::Fallback,
        Target::Quantize(own) if own != dtype => Treatment::Finer,
        Target::Quantize(_) if becomes == Some(Layout::Plain(dtype)) => Treatment::Quantized,
        _ => Treatment::Delicate,
    }
}
