//! A model's configuration and tensors, the same to the reader whatever files they came in.
//!
//! Three packagings are read: GGUF, whole or split; a Hugging Face directory of safetensors; and
//! such a directory as MLX writes it. Names of fields and tensors stay those of the files: who
//! reads a checkpoint asks for [`Checkpoint::packaging`] and translates.

mod error;
mod field;
mod gguf;
mod hugging_face;
mod mlx;
mod safetensors;

use std::collections::HashMap;

use ::serde_json::Value as Json;

pub use error::CheckpointError;
pub use field::Field;
pub use hugging_face::{is_shard_name, shards};

use crate::gguf::Metadata;
use crate::{DType, Gguf, Storage};

/// How the files of a model are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Packaging {
    /// One GGUF file, or the parts of one.
    Gguf,
    /// `config.json` and safetensors, as on the Hugging Face Hub.
    HuggingFace,
    /// As Hugging Face, with the conventions of `mlx-lm`.
    Mlx,
}

/// A model's configuration and tensors.
#[derive(Debug)]
pub struct Checkpoint<'a> {
    packaging: Packaging,
    config: Config<'a>,
    tensors: Vec<Tensor<'a>>,
    by_name: HashMap<String, u32>,
}

#[derive(Debug)]
enum Config<'a> {
    Gguf(Box<Gguf<'a>>),
    Json(Json),
}

/// A tensor of a checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor<'a> {
    /// Its name in the file. Of an affine tensor, the name of its codes.
    pub name: String,
    /// Elements along each dimension, the slowest first: `[rows, cols]` of a matrix.
    pub shape: Vec<usize>,
    /// How its elements lie.
    pub storage: Storage<'a>,
}

impl Tensor<'_> {
    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.shape.iter().map(|dim| *dim as u64).product()
    }
}

impl<'a> Checkpoint<'a> {
    /// The parts of a GGUF file in order; a file that is not split is its only part.
    ///
    /// # Errors
    /// [`CheckpointError::Split`] when they are not the parts of one file, or not all.
    pub fn from_gguf(parts: Vec<Gguf<'a>>) -> Result<Self, CheckpointError> {
        gguf::join(parts)
    }

    /// A directory of the Hugging Face Hub: `config.json`, the safetensors files with their names
    /// (see [`shards`]), and the index if there is one.
    ///
    /// # Errors
    /// [`CheckpointError`] when a file breaks its format, the index and the files disagree, or the
    /// weights are quantized in a way that is not known.
    pub fn from_hugging_face(
        config: &[u8],
        files: &[(&str, &'a [u8])],
        index: Option<&[u8]>,
    ) -> Result<Self, CheckpointError> {
        hugging_face::read(config, files, index)
    }

    /// A model that is only described: `config.json`, and its tensors as their names and shapes.
    /// They are of type `dtype`, or, of a configuration of MLX, quantized as it says.
    ///
    /// Small tensors are zero. Large ones have no data: they can be looked at, not read. `zeros`
    /// lends what those have that are no larger than it.
    ///
    /// # Errors
    /// [`CheckpointError`] when the configuration cannot be read, or names a quantization that is
    /// not known.
    pub fn described(
        config: &[u8],
        tensors: impl IntoIterator<Item = (String, Vec<usize>)>,
        dtype: DType,
        zeros: &'a [u8],
    ) -> Result<Self, CheckpointError> {
        hugging_face::describe(config, tensors, dtype, zeros)
    }

    /// How its files are made.
    pub fn packaging(&self) -> Packaging {
        self.packaging
    }

    /// A field of the configuration: a metadata key of a GGUF file, or a path with dots into
    /// `config.json`. Fields without a value (`null`) are not there.
    pub fn field(&self, key: &str) -> Option<Field<'_>> {
        match &self.config {
            Config::Gguf(gguf) => gguf.metadata().get(key).map(Field::of_gguf),
            Config::Json(root) => Field::of_json(root, key),
        }
    }

    /// The metadata of the GGUF file that it came in.
    pub fn gguf_metadata(&self) -> Option<&Metadata<'a>> {
        match &self.config {
            Config::Gguf(gguf) => Some(gguf.metadata()),
            Config::Json(_) => None,
        }
    }

    /// `config.json` of the directory that it came in.
    pub fn config_json(&self) -> Option<&Json> {
        match &self.config {
            Config::Gguf(_) => None,
            Config::Json(root) => Some(root),
        }
    }

    /// The tensors, file by file. Scales and biases of affine tensors are part of these.
    pub fn tensors(&self) -> &[Tensor<'a>] {
        &self.tensors
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&Tensor<'a>> {
        self.tensors.get(*self.by_name.get(name)? as usize)
    }

    fn new(
        packaging: Packaging,
        config: Config<'a>,
        tensors: Vec<Tensor<'a>>,
    ) -> Result<Self, CheckpointError> {
        let mut by_name = HashMap::with_capacity(tensors.len());
        for (i, tensor) in tensors.iter().enumerate() {
            if by_name.insert(tensor.name.clone(), i as u32).is_some() {
                return Err(CheckpointError::DuplicateTensor {
                    name: tensor.name.clone(),
                });
            }
        }
        Ok(Self {
            packaging,
            config,
            tensors,
            by_name,
        })
    }
}
