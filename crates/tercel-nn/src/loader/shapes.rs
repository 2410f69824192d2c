//! The tensors of a model that is only described by its configuration: those that its constructor
//! asks for.

use std::cell::RefCell;
use std::collections::HashSet;

use serde::Serialize;
use tercel_formats::Checkpoint;
use tercel_formats::checkpoint::Packaging;
use tercel_kernels::Target;

use super::Loader;
use crate::NnError;
use crate::models;
use crate::runner::Runner;

/// A tensor that a model has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TensorShape {
    /// Its name in the files.
    pub name: String,
    /// Elements along each dimension, the slowest first.
    pub shape: Vec<usize>,
}

/// What was asked for so far.
#[derive(Default)]
pub(super) struct Wanted {
    seen: HashSet<String>,
    tensors: Vec<TensorShape>,
}

impl Runner {
    /// The tensors that a model of this configuration has, in the order it asks for them.
    /// `checkpoint` holds the configuration of a Hugging Face or MLX directory; its tensors are not
    /// looked at.
    ///
    /// # Errors
    /// [`NnError`] when the configuration is none of a model that this build runs, or does not say
    /// how large it is.
    pub fn shapes(checkpoint: &Checkpoint<'_>) -> Result<Vec<TensorShape>, NnError> {
        if checkpoint.packaging() == Packaging::Gguf {
            return Err(NnError::Config {
                field: "general.architecture".to_owned(),
                problem: "a GGUF file names its tensors itself".to_owned(),
            });
        }
        let mut loader = models::loader(checkpoint, Target::AsStored)?.tolerant();
        loader.wanted = Some(RefCell::default());
        models::construct_with(&mut loader)?;
        // What is missing is what was asked for; anything else is wrong with the configuration.
        let others = |error: &NnError| !matches!(error, NnError::MissingTensor { .. });
        if let Some(error) = loader.problems().into_iter().find(others) {
            return Err(error);
        }
        let wanted = loader.wanted.map(RefCell::into_inner);
        Ok(wanted.unwrap_or_default().tensors)
    }
}

impl Loader<'_, '_> {
    /// Notes a tensor that was asked for, where that is collected.
    pub(super) fn note_wanted(&self, name: &str, shape: &[usize]) {
        if let Some(wanted) = &self.wanted {
            let name = self.spelled(name);
            let mut wanted = wanted.borrow_mut();
            if wanted.seen.insert(name.clone()) {
                let shape = shape.to_vec();
                wanted.tensors.push(TensorShape { name, shape });
            }
        }
    }

    /// Whether a model of this configuration has a tensor that some models do without. Matrices
    /// that may lie in one tensor are taken to lie in their own.
    pub(super) fn would_have(&self, name: &str) -> bool {
        let is_set = |flag: &str| matches!(self.flag(flag), Ok(Some(true)));
        let Some(part) = name.strip_suffix(".bias") else {
            return false;
        };
        match part.rsplit_once('.').map_or(part, |(_, part)| part) {
            // Qwen 2 has them without a field that says so.
            "attn_q" | "attn_k" | "attn_v" => self.family() == "qwen2" || is_set("attention_bias"),
            "attn_output" => is_set("attention_bias"),
            "ffn_gate" | "ffn_up" | "ffn_down" => is_set("mlp_bias"),
            _ => false,
        }
    }
}
