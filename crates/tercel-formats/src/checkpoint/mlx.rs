//! What `mlx-lm` makes of a Hugging Face directory: quantized tensors come as three arrays,
//! `NAME.weight` of 32-bit words, `NAME.scales` and `NAME.biases`.

use std::collections::HashMap;

use serde_json::Value as Json;

use super::safetensors::WORDS;
use super::{CheckpointError, Tensor};
use crate::{Affine, DType, Storage};

/// Where the configuration says how weights are quantized, and layer by layer where they differ.
const TABLE: &str = "quantization";

/// Whether the files follow the conventions of MLX: quantized ones say so, and a convolution has
/// its channels last.
pub(super) fn made_this(config: &Json, tensors: &[Tensor<'_>]) -> bool {
    let turned = |tensor: &Tensor<'_>| {
        tensor.name.ends_with(".conv1d.weight") && matches!(tensor.shape[..], [_, k, 1] if k > 1)
    };
    config.get(TABLE).is_some() || tensors.iter().any(turned)
}

/// Puts codes, scales and biases together.
pub(super) fn join_affine<'a>(
    config: &Json,
    tensors: Vec<Tensor<'a>>,
) -> Result<Vec<Tensor<'a>>, CheckpointError> {
    let side = |end: &str| -> HashMap<String, Tensor<'a>> {
        let found = tensors.iter().filter_map(|tensor| {
            let name = tensor.name.strip_suffix(end)?;
            Some((name.to_owned(), tensor.clone()))
        });
        found.collect()
    };
    let (mut scales, mut biases) = (side(".scales"), side(".biases"));
    let mut joined = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        if tensor.name.ends_with(".scales") || tensor.name.ends_with(".biases") {
            continue;
        }
        let name = tensor.name.strip_suffix(".weight").unwrap_or(&tensor.name);
        joined.push(
            match (scales.remove(name), biases.remove(name), tensor.storage) {
                (Some(scales), Some(biases), Storage::Opaque { kind: WORDS, data }) => {
                    let settings = Settings::of(config, name)?;
                    affine(&tensor, data, &scales, &biases, &settings)?
                }
                (Some(_), None, _) => return Err(without(&tensor, "biases")),
                (None, Some(_), _) => return Err(without(&tensor, "scales")),
                (None, None, Storage::Opaque { kind: WORDS, .. }) => {
                    return Err(without(&tensor, "scales"));
                }
                (Some(_), Some(_), _) => {
                    let problem = "has scales, but is not made of codes".to_owned();
                    return Err(wrong(&tensor.name, problem));
                }
                (None, None, _) => tensor,
            },
        );
    }
    match scales
        .into_iter()
        .chain(biases)
        .map(|(_, tensor)| tensor.name)
        .min()
    {
        Some(name) => Err(wrong(
            &name,
            "the weight that it belongs to is missing".to_owned(),
        )),
        None => Ok(joined),
    }
}

/// How a tensor that is only described is quantized, without its data; `None` where it is not.
pub(super) fn described(
    config: &Json,
    name: &str,
    shape: &[usize],
) -> Result<Option<Affine<'static>>, CheckpointError> {
    let Some(table) = config.get(TABLE) else {
        return Ok(None);
    };
    let stem = name.strip_suffix(".weight").unwrap_or(name);
    let left_out = table.get(stem).and_then(Json::as_bool) == Some(false);
    if left_out || stem == name || shape.len() < 2 || stem.ends_with(".conv1d") {
        return Ok(None);
    }
    let Settings { bits, group } = Settings::of(config, stem)?;
    let divides = shape.last().is_some_and(|cols| cols.is_multiple_of(group));
    Ok(divides.then_some(Affine {
        bits,
        group,
        codes: &[],
        scales: &[],
        biases: &[],
        scale_type: DType::BF16,
    }))
}

/// How one tensor is quantized.
struct Settings {
    bits: u32,
    group: usize,
}

impl Settings {
    fn of(config: &Json, name: &str) -> Result<Self, CheckpointError> {
        let table = config.get(TABLE);
        let own = table
            .and_then(|table| table.get(name))
            .filter(|own| own.is_object());
        let field = |key: &str| {
            let value = own.and_then(|own| own.get(key));
            value.or_else(|| table?.get(key))
        };
        let mode = field("mode").and_then(Json::as_str).unwrap_or("affine");
        if mode != "affine" {
            return Err(CheckpointError::UnsupportedQuantization {
                method: mode.to_owned(),
                tensor: Some(name.to_owned()),
            });
        }
        let number = |key: &str| field(key).and_then(Json::as_u64);
        let bits = number("bits").and_then(|bits| u32::try_from(bits).ok());
        let group = number("group_size").and_then(|group| usize::try_from(group).ok());
        match (bits, group) {
            (Some(bits), Some(group))
                if Affine::BITS.contains(&bits) && Affine::GROUPS.contains(&group) =>
            {
                Ok(Self { bits, group })
            }
            (Some(bits), Some(group)) => {
                let problem = format!(
                    "{bits} bits in groups of {group} are not supported (bits 2, 3, 4, 5, 6, 8; \
                     groups of 32, 64, 128)"
                );
                Err(wrong(name, problem))
            }
            _ => Err(CheckpointError::Json {
                file: "config.json".to_owned(),
                problem: format!("`{TABLE}` does not say the bits and group_size of `{name}`"),
            }),
        }
    }
}

fn affine<'a>(
    tensor: &Tensor<'a>,
    codes: &'a [u8],
    scales: &Tensor<'a>,
    biases: &Tensor<'a>,
    &Settings { bits, group }: &Settings,
) -> Result<Tensor<'a>, CheckpointError> {
    let misfit = |problem: String| wrong(&tensor.name, problem);
    let ([before @ .., words], [of_scales @ .., groups]) = (&tensor.shape[..], &scales.shape[..])
    else {
        return Err(misfit("has no rows".to_owned()));
    };
    let cols = groups.checked_mul(group);
    let cols = cols.filter(|cols| words.checked_mul(32) == cols.checked_mul(bits as usize));
    let Some(cols) = cols.filter(|_| before == of_scales) else {
        return Err(misfit(format!(
            "codes {:?} and scales {:?} do not make {bits} bits in groups of {group}",
            tensor.shape, scales.shape
        )));
    };
    if scales.shape != biases.shape {
        let problem = format!("scales {:?}, but biases {:?}", scales.shape, biases.shape);
        return Err(misfit(problem));
    }
    let (scale_type, scales, biases) = match (scales.storage, biases.storage) {
        (
            Storage::Plain { dtype, data },
            Storage::Plain {
                dtype: of_biases,
                data: biases,
            },
        ) if dtype == of_biases && matches!(dtype, DType::F32 | DType::F16 | DType::BF16) => {
            (dtype, data, biases)
        }
        (scales, biases) => {
            let problem = format!(
                "scales of type {} with biases of type {}",
                scales.kind(),
                biases.kind()
            );
            return Err(misfit(problem));
        }
    };
    Ok(Tensor {
        name: tensor.name.clone(),
        shape: before.iter().copied().chain([cols]).collect(),
        storage: Storage::Affine(Affine {
            bits,
            group,
            codes,
            scales,
            biases,
            scale_type,
        }),
    })
}

fn without(tensor: &Tensor<'_>, what: &str) -> CheckpointError {
    let name = tensor.name.strip_suffix(".weight").unwrap_or(&tensor.name);
    wrong(
        &tensor.name,
        format!("expected a tensor `{name}.{what}` beside it, which is missing"),
    )
}

fn wrong(name: &str, problem: String) -> CheckpointError {
    CheckpointError::Quantization {
        name: name.to_owned(),
        problem,
    }
}
