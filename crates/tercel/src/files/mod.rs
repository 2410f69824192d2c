//! A model's files, open: whatever their packaging, the rest of the crate reads them through here.

mod contents;
pub(crate) mod defaults;
mod fingerprint;
mod inspect;
mod small;
mod weights;

use std::path::{Path, PathBuf};

use tercel_formats::{Checkpoint, CheckpointError, Gguf, Storage};
use tercel_text::{HfTokenizerFiles, TokenId, Tokenizer, VocabularySize};

pub use contents::{MetadataEntry, TensorEntry};
pub(crate) use fingerprint::hash_of_text;
pub use inspect::{Inspection, MemoryUse, ModelSummary, TensorType};
pub(crate) use inspect::{resolve_context, summary, summary_of};
pub(crate) use weights::Weights;

use crate::error::Error;
use crate::source::{self, LocalModel, ModelKind};
use small::SmallFiles;

/// The files of a model: a GGUF file, the parts of one, or a directory of safetensors. For
/// inspection and tokenizing, without an engine.
///
/// The files must not be written to while this value lives; see the crate's documentation.
#[derive(Debug)]
pub struct ModelFiles {
    path: PathBuf,
    kind: ModelKind,
    /// The files that hold weights, in order.
    weights: Vec<Weights>,
    /// What stands beside the weights in a directory.
    small: SmallFiles,
}

const INDEX: &str = "model.safetensors.index.json";
const CONFIG: &str = "config.json";
/// What may stand beside the configuration.
const SMALL: [&str; 7] = [
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "chat_template.jinja",
    "chat_template.json",
];

impl ModelFiles {
    /// Opens the model at `path`: a GGUF file, any part of a split one, or a directory. Checks
    /// that the files are whole.
    ///
    /// # Errors
    /// [`Error::Source`] where files are missing, [`Error::Unreadable`], [`Error::NotAModelFile`]
    /// or [`Error::InvalidFile`], with the path.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::of(&source::at(path.as_ref())?)
    }

    /// Opens the files of a model that was found or fetched.
    ///
    /// # Errors
    /// Those of [`ModelFiles::open`].
    pub fn of(model: &LocalModel) -> Result<Self, Error> {
        let files = Self::unchecked(model)?;
        files.checkpoint()?;
        Ok(files)
    }

    /// As [`ModelFiles::of`], but what the files hold is not looked at.
    pub(crate) fn unchecked(model: &LocalModel) -> Result<Self, Error> {
        let mut small = SmallFiles::default();
        let mut weights = Vec::new();
        for file in &model.files {
            let name = file.path.file_name().unwrap_or_default().to_string_lossy();
            if model.kind == ModelKind::Directory && !name.ends_with(".safetensors") {
                small.read(&name, &file.path)?;
            } else {
                weights.push(Weights::open(&file.path)?);
            }
        }
        Ok(Self {
            path: model.path.clone(),
            kind: model.kind,
            weights,
            small,
        })
    }

    /// What stands beside the weights of a directory, without them; nothing where there is no
    /// configuration.
    pub(crate) fn without_weights(directory: &Path) -> Option<Self> {
        let mut small = SmallFiles::default();
        small.read(CONFIG, &directory.join(CONFIG)).ok()?;
        for name in SMALL {
            // What is not there, or cannot be read, is missing in the checks.
            let _ = small.read(name, &directory.join(name));
        }
        Some(Self {
            path: directory.to_owned(),
            kind: ModelKind::Directory,
            weights: Vec::new(),
            small,
        })
    }

    /// Whether there are files with weights.
    pub(crate) fn has_weights(&self) -> bool {
        !self.weights.is_empty()
    }

    /// The configuration of a directory as a checkpoint without tensors.
    pub(crate) fn configuration(&self) -> Option<Checkpoint<'_>> {
        if self.kind != ModelKind::Directory {
            return None;
        }
        let config = self.small.get(CONFIG).unwrap_or_default();
        let read = |config| Checkpoint::from_hugging_face(config, &[], None).ok();
        // One that cannot be read has been told of; the tokenizer does without.
        read(config).or_else(|| read(b"{}"))
    }

    /// About what the tokenizer will take: by the vocabulary of a GGUF file, and elsewhere by its
    /// size alone, since reading it takes longer than an estimate may.
    pub(crate) fn tokenizer_bytes(&self, checkpoint: &Checkpoint<'_>, vocab_size: usize) -> usize {
        let metadata = checkpoint.gguf_metadata();
        // What is wrong with it is told where it is built.
        let size = metadata.and_then(|metadata| VocabularySize::from_gguf(metadata).ok()?);
        let size = size.unwrap_or_else(|| VocabularySize::typical(vocab_size));
        size.heap_bytes()
    }

    /// The file, the first part, or the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How the files are made.
    pub fn kind(&self) -> ModelKind {
        self.kind
    }

    /// Builds the model's tokenizer. Every end of a turn that the files name stops a reply.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] where the files describe none that this build can run.
    pub fn tokenizer(&self) -> Result<Tokenizer, Error> {
        self.tokenizer_of(&self.checkpoint()?)
    }

    /// The source of the model's chat template, where it has one.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub(crate) fn template(&self, checkpoint: &Checkpoint<'_>) -> Result<Option<String>, String> {
        match checkpoint.gguf_metadata() {
            Some(metadata) => metadata
                .str("tokenizer.chat_template")
                .map(|source| source.map(str::to_owned))
                .map_err(|error| error.to_string()),
            None => self.small.template(),
        }
    }

    /// Gives back the memory of bytes of the files of weights that will not be read again; where
    /// they are, they come from disk once more.
    pub fn release(&self, bytes: &[u8]) {
        for file in &self.weights {
            file.release(bytes);
        }
    }

    /// [`release`](Self::release) for tensors, or rows of them.
    pub(crate) fn release_storage<'a>(&self, read: impl IntoIterator<Item = Storage<'a>>) {
        for bytes in read.into_iter().flat_map(|storage| storage.parts()) {
            self.release(bytes);
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        let weights = self.weights.iter().map(|file| file.bytes().len() as u64);
        weights.sum::<u64>() + self.small.bytes()
    }

    pub(crate) fn small(&self) -> &SmallFiles {
        &self.small
    }

    /// Name and bytes of each file that holds weights, in order.
    pub fn weights(&self) -> impl Iterator<Item = (String, &[u8])> {
        self.weights.iter().map(|file| (file.name(), file.bytes()))
    }

    /// Name and bytes of what stands beside the weights in a directory.
    pub fn beside(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.small.iter()
    }

    /// Configuration and tensors, as the files have them.
    ///
    /// # Errors
    /// [`Error::InvalidFile`] if a file has changed since it was opened.
    pub fn checkpoint(&self) -> Result<Checkpoint<'_>, Error> {
        let wrong = |path: &Path| {
            let path = path.to_owned();
            move |error: CheckpointError| Error::InvalidFile { path, error }
        };
        if self.kind == ModelKind::Directory {
            let named: Vec<(String, &[u8])> = self.weights().collect();
            let files: Vec<(&str, &[u8])> = named
                .iter()
                .map(|(name, bytes)| (name.as_str(), *bytes))
                .collect();
            let config = self.small.get(CONFIG).unwrap_or_default();
            let index = self.small.get(INDEX);
            return Checkpoint::from_hugging_face(config, &files, index).map_err(wrong(&self.path));
        }
        let parts = self.weights.iter().map(|file| {
            let part = Gguf::parse(file.bytes()).map_err(CheckpointError::Gguf);
            part.map_err(wrong(file.path()))
        });
        Checkpoint::from_gguf(parts.collect::<Result<_, _>>()?).map_err(wrong(&self.path))
    }

    pub(crate) fn tokenizer_of(&self, checkpoint: &Checkpoint<'_>) -> Result<Tokenizer, Error> {
        let wrong = |error| Error::Tokenizer {
            path: self.path.clone(),
            error,
        };
        if let Some(metadata) = checkpoint.gguf_metadata() {
            return Tokenizer::from_gguf(metadata).map_err(wrong);
        }
        let config = self.small.get("tokenizer_config.json");
        let built = if let Some(tokenizer_json) = self.small.get("tokenizer.json") {
            Tokenizer::from_hf(&HfTokenizerFiles {
                tokenizer_json,
                tokenizer_config: config,
                special_tokens_map: self.small.get("special_tokens_map.json"),
            })
        } else if let Some(model) = self.small.get("tokenizer.model") {
            Tokenizer::from_sentencepiece(model, config)
        } else {
            return Err(Error::NoTokenizer {
                path: self.path.clone(),
            });
        };
        let mut tokenizer = built.map_err(wrong)?;
        let ends = self
            .small
            .end_ids(checkpoint)
            .map_err(|problem| Error::SmallFile {
                path: self.path.join("generation_config.json"),
                problem,
            })?;
        // A model with a padded vocabulary may name ids that no text has.
        let known: Vec<TokenId> = ends
            .into_iter()
            .filter(|id| (*id as usize) < tokenizer.vocab_size())
            .collect();
        tokenizer.add_ends(&known).map_err(wrong)?;
        Ok(tokenizer)
    }

    pub(crate) fn model_error(&self, error: tercel_nn::NnError) -> Error {
        Error::Model {
            path: self.path.clone(),
            error,
        }
    }
}
