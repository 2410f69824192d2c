//! A directory of the Hugging Face Hub as one checkpoint.

use std::collections::{BTreeSet, HashMap};

use serde::Deserialize;
use serde_json::Value as Json;

use super::{Checkpoint, CheckpointError, Config, Packaging, Tensor, mlx, safetensors};
use crate::{DType, Storage};

const CONFIG: &str = "config.json";
const INDEX: &str = "model.safetensors.index.json";

/// The names of the files that an index spreads a model over, sorted.
///
/// # Errors
/// [`CheckpointError::Json`] when it is no index, names no file, or a name is not that of a
/// safetensors file beside it ([`is_shard_name`]).
pub fn shards(index: &[u8]) -> Result<Vec<String>, CheckpointError> {
    let wrong = |problem: String| CheckpointError::Json {
        file: INDEX.to_owned(),
        problem,
    };
    let files: BTreeSet<String> = parse_index(index)?.weight_map.into_values().collect();
    if files.is_empty() {
        return Err(wrong("names no file".to_owned()));
    }
    match files.iter().find(|name| !is_shard_name(name)) {
        Some(odd) => {
            let odd: String = odd.escape_default().take(100).collect();
            Err(wrong(format!(
                "names `{odd}`, which is no safetensors file"
            )))
        }
        None => Ok(files.into_iter().collect()),
    }
}

/// Whether a file is one of safetensors by its name, which is a plain one: it becomes a path.
pub fn is_shard_name(name: &str) -> bool {
    name.len() <= 150
        && name.ends_with(".safetensors")
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

pub(super) fn read<'a>(
    config: &[u8],
    files: &[(&str, &'a [u8])],
    index: Option<&[u8]>,
) -> Result<Checkpoint<'a>, CheckpointError> {
    let config = parse_config(config)?;
    refuse_other_quantization(&config)?;
    let index = index.map(parse_index).transpose()?;
    let mut tensors = Vec::new();
    for (file, bytes) in files {
        let of_file = safetensors::read(file, bytes)?;
        if let Some(index) = &index {
            let listed = |name: &str| index.weight_map.get(name).is_some_and(|at| at == file);
            if let Some(extra) = of_file.iter().find(|tensor| !listed(&tensor.name)) {
                return Err(CheckpointError::UnexpectedTensor {
                    name: extra.name.clone(),
                    file: (*file).to_owned(),
                });
            }
        }
        tensors.extend(of_file);
    }
    if let Some(index) = &index {
        let here: BTreeSet<&str> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
        let missing = index
            .weight_map
            .iter()
            .filter(|(name, _)| !here.contains(name.as_str()));
        // The least of them: a table has no order to go by.
        if let Some((name, file)) = missing.min() {
            return Err(CheckpointError::MissingTensor {
                name: name.clone(),
                file: file.clone(),
            });
        }
    }
    let by_mlx = mlx::made_this(&config, &tensors);
    if by_mlx {
        tensors = mlx::join_affine(&config, tensors)?;
    }
    if let Some(tensor) = tensors
        .iter()
        .find(|tensor| tensor.name.ends_with(".qweight"))
    {
        return Err(CheckpointError::UnsupportedQuantization {
            method: "gptq or awq".to_owned(),
            tensor: Some(tensor.name.clone()),
        });
    }
    let packaging = if by_mlx {
        Packaging::Mlx
    } else {
        Packaging::HuggingFace
    };
    Checkpoint::new(packaging, Config::Json(config), tensors)
}

/// See [`Checkpoint::described`].
pub(super) fn describe<'a>(
    config: &[u8],
    tensors: impl IntoIterator<Item = (String, Vec<usize>)>,
    dtype: DType,
    zeros: &'a [u8],
) -> Result<Checkpoint<'a>, CheckpointError> {
    let config = parse_config(config)?;
    refuse_other_quantization(&config)?;
    let by_mlx = mlx::made_this(&config, &[]);
    let mut described = Vec::new();
    for (name, shape) in tensors {
        let storage = match mlx::described(&config, &name, &shape)? {
            Some(affine) => Storage::Affine(affine),
            None => {
                let elements = shape.iter().try_fold(1_usize, |n, dim| n.checked_mul(*dim));
                let bytes = elements.and_then(|elements| dtype.bytes_for(elements));
                let data = bytes
                    .and_then(|bytes| zeros.get(..bytes))
                    .unwrap_or_default();
                Storage::Plain { dtype, data }
            }
        };
        described.push(Tensor {
            name,
            shape,
            storage,
        });
    }
    let packaging = if by_mlx {
        Packaging::Mlx
    } else {
        Packaging::HuggingFace
    };
    Checkpoint::new(packaging, Config::Json(config), described)
}

#[derive(Deserialize)]
struct Index {
    weight_map: HashMap<String, String>,
}

fn parse_index(bytes: &[u8]) -> Result<Index, CheckpointError> {
    serde_json::from_slice(bytes).map_err(|error| CheckpointError::Json {
        file: INDEX.to_owned(),
        problem: format!("is no index of safetensors files: {error}"),
    })
}

fn parse_config(bytes: &[u8]) -> Result<Json, CheckpointError> {
    let wrong = |problem: String| CheckpointError::Json {
        file: CONFIG.to_owned(),
        problem,
    };
    let config: Json = serde_json::from_slice(bytes)
        .map_err(|error| wrong(format!("is no valid JSON: {error}")))?;
    if config.is_object() {
        Ok(config)
    } else {
        Err(wrong("holds no configuration".to_owned()))
    }
}

/// Every method but MLX's own leaves its name in the configuration.
fn refuse_other_quantization(config: &Json) -> Result<(), CheckpointError> {
    let of = |root: &Json| {
        let table = root.get("quantization_config")?;
        let method = table.get("quant_method")?;
        Some(method.as_str().unwrap_or("an unnamed method").to_owned())
    };
    match of(config).or_else(|| of(config.get("text_config")?)) {
        Some(method) => Err(CheckpointError::UnsupportedQuantization {
            method,
            tensor: None,
        }),
        None => Ok(()),
    }
}
