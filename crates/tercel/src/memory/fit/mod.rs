//! What a model would take, and how much of it fits: the same estimate that a load makes, asked
//! again and again.

mod blueprint;
#[cfg(test)]
mod tests;

use serde::Serialize;
use tercel_formats::Checkpoint;
use tercel_nn::{KvPart, KvType, Memory, NnError, Options, Runner};

pub use blueprint::{Blueprint, Described};

use super::breakdown::Breakdown;
use super::kv_size::{KvDtype, KvShape, KvSizeError};
use crate::builder::{DEFAULT_PREFILL_CHUNK, target};
use crate::error::Error;
use crate::files::{ModelSummary, resolve_context};
use crate::machine;
use crate::model::options;

/// The most sequences that an engine takes.
pub const MOST_SEQUENCES: usize = 256;

/// For what a model is to be fitted.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct FitOptions {
    /// Tokens that a sequence may have; by default what an engine takes.
    pub max_context: Option<usize>,
    /// Sequences at once, each with room for a whole context: 1 to [`MOST_SEQUENCES`]. By default
    /// the few of an engine that share the room of one.
    pub sequences: Option<usize>,
    /// How the KV cache is stored, by default half floats.
    pub kv: KvDtype,
    /// As [`EngineBuilder::quantize`](crate::EngineBuilder::quantize).
    pub quantize: Option<String>,
    /// What it must fit, in bytes; by default what the machine has free.
    pub budget_bytes: Option<u64>,
    /// Compute threads, each with its scratch; by default the number of physical cores.
    pub threads: Option<usize>,
}

/// What a model takes, and what fits. Sizes in bytes.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Fit {
    /// The model.
    pub model: ModelSummary,
    /// What is known of it, where it is not all of its files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub described: Option<Described>,
    /// Tokens that a sequence may have.
    pub max_context: usize,
    /// Sequences at once.
    pub sequences: usize,
    /// Whether they share the room of one context, as those of an engine do unless told otherwise.
    pub share_context: bool,
    /// How the KV cache is stored.
    pub kv_type: KvDtype,
    /// The packed weights.
    pub weights_bytes: u64,
    /// The KV cache of all sequences, for each kind of layer.
    pub kv: Vec<KvPart>,
    /// The states of recurrent layers, of all sequences.
    pub recurrent_bytes: u64,
    /// Buffers of the computation.
    pub workspace_bytes: u64,
    /// What is kept of prompts and replies for later ones that begin alike.
    pub prefix_cache_bytes: u64,
    /// The tokenizer.
    pub tokenizer_bytes: u64,
    /// Whether that is estimated from the tokenizer's own files, and not from the number of tokens
    /// alone.
    pub tokenizer_known: bool,
    /// The sum.
    pub total_bytes: u64,
    /// What it must fit: the budget that was given, or what the machine has free. `None` where the
    /// system does not tell.
    pub limit_bytes: Option<u64>,
    /// Whether that is a budget that was given.
    pub limit_is_budget: bool,
    /// Whether it fits; `None` without a limit.
    pub fits: Option<bool>,
    /// The longest context that fits with so many sequences: 0 where none does, `None` without a
    /// limit.
    pub largest_context: Option<usize>,
    /// The most sequences that fit with this context, up to [`MOST_SEQUENCES`]: 0 where not one
    /// does, `None` without a limit.
    pub largest_sequences: Option<usize>,
}

impl Fit {
    /// The parts as a table.
    pub fn breakdown(&self) -> Breakdown {
        let mut parts = Breakdown::new().with("weights", self.weights_bytes);
        for kv in &self.kv {
            let layers = match kv.layers {
                1 => "1 layer".to_owned(),
                layers => format!("{layers} layers"),
            };
            let part = match kv.window {
                None => format!("KV cache, {layers}, full attention"),
                Some(window) => format!("KV cache, {layers}, windows of {window}"),
            };
            parts = parts.with(part, kv.bytes as u64);
        }
        parts
            .with("recurrent state", self.recurrent_bytes)
            .with("workspace", self.workspace_bytes)
            .with("prefix cache", self.prefix_cache_bytes)
            .with("tokenizer", self.tokenizer_bytes)
    }

    /// The KV cache of all layers.
    pub fn kv_bytes(&self) -> u64 {
        self.kv
            .iter()
            .fold(0, |sum, kv| sum.saturating_add(kv.bytes as u64))
    }

    /// What the arithmetic of a KV cache needs of the model: the layers that attend.
    ///
    /// # Errors
    /// [`KvSizeError`] for a model without such layers.
    pub fn kv_shape(&self) -> Result<KvShape, KvSizeError> {
        let layers: usize = self.kv.iter().map(|kv| kv.layers).sum();
        let ModelSummary {
            n_heads,
            n_kv_heads,
            head_dim,
            ..
        } = self.model;
        let [layers, heads, kv_heads, head_dim] =
            [layers, n_heads, n_kv_heads, head_dim].map(|n| n as u64);
        KvShape::new(layers, heads, kv_heads, head_dim)
    }
}

impl Blueprint {
    /// What the model would take, whether that fits, and how much of it does.
    ///
    /// # Errors
    /// An option out of range, a context longer than the model was trained for, or a model that
    /// cannot be loaded.
    pub fn fit(&self, asked: &FitOptions) -> Result<Fit, Error> {
        if let Some(given) = asked.sequences
            && !(1..=MOST_SEQUENCES).contains(&given)
        {
            let range = format!("1 to {MOST_SEQUENCES}");
            return Err(Error::invalid_parameter(
                "sequences",
                given.to_string(),
                range,
            ));
        }
        let weights = target(asked.quantize.as_deref(), false)?;
        let kv_type = kv_type(asked.kv)?;
        let threads = asked.threads.unwrap_or_else(machine::physical_cores);
        let tokenizer = self.tokenizer_bytes()?;
        let model = self.summary()?;
        let max_context = resolve_context(asked.max_context, model.trained_context)?;
        let limit = asked.budget_bytes.or_else(machine::available_bytes);
        self.with_checkpoint(|checkpoint| {
            let options = |max_context: usize, sequences: Option<usize>| Options {
                weights,
                kv_type,
                ..options(max_context, sequences, DEFAULT_PREFILL_CHUNK, threads)
            };
            let estimate = |max_context: usize, sequences: Option<usize>| {
                let options = options(max_context, sequences);
                estimate(checkpoint, &options).map_err(|error| self.model_error(error))
            };
            let fits = |memory: &Memory, limit: u64| {
                (memory.total() as u64).saturating_add(tokenizer.bytes) <= limit
            };
            let memory = estimate(max_context, asked.sequences)?;
            let (mut largest_context, mut largest_sequences) = (None, None);
            if let Some(limit) = limit {
                largest_context = Some(largest(2, model.trained_context, |context| {
                    Ok(fits(&estimate(context, asked.sequences)?, limit))
                })?);
                largest_sequences = Some(largest(1, MOST_SEQUENCES, |sequences| {
                    Ok(fits(&estimate(max_context, Some(sequences))?, limit))
                })?);
            }
            Ok(Fit {
                described: self.described(),
                max_context,
                sequences: options(max_context, asked.sequences).max_sequences,
                share_context: asked.sequences.is_none(),
                kv_type: asked.kv,
                weights_bytes: memory.weights_bytes as u64,
                kv: memory.kv.clone(),
                recurrent_bytes: memory.recurrent_bytes as u64,
                workspace_bytes: memory.workspace_bytes as u64,
                prefix_cache_bytes: memory.prefix_cache_bytes as u64,
                tokenizer_bytes: tokenizer.bytes,
                tokenizer_known: tokenizer.is_known,
                total_bytes: (memory.total() as u64).saturating_add(tokenizer.bytes),
                limit_bytes: limit,
                limit_is_budget: asked.budget_bytes.is_some(),
                fits: limit.map(|limit| fits(&memory, limit)),
                largest_context,
                largest_sequences,
                model,
            })
        })
    }
}

/// What a tokenizer takes.
struct TokenizerBytes {
    bytes: u64,
    /// Whether its own files said so.
    is_known: bool,
}

/// The only estimate there is: that of a load.
fn estimate(checkpoint: &Checkpoint<'_>, options: &Options) -> Result<Memory, NnError> {
    Runner::estimate(checkpoint, options)
}

fn kv_type(dtype: KvDtype) -> Result<KvType, Error> {
    match dtype {
        KvDtype::F16 => Ok(KvType::F16),
        KvDtype::F32 => Ok(KvType::F32),
        KvDtype::Q8_0 => Ok(KvType::Q8_0),
        KvDtype::Bf16 => Err(Error::invalid_parameter(
            "kv",
            dtype.name(),
            "f16, q8_0 or f32",
        )),
    }
}

/// The largest number in `least..=most` that `fits`, where all below it do too; 0 where none does.
fn largest(
    least: usize,
    most: usize,
    mut fits: impl FnMut(usize) -> Result<bool, Error>,
) -> Result<usize, Error> {
    if most < least || !fits(least)? {
        return Ok(0);
    }
    // `low` fits, `high` does not.
    let (mut low, mut high) = (least, most + 1);
    // Most often all fits, or little does.
    if fits(most)? {
        return Ok(most);
    }
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if fits(middle)? {
            low = middle;
        } else {
            high = middle;
        }
    }
    Ok(low)
}
