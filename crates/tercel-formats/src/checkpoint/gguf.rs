//! The parts of a GGUF file as one checkpoint.
//!
//! A split file is several GGUF files: the first has all metadata, each has `split.no`,
//! `split.count` and its share of the tensors (`gguf-split`).

use super::{Checkpoint, CheckpointError, Config, Packaging, Tensor};
use crate::{Gguf, Storage};

const COUNT: &str = "split.count";
const NUMBER: &str = "split.no";
const TENSORS: &str = "split.tensors.count";

pub(super) fn join(parts: Vec<Gguf<'_>>) -> Result<Checkpoint<'_>, CheckpointError> {
    let split = |problem: String| CheckpointError::Split { problem };
    let mut tensors = Vec::new();
    for (i, part) in parts.iter().enumerate() {
        let count = part.metadata().u32(COUNT)?.unwrap_or(1).max(1) as usize;
        if count != parts.len() {
            let problem = format!("{count} files make this model, {} are here", parts.len());
            return Err(split(problem));
        }
        let number = part.metadata().u32(NUMBER)?.unwrap_or(0) as usize;
        if number != i {
            return Err(split(format!(
                "part {} says it is part {}",
                i + 1,
                number + 1
            )));
        }
        tensors.extend(part.tensors().iter().map(|tensor| Tensor {
            name: tensor.name.to_owned(),
            shape: tensor.shape.iter().rev().copied().collect(),
            storage: Storage::Plain {
                dtype: tensor.dtype,
                data: tensor.data,
            },
        }));
    }
    let first = parts
        .into_iter()
        .next()
        .ok_or_else(|| split("there are no files".to_owned()))?;
    // llama.cpp writes this one as a signed number.
    let expected = match first.metadata().get(TENSORS) {
        Some(crate::gguf::Value::I32(n)) => usize::try_from(*n).ok(),
        _ => first.metadata().u32(TENSORS)?.map(|n| n as usize),
    };
    if let Some(expected) = expected
        && expected != tensors.len()
    {
        let problem = format!(
            "the parts have {} tensors, {expected} make this model",
            tensors.len()
        );
        return Err(split(problem));
    }
    Checkpoint::new(Packaging::Gguf, Config::Gguf(Box::new(first)), tensors)
}
