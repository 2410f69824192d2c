//! A model file, looked into without loading its weights.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use tercel_formats::Gguf;
use tercel_formats::gguf::Metadata;
use tercel_nn::Runner;
use tercel_text::Tokenizer;

use crate::builder::DEFAULT_PREFILL_CHUNK;
use crate::defaults;
use crate::error::Error;
use crate::machine;
use crate::model::options;
use crate::sampling::Sampling;
use crate::weights::Weights;

/// The context an engine is loaded with unless told otherwise, in tokens; less where the model was
/// trained for less.
pub(crate) const DEFAULT_CONTEXT: usize = 4096;

/// An open GGUF file: for inspection and tokenizing, without an engine.
///
/// The file must not be written to while this value lives; see the crate's documentation.
#[derive(Debug)]
pub struct ModelFile {
    weights: Weights,
}

impl ModelFile {
    /// Opens the file at `path` and checks that it is a whole GGUF file.
    ///
    /// # Errors
    /// [`Error::Unreadable`], [`Error::NotAModelFile`] or [`Error::InvalidFile`], with the path.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let file = Self {
            weights: Weights::open(path.as_ref())?,
        };
        file.gguf()?;
        Ok(file)
    }

    /// The path, as it was given.
    pub fn path(&self) -> &Path {
        self.weights.path()
    }

    /// Builds the file's tokenizer.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] where the metadata describes none that this build can run.
    pub fn tokenizer(&self) -> Result<Tokenizer, Error> {
        tokenizer(self.gguf()?.metadata(), self.path())
    }

    /// Describes the file, and the memory that it would take with a context of `max_context`
    /// tokens (`None`: what an engine uses unless told otherwise).
    ///
    /// # Errors
    /// [`Error::Model`] where the model could not be loaded, [`Error::ContextTooLong`] where the
    /// context is longer than the model was trained for.
    pub fn inspect(&self, max_context: Option<usize>) -> Result<Inspection, Error> {
        let gguf = self.gguf()?;
        let metadata = gguf.metadata();
        let text = |key: &str| metadata.str(key).ok().flatten().map(str::to_owned);
        let model = summary(&gguf, self.path())?;
        let max_context = resolve_context(max_context, model.trained_context)?;
        let options = options(
            max_context,
            DEFAULT_PREFILL_CHUNK,
            machine::physical_cores(),
        );
        let memory = Runner::estimate(&gguf, &options).map_err(|error| self.model_error(error))?;
        let mut types = BTreeMap::new();
        for tensor in gguf.tensors() {
            let of_type = types.entry(tensor.dtype.to_string()).or_insert((0, 0));
            of_type.0 += 1;
            of_type.1 += tensor.data.len() as u64;
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
            file_bytes: self.weights.bytes().len() as u64,
            gguf_version: gguf.version(),
            licence: text("general.license"),
            tensors: gguf.tensors().len(),
            tensor_types,
            tokenizer: text("tokenizer.ggml.model"),
            pre_tokenizer: text("tokenizer.ggml.pre"),
            template: text("tokenizer.chat_template"),
            sampling: defaults::of_model(metadata).0,
            max_context,
            memory: memory.into(),
            model,
        })
    }

    pub(crate) fn gguf(&self) -> Result<Gguf<'_>, Error> {
        Gguf::parse(self.weights.bytes()).map_err(|error| Error::InvalidFile {
            path: self.path().into(),
            error,
        })
    }

    pub(crate) fn model_error(&self, error: tercel_nn::NnError) -> Error {
        Error::Model {
            path: self.path().into(),
            error,
        }
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
}

/// What a model takes of the memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MemoryUse {
    /// The packed weights.
    pub weights_bytes: usize,
    /// Keys and values of the whole context.
    pub kv_bytes: usize,
    /// Buffers of the computation.
    pub workspace_bytes: usize,
    /// The sum.
    pub total_bytes: usize,
}

impl From<tercel_nn::Memory> for MemoryUse {
    fn from(memory: tercel_nn::Memory) -> Self {
        Self {
            weights_bytes: memory.weights_bytes,
            kv_bytes: memory.kv_bytes,
            workspace_bytes: memory.workspace_bytes,
            total_bytes: memory.total(),
        }
    }
}

/// What [`ModelFile::inspect`] finds.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Inspection {
    /// The file.
    pub path: PathBuf,
    /// Its size.
    pub file_bytes: u64,
    /// Version of the file format.
    pub gguf_version: u32,
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

pub(crate) fn summary(gguf: &Gguf<'_>, path: &Path) -> Result<ModelSummary, Error> {
    let info = Runner::describe(gguf).map_err(|error| Error::Model {
        path: path.into(),
        error,
    })?;
    Ok(ModelSummary {
        name: gguf
            .metadata()
            .str("general.name")
            .ok()
            .flatten()
            .map(str::to_owned),
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
    })
}

pub(crate) fn tokenizer(metadata: &Metadata<'_>, path: &Path) -> Result<Tokenizer, Error> {
    Tokenizer::from_gguf(metadata).map_err(|error| Error::Tokenizer {
        path: path.into(),
        error,
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
