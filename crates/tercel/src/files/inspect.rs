//! A model, looked into without loading its weights.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;
use tercel_formats::Checkpoint;
use tercel_formats::checkpoint::Packaging;
use tercel_nn::{KvPart, NnError, Runner};

use super::{ModelFiles, defaults};
use crate::builder::DEFAULT_PREFILL_CHUNK;
use crate::error::Error;
use crate::machine;
use crate::memory::Breakdown;
use crate::model::options;
use crate::sampling::Sampling;

/// The context an engine is loaded with unless told otherwise, in tokens; less where the model was
/// trained for less.
pub(crate) const DEFAULT_CONTEXT: usize = 4096;

impl ModelFiles {
    /// Describes the file, and the memory that it would take with a context of `max_context`
    /// tokens (`None`: what an engine uses unless told otherwise).
    ///
    /// # Errors
    /// [`Error::Model`] where the model could not be loaded, [`Error::ContextTooLong`] where the
    /// context is longer than the model was trained for.
    pub fn inspect(&self, max_context: Option<usize>) -> Result<Inspection, Error> {
        let checkpoint = self.checkpoint()?;
        let metadata = checkpoint.gguf_metadata();
        let text = |key: &str| metadata?.str(key).ok().flatten().map(str::to_owned);
        let model = summary(self, &checkpoint)?;
        let max_context = resolve_context(max_context, model.trained_context)?;
        let options = options(
            max_context,
            None,
            DEFAULT_PREFILL_CHUNK,
            machine::physical_cores(),
        );
        let memory =
            Runner::estimate(&checkpoint, &options).map_err(|error| self.model_error(error))?;
        let mut types = BTreeMap::new();
        for tensor in checkpoint.tensors() {
            let of_type = types.entry(tensor.storage.kind()).or_insert((0, 0));
            of_type.0 += 1;
            of_type.1 += tensor.storage.bytes() as u64;
        }
        let mut tensor_types: Vec<TensorType> = types
            .into_iter()
            .map(|(dtype, (tensors, bytes))| TensorType {
                dtype,
                tensors,
                bytes,
            })
            .collect();
        tensor_types.sort_by_key(|of_type| std::cmp::Reverse(of_type.bytes));
        Ok(Inspection {
            path: self.path().to_owned(),
            packaging: match checkpoint.packaging() {
                Packaging::Mlx => "MLX directory",
                _ => self.kind().name(),
            },
            file_bytes: self.bytes(),
            licence: text("general.license"),
            tensors: checkpoint.tensors().len(),
            tensor_types,
            tokenizer: text("tokenizer.ggml.model").or_else(|| self.tokenizer_file()),
            pre_tokenizer: text("tokenizer.ggml.pre"),
            template: self.template(&checkpoint).ok().flatten(),
            sampling: defaults::of_files(self, &checkpoint).0,
            max_context,
            memory: MemoryUse::of(&memory, self.tokenizer_bytes(&checkpoint, model.vocab_size)),
            model,
        })
    }

    /// The file that a directory's tokenizer is built from.
    fn tokenizer_file(&self) -> Option<String> {
        let names = ["tokenizer.json", "tokenizer.model"];
        let found = names
            .into_iter()
            .find(|name| self.small().get(name).is_some());
        found.map(str::to_owned)
    }
}

/// What a model is, in numbers.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ModelSummary {
    /// The model's own name, where it has one.
    pub name: Option<String>,
    /// Such as `llama`.
    pub architecture: String,
    /// Number of weights.
    pub parameters: u64,
    /// Tokens in the vocabulary.
    pub vocab_size: usize,
    /// The longest context the model was trained for, in tokens.
    pub trained_context: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Transformer blocks.
    pub n_layers: usize,
    /// Attention heads.
    pub n_heads: usize,
    /// Key and value heads.
    pub n_kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Width of the feed-forward layers.
    pub feed_forward: usize,
    /// Tokens that sliding-window layers look back, where there are such layers.
    pub sliding_window: Option<usize>,
    /// Experts of a layer; 0 where there are none.
    pub n_experts: usize,
    /// Parts of the checkpoint that a text model does without, in words.
    pub left_out: Vec<String>,
}

/// What a model takes of the memory, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MemoryUse {
    /// The packed weights.
    pub weights_bytes: usize,
    /// Keys and values of the whole context, of all sequences.
    pub kv_bytes: usize,
    /// The same for each kind of layer.
    pub kv: Vec<KvPart>,
    /// The states of recurrent layers, of all sequences.
    pub recurrent_bytes: usize,
    /// Buffers of the computation.
    pub workspace_bytes: usize,
    /// What is kept of prompts and replies for later ones that begin alike.
    pub prefix_cache_bytes: usize,
    /// The tokenizer.
    pub tokenizer_bytes: usize,
    /// The model that guesses for this one, with all that it takes.
    pub draft_bytes: usize,
    /// The sum.
    pub total_bytes: usize,
}

impl MemoryUse {
    /// What computes, and a tokenizer beside it.
    pub(crate) fn of(memory: &tercel_nn::Memory, tokenizer_bytes: usize) -> Self {
        Self {
            weights_bytes: memory.weights_bytes,
            kv_bytes: memory.kv_bytes(),
            kv: memory.kv.clone(),
            recurrent_bytes: memory.recurrent_bytes,
            workspace_bytes: memory.workspace_bytes,
            prefix_cache_bytes: memory.prefix_cache_bytes,
            tokenizer_bytes,
            draft_bytes: 0,
            total_bytes: memory.total().saturating_add(tokenizer_bytes),
        }
    }

    /// Part by part.
    pub fn breakdown(&self) -> Breakdown {
        let parts = [
            ("weights", self.weights_bytes),
            ("KV cache", self.kv_bytes),
            ("recurrent state", self.recurrent_bytes),
            ("workspace", self.workspace_bytes),
            ("prefix cache", self.prefix_cache_bytes),
            ("tokenizer", self.tokenizer_bytes),
            ("draft model", self.draft_bytes),
        ];
        let parts = parts.into_iter().filter(|(_, bytes)| *bytes > 0);
        parts.fold(Breakdown::new(), |all, (name, bytes)| {
            all.with(name, bytes as u64)
        })
    }

    /// The same, with a draft model beside it.
    pub(crate) fn with_draft(self, draft_bytes: usize) -> Self {
        Self {
            draft_bytes,
            total_bytes: self.total_bytes.saturating_add(draft_bytes),
            ..self
        }
    }
}

/// What [`ModelFiles::inspect`] finds.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Inspection {
    /// The file, the first part, or the directory.
    pub path: PathBuf,
    /// How the files are made: `GGUF file`, `safetensors directory`, `MLX directory`.
    pub packaging: &'static str,
    /// The size of all files.
    pub file_bytes: u64,
    /// The licence that the file names.
    pub licence: Option<String>,
    /// The model.
    pub model: ModelSummary,
    /// Number of tensors.
    pub tensors: usize,
    /// The types they are stored in, by bytes, largest first.
    pub tensor_types: Vec<TensorType>,
    /// Kind of tokenizer, as the file names it.
    pub tokenizer: Option<String>,
    /// Kind of pre-tokenizer, as the file names it.
    pub pre_tokenizer: Option<String>,
    /// Source of the chat template.
    pub template: Option<String>,
    /// The sampling defaults that the model brings.
    pub sampling: Sampling,
    /// The context that `memory` is for, in tokens.
    pub max_context: usize,
    /// What loading would take.
    pub memory: MemoryUse,
}

/// The tensors stored in one type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TensorType {
    /// Such as `Q4_K`.
    pub dtype: String,
    /// How many.
    pub tensors: usize,
    /// Their size in the file.
    pub bytes: u64,
}

pub(crate) fn summary(
    files: &ModelFiles,
    checkpoint: &Checkpoint<'_>,
) -> Result<ModelSummary, Error> {
    summary_of(checkpoint).map_err(|error| files.model_error(error))
}

/// What the model of a checkpoint is, in numbers.
pub(crate) fn summary_of(checkpoint: &Checkpoint<'_>) -> Result<ModelSummary, NnError> {
    let info = Runner::describe(checkpoint)?;
    let named = checkpoint.gguf_metadata();
    let named = named.and_then(|metadata| metadata.str("general.name").ok().flatten());
    Ok(ModelSummary {
        name: named.map(str::to_owned),
        architecture: info.architecture,
        parameters: info.parameters,
        vocab_size: info.vocab_size,
        trained_context: info.context_length,
        hidden_size: info.hidden_size,
        n_layers: info.n_layers,
        n_heads: info.n_heads,
        n_kv_heads: info.n_kv_heads,
        head_dim: info.head_dim,
        feed_forward: info.feed_forward,
        sliding_window: info.sliding_window,
        n_experts: info.n_experts,
        left_out: info.left_out,
    })
}

/// The context to load with.
pub(crate) fn resolve_context(asked: Option<usize>, trained: usize) -> Result<usize, Error> {
    match asked {
        Some(requested) if requested > trained => Err(Error::ContextTooLong { requested, trained }),
        Some(requested) if requested < 2 => Err(Error::invalid_parameter(
            "max_context",
            requested.to_string(),
            "at least 2",
        )),
        Some(requested) => Ok(requested),
        None => Ok(trained.min(DEFAULT_CONTEXT)),
    }
}
