//! What converters to GGUF did to a model, undone.

use tercel_formats::Checkpoint;
use tercel_formats::checkpoint::Tensor;
use tercel_formats::gguf::Metadata;
use tercel_nn::{ModelInfo, Naming};
use tercel_text::{Tokenizer, TokenizerParts};

use super::tensor::{Order, Output, Values};
use super::{generation, record, unknown_architecture};
use crate::error::ConvertError;

/// The divisors of frequencies, which become fields of the configuration.
pub(super) const ROPE_FACTORS: &str = "rope_freqs.weight";

/// A GGUF file, whole or in parts, that a family of ours loads.
pub(super) struct Model<'s, 'a> {
    pub(super) checkpoint: &'s Checkpoint<'a>,
    pub(super) metadata: &'s Metadata<'a>,
    pub(super) info: ModelInfo,
    pub(super) naming: Naming,
    pub(super) tokenizer: Tokenizer,
    parts: TokenizerParts<'a>,
}

impl<'s, 'a> Model<'s, 'a> {
    pub(super) fn new(
        checkpoint: &'s Checkpoint<'a>,
        info: ModelInfo,
    ) -> Result<Self, ConvertError> {
        let naming = Naming::of(&info.architecture);
        let naming = naming.ok_or_else(|| unknown_architecture(&info.architecture))?;
        let metadata = checkpoint.gguf_metadata();
        let metadata = metadata.ok_or_else(|| {
            ConvertError::unsupported("the model", "it is no GGUF file, though it says so")
        })?;
        let parts = TokenizerParts::from_gguf(metadata)?;
        Ok(Self {
            checkpoint,
            metadata,
            info,
            naming,
            tokenizer: Tokenizer::from_parts(&parts)?,
            parts,
        })
    }

    /// The metadata key of the architecture that ends in `key`.
    pub(super) fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.info.architecture)
    }

    /// A whole number of the configuration.
    pub(super) fn count(&self, key: &str) -> Result<Option<usize>, ConvertError> {
        let number = self.metadata.u32(&self.key(key))?;
        Ok(number.map(|number| number as usize))
    }

    /// A number of the configuration, as few digits as say the same single float.
    pub(super) fn number(&self, key: &str) -> Result<Option<f64>, ConvertError> {
        let number = self.metadata.f32(&self.key(key))?;
        Ok(number.and_then(|number| number.to_string().parse().ok()))
    }

    /// Whether a layer has this tensor, by the name it has in the first one that does.
    pub(super) fn has(&self, name: &str) -> bool {
        let prefixed = |layer: usize| format!("blk.{layer}.{name}");
        let mut layers = 0..self.info.n_layers;
        layers.any(|layer| self.checkpoint.tensor(&prefixed(layer)).is_some())
    }
}

/// The tensors under the names and in the forms that transformers has for them.
pub(super) fn tensors<'a>(model: &Model<'_, 'a>) -> Result<Vec<Output<'a>>, ConvertError> {
    let mut outputs = Vec::new();
    for tensor in model.checkpoint.tensors() {
        let (layer, part) = split(&tensor.name);
        let left_out = layer.is_some_and(|layer| layer >= model.info.n_layers);
        if left_out || tensor.name == ROPE_FACTORS {
            continue;
        }
        let name = model.naming.tensor(&tensor.name);
        if let (Some(layer), Some(expert)) = (layer, expert_part(part)) {
            for i in 0..tensor.shape.first().copied().unwrap_or(0) {
                let name = format!("model.layers.{layer}.mlp.experts.{i}.{expert}.weight");
                outputs.push(Output::slice(name, tensor, i)?);
            }
            continue;
        }
        let output = Output::of(name, tensor)?;
        outputs.push(match model.info.architecture.as_str() {
            "llama" => llama(model, part, output)?,
            "gemma3" => plain_norms(part, output, &[]),
            "qwen35" => qwen35(model, part, tensor, output)?,
            "qwen2" | "qwen3" | "qwen3moe" => output,
            other => {
                let problem = "what converters did to its tensors is not known";
                return Err(ConvertError::unsupported(
                    format!("architecture `{other}` from GGUF"),
                    problem,
                ));
            }
        });
    }
    Ok(outputs)
}

/// All files but the weights and the configuration.
pub(super) fn files(model: &Model<'_, '_>) -> Result<Vec<(String, Vec<u8>)>, ConvertError> {
    let template = model.metadata.str("tokenizer.chat_template")?;
    let exported = model.parts.to_hugging_face(template)?;
    let mut files: Vec<_> = exported
        .into_iter()
        .map(|file| (file.name.to_owned(), file.bytes))
        .collect();
    if let Some(template) = template {
        let name = "chat_template.jinja".to_owned();
        files.push((name, template.as_bytes().to_vec()));
    }
    let generation = record::pretty(&generation::of(model));
    files.push(("generation_config.json".to_owned(), generation));
    Ok(files)
}

/// The layer, and the rest of the name.
fn split(name: &str) -> (Option<usize>, &str) {
    let inside = name.strip_prefix("blk.");
    match inside.and_then(|inside| inside.split_once('.')) {
        Some((layer, part)) => (layer.parse().ok(), part),
        None => (None, name),
    }
}

fn expert_part(part: &str) -> Option<&'static str> {
    match part {
        "ffn_gate_exps.weight" => Some("gate_proj"),
        "ffn_up_exps.weight" => Some("up_proj"),
        "ffn_down_exps.weight" => Some("down_proj"),
        _ => None,
    }
}

/// Rows of queries and keys were put so that what is turned together lies side by side.
fn llama<'a>(
    model: &Model<'_, 'a>,
    part: &str,
    output: Output<'a>,
) -> Result<Output<'a>, ConvertError> {
    let width = model.info.head_dim;
    let turned = model.count("rope.dimension_count")?.unwrap_or(width);
    if turned != width {
        let what = format!("a rotation of {turned} of {width} elements of a head");
        return Err(ConvertError::unsupported(what, "llama turns all of them"));
    }
    let halves = Order::Halves(width);
    Ok(match part {
        "attn_q.weight" | "attn_k.weight" => output.with(|rows| rows.row_order = halves),
        "attn_q.bias" | "attn_k.bias" => output.with(|rows| rows.col_order = halves),
        _ => output,
    })
}

/// Norms had one added to them, but for those of `others`.
fn plain_norms<'a>(part: &str, output: Output<'a>, others: &[&str]) -> Output<'a> {
    if part.ends_with("norm.weight") && !others.contains(&part) {
        output.with(|rows| rows.values = Values::LessOne)
    } else {
        output
    }
}

/// Value heads were put so that the first of each key head come first; decay became the factor
/// that it stands for.
fn qwen35<'a>(
    model: &Model<'_, 'a>,
    part: &str,
    tensor: &Tensor<'_>,
    output: Output<'a>,
) -> Result<Output<'a>, ConvertError> {
    let number = |key: &str| {
        model
            .count(key)?
            .filter(|n| *n > 0)
            .ok_or_else(|| ConvertError::unsupported(model.key(key), "it is missing"))
    };
    let heads = number("ssm.group_count")?;
    let value_heads = number("ssm.time_step_rank")?;
    let key_width = number("ssm.state_size")?;
    let value_width = number("ssm.inner_size")? / value_heads;
    let grouped = |start, width| Order::Grouped {
        start,
        width,
        heads,
        sharing: value_heads / heads,
    };
    let keys = 2 * heads * key_width;
    let mut output = match part {
        "attn_qkv.weight" => output.with(|rows| rows.row_order = grouped(keys, value_width)),
        "attn_gate.weight" => output.with(|rows| rows.row_order = grouped(0, value_width)),
        "ssm_alpha.weight" | "ssm_beta.weight" => {
            output.with(|rows| rows.row_order = grouped(0, 1))
        }
        "ssm_conv1d.weight" => output.with(|rows| {
            rows.row_order = grouped(keys, value_width);
            rows.delicate = true;
        }),
        "ssm_out.weight" => output.with(|rows| rows.col_order = grouped(0, value_width)),
        "ssm_dt.bias" => output.with(|rows| rows.col_order = grouped(0, 1)),
        "ssm_a" => output.with(|rows| {
            rows.col_order = grouped(0, 1);
            rows.values = Values::LogOfNegative;
        }),
        _ => plain_norms(part, output, &["ssm_norm.weight"]),
    };
    if part == "ssm_conv1d.weight"
        && let [channels, kernel] = tensor.shape[..]
    {
        output.shape = vec![channels, 1, kernel];
    }
    Ok(output)
}
