//! Any model that loads as a Hugging Face directory of safetensors.

mod config;
mod directory;
mod generation;
mod gguf;
mod place;
mod record;
mod rope;
mod tensor;
mod write;

use std::fmt;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::str::FromStr;

use serde_json::Value as Json;
use tercel_formats::Checkpoint;
use tercel_formats::checkpoint::Packaging;
use tercel_nn::{NnError, Runner};

use crate::error::ConvertError;
use place::Place;
use tensor::Output;
use write::Shards;

/// A model to be converted.
#[derive(Debug)]
pub struct Source<'s, 'a> {
    /// What it is called.
    pub name: &'s str,
    /// Its configuration and tensors.
    pub checkpoint: &'s Checkpoint<'a>,
    /// Name and bytes of each file that holds weights; their hashes are recorded.
    pub weights: Vec<(String, &'s [u8])>,
    /// Name and bytes of what stands beside the weights of a directory.
    pub beside: Vec<(&'s str, &'s [u8])>,
}

/// The type of the weights that are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Half floats: 11 bits, up to 65504.
    #[default]
    F16,
    /// The upper half of single floats: 8 bits, their range.
    Bf16,
    /// Single floats.
    F32,
}

/// How a model is converted.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The type of matrices. Norms, biases and other vectors are single floats unless they are of
    /// this type already.
    pub precision: Precision,
    /// The most bytes of tensors in one file, one tensor at least.
    pub max_shard_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            precision: Precision::F16,
            max_shard_bytes: 4 << 30,
        }
    }
}

/// How far a conversion has come.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'p> {
    /// The share of the work that is done, in 0..=1.
    pub share: f64,
    /// Bytes of the source that have just been read, and are not needed for now.
    pub read: &'p [u8],
}

/// What a conversion made.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Converted {
    /// Files of weights.
    pub shards: usize,
    /// Tensors in them.
    pub tensors: usize,
    /// Bytes of all files.
    pub bytes: u64,
    /// What the result lacks or does otherwise than the source, in words.
    pub notes: Vec<String>,
}

/// Writes `source` as a Hugging Face directory at `output`, which must not exist: `config.json`,
/// safetensors (with an index where there are several), `generation_config.json`, the tokenizer's
/// files, the chat template, and `manifest.json`, which says where it came from.
///
/// The directory is written under another name beside it, and gets its own in the end. One row of
/// a tensor is in memory at a time. `progress` hears of each step, and may stop it.
///
/// # Errors
/// [`ConvertError`]; nothing is left of what was written.
pub fn convert(
    source: &Source<'_, '_>,
    output: &Path,
    options: Options,
    progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
) -> Result<Converted, ConvertError> {
    let result = Outcome::of(source, options.precision)?;
    let shards = Shards::new(&result.tensors, options.precision, options.max_shard_bytes)?;
    let small: u64 = result.files.iter().map(|(_, file)| file.len() as u64).sum();
    let place = Place::new(output, shards.bytes() + small)?;

    let mut meter = Meter {
        done: 0,
        all: source.bytes() + shards.bytes(),
        progress,
    };
    let files = record::hashes(source, &mut meter)?;
    let manifest = record::manifest(source, &files, options.precision, &result.config);
    shards.write(place.path(), &mut meter)?;
    let mut bytes = shards.bytes();
    let config = record::pretty(&result.config);
    let own = [("config.json", config), ("manifest.json", manifest)];
    let own = own.map(|(name, bytes)| (name.to_owned(), bytes));
    for (name, contents) in own.iter().chain(&result.files) {
        let path = place.path().join(name);
        fs::write(&path, contents).map_err(ConvertError::write(&path))?;
        bytes += contents.len() as u64;
    }
    place.finish()?;
    Ok(Converted {
        shards: shards.len(),
        tensors: result.tensors.len(),
        bytes,
        notes: result.notes,
    })
}

/// What will be written.
struct Outcome<'a> {
    config: Json,
    tensors: Vec<Output<'a>>,
    /// All other files, by name.
    files: Vec<(String, Vec<u8>)>,
    notes: Vec<String>,
}

impl<'a> Outcome<'a> {
    fn of(source: &Source<'_, 'a>, precision: Precision) -> Result<Self, ConvertError> {
        // Whether there is a tensor too few, too many, or of another shape is known here.
        let info = Runner::describe(source.checkpoint)?;
        if source.checkpoint.packaging() == Packaging::Gguf {
            let model = gguf::Model::new(source.checkpoint, info)?;
            return Ok(Self {
                config: config::of(&model, precision)?,
                tensors: gguf::tensors(&model)?,
                files: gguf::files(&model)?,
                notes: model.info.left_out,
            });
        }
        Ok(Self {
            config: directory::config(source.checkpoint, precision)?,
            tensors: directory::tensors(source.checkpoint, &info)?,
            files: directory::files(source),
            notes: Vec::new(),
        })
    }
}

impl Source<'_, '_> {
    fn bytes(&self) -> u64 {
        self.weights.iter().map(|(_, file)| file.len() as u64).sum()
    }
}

/// Tells how far things are.
struct Meter<'m> {
    done: u64,
    all: u64,
    progress: &'m mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
}

impl Meter<'_> {
    /// `bytes` more are done, of the source or of the result.
    fn step(&mut self, bytes: u64, read: &[u8]) -> Result<(), ConvertError> {
        self.done += bytes;
        let share = self.done as f64 / self.all.max(1) as f64;
        match (self.progress)(Progress { share, read }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(ConvertError::Cancelled),
        }
    }
}

impl Precision {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::F16, Self::Bf16, Self::F32];

    /// The name in small letters, as the command has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::F32 => "f32",
        }
    }

    /// The name that PyTorch and `config.json` have for it.
    fn torch_name(self) -> &'static str {
        match self {
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
            Self::F32 => "float32",
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = Self::ALL
            .into_iter()
            .find(|known| known.name().eq_ignore_ascii_case(name));
        known.ok_or_else(|| format!("`{name}` is none of f16, bf16, f32"))
    }
}

/// What cannot be, since a checkpoint of this architecture was just described.
fn unknown_architecture(name: &str) -> ConvertError {
    ConvertError::Model(NnError::UnknownArchitecture {
        name: name.to_owned(),
        supported: tercel_nn::architectures().collect::<Vec<_>>().join(", "),
    })
}
