//! A model that is to be reckoned with, whole or only described.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use tercel_formats::checkpoint::Field;
use tercel_formats::{Checkpoint, CheckpointError, DType, Gguf, GgufError};
use tercel_nn::{NnError, Runner, TensorShape};
use tercel_text::VocabularySize;

use super::TokenizerBytes;
use crate::error::Error;
use crate::files::{ModelFiles, ModelSummary, Weights, summary_of};
use crate::source::LocalModel;

/// A model whose size is asked for. Its weights need not be there.
#[derive(Debug)]
pub struct Blueprint {
    path: PathBuf,
    source: Source,
    /// Lends its bytes to tensors that the description has no data of.
    zeros: Vec<u8>,
}

/// What there is of a model, where it is not all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Described {
    /// The configuration alone. Its tensors are taken to be of the type that it names, BF16 where
    /// it names none, or quantized as that of MLX says.
    ByConfiguration,
    /// The header of a GGUF file whose data is missing or cut off.
    ByHeader,
}

#[derive(Debug)]
enum Source {
    Files(Box<ModelFiles>),
    Header(Weights),
    Configuration {
        config: Vec<u8>,
        tensors: Vec<TensorShape>,
        dtype: DType,
        tokenizer_json: Option<Vec<u8>>,
    },
}

/// More than the vectors of a model have, and than a configuration.
const SMALL_BYTES: usize = 4 << 20;
const LARGEST_JSON: u64 = 128 << 20;
const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";

impl Blueprint {
    /// The model at a path: whatever [`ModelFiles::open`] takes, a GGUF file without its data, a
    /// `config.json`, or a directory with one and no weights.
    ///
    /// # Errors
    /// Those of [`ModelFiles::open`], and [`Error::Model`] for a configuration of a model that this
    /// build does not run.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let is_json = path.extension().is_some_and(|end| end == "json");
        if is_json && path.is_file() {
            return Self::of_configuration(path);
        }
        let config = path.join(CONFIG);
        if config.is_file() && !has_weights(path) {
            return Self::of_configuration(&config);
        }
        match ModelFiles::open(path) {
            Ok(files) => Ok(Self::new(path, Source::Files(Box::new(files)))),
            Err(Error::InvalidFile { path, error }) if is_cut_off(&error) => {
                let header = Weights::open(&path)?;
                let blueprint = Self::new(&path, Source::Header(header));
                // Whatever else is wrong with the file is told now.
                blueprint.with_checkpoint(|_| Ok(()))?;
                Ok(blueprint)
            }
            Err(error) => Err(error),
        }
    }

    /// A model that was found or fetched.
    ///
    /// # Errors
    /// Those of [`ModelFiles::of`].
    pub fn of(model: &LocalModel) -> Result<Self, Error> {
        let files = ModelFiles::of(model)?;
        let path = files.path().to_owned();
        Ok(Self::new(&path, Source::Files(Box::new(files))))
    }

    /// The file or directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What there is of the model; `None` where all of it is there.
    pub fn described(&self) -> Option<Described> {
        match self.source {
            Source::Files(_) => None,
            Source::Header(_) => Some(Described::ByHeader),
            Source::Configuration { .. } => Some(Described::ByConfiguration),
        }
    }

    /// What the model is, in numbers.
    ///
    /// # Errors
    /// [`Error::Model`] where it cannot be loaded.
    pub fn summary(&self) -> Result<ModelSummary, Error> {
        self.with_checkpoint(|checkpoint| {
            summary_of(checkpoint).map_err(|error| self.model_error(error))
        })
    }

    fn new(path: &Path, source: Source) -> Self {
        let zeros = match source {
            Source::Files(_) => Vec::new(),
            _ => vec![0; SMALL_BYTES],
        };
        Self {
            path: path.to_owned(),
            source,
            zeros,
        }
    }

    fn of_configuration(path: &Path) -> Result<Self, Error> {
        let config = read_small(path)?;
        let tokenizer_json = path.with_file_name(TOKENIZER);
        let tokenizer_json = match tokenizer_json.is_file() {
            true => Some(read_small(&tokenizer_json)?),
            false => None,
        };
        let empty = Checkpoint::from_hugging_face(&config, &[], None);
        let empty = empty.map_err(|error| Error::InvalidFile {
            path: path.to_owned(),
            error,
        })?;
        let tensors = Runner::shapes(&empty).map_err(|error| Error::Model {
            path: path.to_owned(),
            error,
        })?;
        let dtype = float_type(&empty);
        let source = Source::Configuration {
            config,
            tensors,
            dtype,
            tokenizer_json,
        };
        Ok(Self::new(path, source))
    }

    pub(super) fn model_error(&self, error: NnError) -> Error {
        Error::Model {
            path: self.path.clone(),
            error,
        }
    }

    /// Calls `look` with configuration and tensors.
    pub(super) fn with_checkpoint<T>(
        &self,
        look: impl FnOnce(&Checkpoint<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let invalid = |error: CheckpointError| Error::InvalidFile {
            path: self.path.clone(),
            error,
        };
        match &self.source {
            Source::Files(files) => look(&files.checkpoint()?),
            Source::Header(file) => {
                let gguf = Gguf::parse_header(file.bytes(), &self.zeros);
                let gguf = gguf.map_err(|error| invalid(error.into()))?;
                look(&Checkpoint::from_gguf(vec![gguf]).map_err(invalid)?)
            }
            Source::Configuration {
                config,
                tensors,
                dtype,
                ..
            } => {
                let tensors = tensors.iter();
                let tensors = tensors.map(|tensor| (tensor.name.clone(), tensor.shape.clone()));
                let checkpoint = Checkpoint::described(config, tensors, *dtype, &self.zeros);
                look(&checkpoint.map_err(invalid)?)
            }
        }
    }

    /// What the tokenizer will take, without building it where that can be helped.
    pub(super) fn tokenizer_bytes(&self) -> Result<TokenizerBytes, Error> {
        let wrong = |error| Error::Tokenizer {
            path: self.path.clone(),
            error,
        };
        let known = |bytes: usize| TokenizerBytes {
            bytes: bytes as u64,
            is_known: true,
        };
        let json = match &self.source {
            Source::Files(files) => files.small().get(TOKENIZER),
            Source::Header(_) => None,
            Source::Configuration { tokenizer_json, .. } => tokenizer_json.as_deref(),
        };
        if let Some(json) = json {
            let size = VocabularySize::from_hf(json).map_err(wrong)?;
            return Ok(known(size.heap_bytes()));
        }
        let of_gguf = self.with_checkpoint(|checkpoint| match checkpoint.gguf_metadata() {
            Some(metadata) => VocabularySize::from_gguf(metadata).map_err(wrong),
            None => Ok(None),
        })?;
        if let Some(size) = of_gguf {
            return Ok(known(size.heap_bytes()));
        }
        match &self.source {
            // SentencePiece's own file is small, and has no cheaper way.
            Source::Files(files) if files.small().get("tokenizer.model").is_some() => {
                Ok(known(files.tokenizer()?.heap_bytes()))
            }
            _ => Ok(TokenizerBytes {
                bytes: VocabularySize::typical(self.summary()?.vocab_size).heap_bytes() as u64,
                is_known: false,
            }),
        }
    }
}

/// The type that a configuration gives its weights.
fn float_type(checkpoint: &Checkpoint<'_>) -> DType {
    let names = [
        "dtype",
        "torch_dtype",
        "text_config.dtype",
        "text_config.torch_dtype",
    ];
    let named = names.into_iter().find_map(|name| checkpoint.field(name));
    match named {
        Some(Field::Text("float32")) => DType::F32,
        Some(Field::Text("float16")) => DType::F16,
        _ => DType::BF16,
    }
}

fn has_weights(directory: &Path) -> bool {
    let Ok(entries) = fs::read_dir(directory) else {
        return false;
    };
    let is_weights = |name: &str| name.ends_with(".safetensors") || name.ends_with(".gguf");
    entries
        .flatten()
        .any(|entry| entry.file_name().to_str().is_some_and(is_weights))
}

/// Whether a file is whole but for the data of its tensors.
fn is_cut_off(error: &CheckpointError) -> bool {
    matches!(error, CheckpointError::Gguf(GgufError::Outside { .. }))
}

fn read_small(path: &Path) -> Result<Vec<u8>, Error> {
    let unreadable = |reason| Error::Unreadable {
        path: path.to_owned(),
        reason,
    };
    let metadata = fs::metadata(path).map_err(unreadable)?;
    if metadata.len() > LARGEST_JSON {
        return Err(Error::NotAModelFile {
            path: path.to_owned(),
            problem: "is too large for what it is named",
        });
    }
    fs::read(path).map_err(unreadable)
}
