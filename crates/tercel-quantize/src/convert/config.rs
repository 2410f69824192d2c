//! `config.json` of a GGUF file, with the fields that transformers has for the family.

use serde_json::{Map, Value as Json, json};
use tercel_formats::checkpoint::Field;

use super::gguf::Model;
use super::{Precision, rope};
use crate::error::ConvertError;

/// Layers of Gemma 3 27B, the only size that scales queries by another width than the head's.
const GEMMA3_LAYERS_27B: usize = 62;

/// The configuration.
pub(super) fn of(model: &Model<'_, '_>, precision: Precision) -> Result<Json, ConvertError> {
    let mut fields = common(model, precision)?;
    let own = match model.info.architecture.as_str() {
        "llama" => llama(model),
        "gemma3" => gemma3(model)?,
        "qwen2" => json!({"use_sliding_window": false}),
        "qwen3" => json!({"attention_bias": model.has("attn_q.bias"), "use_sliding_window": false}),
        "qwen3moe" => qwen3_moe(model)?,
        "qwen35" => qwen3_5(model)?,
        other => {
            let what = format!("architecture `{other}` from GGUF");
            return Err(ConvertError::unsupported(what, "its fields are not known"));
        }
    };
    for (name, value) in own.as_object().into_iter().flatten() {
        fields.insert(name.clone(), value.clone());
    }
    Ok(Json::Object(fields))
}

/// What all families have.
fn common(model: &Model<'_, '_>, precision: Precision) -> Result<Map<String, Json>, ConvertError> {
    let info = &model.info;
    let (base, eps) = match info.architecture.as_str() {
        "gemma3" => (1_000_000.0, 1e-6),
        "llama" => (10_000.0, 1e-5),
        _ => (10_000.0, 1e-6),
    };
    let base = model.number("rope.freq_base")?.unwrap_or(base);
    let eps = model
        .number("attention.layer_norm_rms_epsilon")?
        .unwrap_or(eps);
    let mut fields = Map::new();
    let mut set = |name: &str, value: Json| fields.insert(name.to_owned(), value);
    let model_type = model_type(model);
    set("architectures", json!([class(model_type)]));
    set("model_type", model_type.into());
    set("torch_dtype", precision.torch_name().into());
    set("vocab_size", info.vocab_size.into());
    set("hidden_size", info.hidden_size.into());
    set("intermediate_size", info.feed_forward.into());
    set("num_hidden_layers", info.n_layers.into());
    set("num_attention_heads", info.n_heads.into());
    set("num_key_value_heads", info.n_kv_heads.into());
    set("head_dim", info.head_dim.into());
    set("max_position_embeddings", info.context_length.into());
    set("hidden_act", "silu".into());
    set("attention_bias", model.has("attn_q.bias").into());
    set("attention_dropout", json!(0.0));
    set("rms_norm_eps", eps.into());
    set("rope_theta", base.into());
    set(
        "rope_scaling",
        rope::scaling(model, base)?.unwrap_or(Json::Null),
    );
    let tied = model.checkpoint.tensor("output.weight").is_none();
    set("tie_word_embeddings", tied.into());
    let tokenizer = &model.tokenizer;
    for (name, id) in [
        ("bos_token_id", tokenizer.bos()),
        ("eos_token_id", tokenizer.eos()),
        ("pad_token_id", tokenizer.pad()),
    ] {
        set(name, id.map_or(Json::Null, Json::from));
    }
    set("use_cache", true.into());
    Ok(fields)
}

/// Mistral goes under the name of Llama in GGUF files; its windows tell.
fn model_type(model: &Model<'_, '_>) -> &'static str {
    match model.naming.model_type() {
        "llama" if model.info.sliding_window.is_some() => "mistral",
        model_type => model_type,
    }
}

/// The class of transformers.
fn class(model_type: &str) -> String {
    let name = match model_type {
        "llama" => "Llama",
        "mistral" => "Mistral",
        "gemma3_text" => "Gemma3",
        "qwen2" => "Qwen2",
        "qwen3" => "Qwen3",
        "qwen3_moe" => "Qwen3Moe",
        "qwen3_5_text" => "Qwen3_5",
        other => other,
    };
    format!("{name}ForCausalLM")
}

fn llama(model: &Model<'_, '_>) -> Json {
    json!({
        "mlp_bias": model.has("ffn_gate.bias"),
        "sliding_window": model.info.sliding_window,
    })
}

fn gemma3(model: &Model<'_, '_>) -> Result<Json, ConvertError> {
    let info = &model.info;
    let query_width = match info.n_layers {
        GEMMA3_LAYERS_27B => info.hidden_size / info.n_heads,
        _ => info.head_dim,
    };
    let types = layer_types(model, ["full_attention", "sliding_attention"], |i| {
        !(i + 1).is_multiple_of(6)
    });
    Ok(json!({
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh",
        "attn_logit_softcapping": null,
        "final_logit_softcapping": null,
        "query_pre_attn_scalar": query_width,
        "rope_local_base_freq": model.number("rope.freq_base_swa")?.unwrap_or(10_000.0),
        "sliding_window": info.sliding_window,
        "layer_types": types,
    }))
}

fn qwen3_moe(model: &Model<'_, '_>) -> Result<Json, ConvertError> {
    Ok(json!({
        "num_experts": model.info.n_experts,
        "num_experts_per_tok": model.count("expert_used_count")?,
        "moe_intermediate_size": model.count("expert_feed_forward_length")?,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        // The format cannot say otherwise: converters only write models that do.
        "norm_topk_prob": true,
        "use_sliding_window": false,
    }))
}

fn qwen3_5(model: &Model<'_, '_>) -> Result<Json, ConvertError> {
    let info = &model.info;
    let turned = model
        .count("rope.dimension_count")?
        .unwrap_or(info.head_dim);
    let share = turned as f64 / info.head_dim as f64;
    let base = model.number("rope.freq_base")?.unwrap_or(10_000.0);
    let period = model.count("full_attention_interval")?.unwrap_or(4).max(1);
    let types = layer_types(model, ["full_attention", "linear_attention"], |i| {
        !(i + 1).is_multiple_of(period)
    });
    let mut rope = json!({
        "rope_type": "default",
        "rope_theta": base,
        "partial_rotary_factor": share,
    });
    if let Some(Field::List(sections)) = model
        .checkpoint
        .field(&model.key("rope.dimension_sections"))
    {
        let whole = |field: &Field<'_>| match field {
            Field::Whole(n) => u32::try_from(*n).ok(),
            _ => None,
        };
        let sections: Option<Vec<u32>> = sections.iter().take(3).map(whole).collect();
        rope["mrope_section"] = json!(sections);
    }
    let value_heads = model.count("ssm.time_step_rank")?.unwrap_or(1).max(1);
    let inner = model.count("ssm.inner_size")?.unwrap_or(0);
    Ok(json!({
        "layer_types": types,
        "linear_conv_kernel_dim": model.count("ssm.conv_kernel")?,
        "linear_key_head_dim": model.count("ssm.state_size")?,
        "linear_num_key_heads": model.count("ssm.group_count")?,
        "linear_num_value_heads": value_heads,
        "linear_value_head_dim": inner / value_heads,
        "partial_rotary_factor": share,
        "rope_parameters": rope,
    }))
}

/// The kind of each layer, `[where it has none, where it has it]`, by the lists and periods that
/// files have, or by `default`.
fn layer_types(
    model: &Model<'_, '_>,
    [plain, special]: [&'static str; 2],
    default: impl Fn(usize) -> bool,
) -> Vec<&'static str> {
    let field = [
        "attention.sliding_window_pattern",
        "attention.recurrent_layers",
    ]
    .iter()
    .find_map(|key| model.checkpoint.field(&model.key(key)));
    let is_special = |i: usize| match &field {
        Some(Field::List(flags)) => matches!(flags.get(i), Some(Field::Bool(true))),
        Some(Field::Whole(period)) if *period > 0 => (i as i128 + 1) % period != 0,
        _ => default(i),
    };
    (0..model.info.n_layers)
        .map(|i| if is_special(i) { special } else { plain })
        .collect()
}
