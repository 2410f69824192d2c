//! Directories of safetensors, of transformers or of MLX, in floats.

use serde_json::Value as Json;
use tercel_formats::Checkpoint;
use tercel_formats::checkpoint::{Packaging, Tensor};
use tercel_nn::ModelInfo;

use super::tensor::{Output, Values};
use super::{Precision, Source};
use crate::error::ConvertError;

/// Files of a directory that are written anew.
const OWN: [&str; 3] = [
    "config.json",
    "manifest.json",
    "model.safetensors.index.json",
];

/// The configuration with the new type, and without what is said of the quantization.
pub(super) fn config(
    checkpoint: &Checkpoint<'_>,
    precision: Precision,
) -> Result<Json, ConvertError> {
    let config = checkpoint.config_json();
    let mut config = config
        .cloned()
        .ok_or_else(|| ConvertError::unsupported("the model", "it has no config.json"))?;
    retype(&mut config, precision);
    if let Some(text) = config.get_mut("text_config") {
        retype(text, precision);
    }
    Ok(config)
}

fn retype(config: &mut Json, precision: Precision) {
    let Some(fields) = config.as_object_mut() else {
        return;
    };
    for name in ["quantization", "quantization_config"] {
        fields.shift_remove(name);
    }
    let name = match fields.contains_key("dtype") {
        true => "dtype",
        false => "torch_dtype",
    };
    fields.insert(name.to_owned(), precision.torch_name().into());
}

/// What stands beside the weights, unchanged.
pub(super) fn files(source: &Source<'_, '_>) -> Vec<(String, Vec<u8>)> {
    let files = source.beside.iter();
    files
        .filter(|(name, _)| !OWN.contains(name))
        .map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec()))
        .collect()
}

/// All tensors, those of other parts of the model too.
pub(super) fn tensors<'a>(
    checkpoint: &Checkpoint<'a>,
    info: &ModelInfo,
) -> Result<Vec<Output<'a>>, ConvertError> {
    let mut outputs = Vec::new();
    for tensor in checkpoint.tensors() {
        if checkpoint.packaging() == Packaging::Mlx {
            mlx(tensor, info, &mut outputs)?;
        } else {
            outputs.push(Output::of(tensor.name.clone(), tensor)?);
        }
    }
    Ok(outputs)
}

/// What `mlx-lm` does when it converts, undone.
fn mlx<'a>(
    tensor: &Tensor<'a>,
    info: &ModelInfo,
    outputs: &mut Vec<Output<'a>>,
) -> Result<(), ConvertError> {
    let name = plain_name(&tensor.name);
    if let Some((before, part)) = name.split_once(".switch_mlp.") {
        for i in 0..tensor.shape.first().copied().unwrap_or(0) {
            let name = format!("{before}.experts.{i}.{part}");
            outputs.push(Output::slice(name, tensor, i)?);
        }
        return Ok(());
    }
    let shifted = info.architecture == "qwen35" && is_shifted(&name);
    let turned = name.ends_with(".conv1d.weight");
    let mut output = Output::of(name, tensor)?;
    if shifted {
        output = output.with(|rows| rows.values = Values::LessOne);
    }
    if let [channels, kernel, 1] = tensor.shape[..]
        && turned
    {
        // The elements lie the same; they are one row of each channel.
        output.shape = vec![channels, 1, kernel];
        output = output.with(|rows| {
            (rows.rows, rows.cols) = (channels, kernel);
            rows.delicate = true;
        });
    }
    outputs.push(output);
    Ok(())
}

/// The place of the text model in a model with other parts.
fn plain_name(name: &str) -> String {
    if let Some(rest) = name.strip_prefix("language_model.model.") {
        return format!("model.language_model.{rest}");
    }
    name.strip_prefix("language_model.lm_head.")
        .map_or_else(|| name.to_owned(), |rest| format!("lm_head.{rest}"))
}

/// Norms that transformers keeps less one.
fn is_shifted(name: &str) -> bool {
    let kinds = [
        ".input_layernorm.weight",
        ".post_attention_layernorm.weight",
        ".q_norm.weight",
        ".k_norm.weight",
        "model.norm.weight",
    ];
    kinds.iter().any(|end| name.ends_with(end))
}
