//! Directories as GGUF files, converted as llama.cpp's converter does it.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test helper fails by panicking"
)]

use std::collections::BTreeMap;

use safetensors::SafeTensors;
use serde_json::Value;
use tercel_formats::DType;
use tercel_formats::gguf::Writer;

use super::Folder;

/// The folder as a GGUF file.
pub(crate) fn of(folder: &Folder) -> Vec<u8> {
    convert(
        &serde_json::from_slice(&folder.config).unwrap(),
        &folder.files[0].1,
    )
}

fn convert(config: &Value, safetensors: &[u8]) -> Vec<u8> {
    let arch = match config["model_type"].as_str().unwrap() {
        "gemma3_text" => "gemma3",
        "qwen3_moe" => "qwen3moe",
        "qwen3_5_text" => "qwen35",
        same => same,
    };
    let mut gguf = Writer::new();
    gguf.set("general.architecture", arch).unwrap();
    let number = |key: &str| config[key].as_u64().map(|n| n as u32);
    let heads = number("num_attention_heads").unwrap();
    let head_dim = number("head_dim").unwrap_or(number("hidden_size").unwrap() / heads);
    let values = number("linear_num_value_heads");
    let inner = values.map(|heads| heads * number("linear_value_head_dim").unwrap());
    for (key, value) in [
        ("context_length", number("max_position_embeddings")),
        ("embedding_length", number("hidden_size")),
        ("block_count", number("num_hidden_layers")),
        ("feed_forward_length", number("intermediate_size")),
        ("attention.head_count", Some(heads)),
        ("attention.head_count_kv", number("num_key_value_heads")),
        ("attention.key_length", Some(head_dim)),
        ("attention.value_length", Some(head_dim)),
        ("attention.sliding_window", number("sliding_window")),
        (
            "attention.sliding_window_pattern",
            number("sliding_window_pattern"),
        ),
        ("expert_count", number("num_local_experts")),
        ("expert_used_count", number("num_experts_per_tok")),
        (
            "expert_feed_forward_length",
            number("moe_intermediate_size"),
        ),
        ("full_attention_interval", number("full_attention_interval")),
        ("ssm.conv_kernel", number("linear_conv_kernel_dim")),
        ("ssm.group_count", number("linear_num_key_heads")),
        ("ssm.inner_size", inner),
        ("ssm.state_size", number("linear_key_head_dim")),
        ("ssm.time_step_rank", values),
    ] {
        if let Some(value) = value {
            gguf.set(&format!("{arch}.{key}"), value).unwrap();
        }
    }
    let rope = &config["rope_parameters"];
    let share = rope["partial_rotary_factor"].as_f64().unwrap_or(1.0);
    let turned = (f64::from(head_dim) * share) as u32;
    gguf.set(&format!("{arch}.rope.dimension_count"), turned)
        .unwrap();
    let global = rope.get("full_attention").unwrap_or(rope);
    let local = &rope["sliding_attention"]["rope_theta"];
    for (key, value) in [
        ("attention.layer_norm_rms_epsilon", &config["rms_norm_eps"]),
        ("rope.freq_base", &global["rope_theta"]),
        ("rope.freq_base_swa", local),
    ] {
        if let Some(value) = value.as_f64() {
            gguf.set(&format!("{arch}.{key}"), value as f32).unwrap();
        }
    }
    if rope["rope_type"] == "llama3" {
        let factors = llama3_factors(rope, head_dim);
        let len = factors.len();
        gguf.tensor("rope_freqs.weight", DType::F32, &[len], bytes(factors))
            .unwrap();
    }
    let file = SafeTensors::deserialize(safetensors).unwrap();
    let mut experts = BTreeMap::<String, BTreeMap<usize, Vec<u8>>>::new();
    for (name, tensor) in file.tensors() {
        let mut shape: Vec<usize> = tensor.shape().to_vec();
        let mut data = tensor.data().to_vec();
        let (dim, rows) = (head_dim as usize, shape[0]);
        if arch == "llama" && (name.contains("q_proj") || name.contains("k_proj")) {
            data = permute(&data, rows / dim, dim);
        }
        let shifted = name.contains("norm") && !name.contains("linear_attn.norm");
        if shifted && matches!(arch, "gemma3" | "qwen35") {
            data = bytes(floats(&data).map(|x| x + 1.0));
        }
        if name.ends_with("A_log") {
            data = bytes(floats(&data).map(|x| -x.exp()));
        }
        if name.contains("linear_attn.") && !name.contains("linear_attn.norm") {
            data = tile_heads(config, &name, &data, rows);
        }
        shape.retain(|dim| *dim != 1);
        shape.reverse();
        // The experts of a layer lie in one tensor.
        if let Some((layer, rest)) = name.split_once(".mlp.experts.") {
            let (expert, part) = rest.split_once('.').unwrap();
            let stack = format!("{layer}.mlp.experts.{part} {} {}", shape[0], shape[1]);
            experts
                .entry(stack)
                .or_default()
                .insert(expert.parse().unwrap(), data);
            continue;
        }
        gguf.tensor(&gguf_name(arch, &name), DType::F32, &shape, data)
            .unwrap();
    }
    for (stack, parts) in experts {
        let mut words = stack.split(' ');
        let name = gguf_name(arch, words.next().unwrap());
        let mut shape: Vec<usize> = words.map(|word| word.parse().unwrap()).collect();
        shape.push(parts.len());
        let data: Vec<u8> = parts.into_values().flatten().collect();
        gguf.tensor(&name, DType::F32, &shape, data).unwrap();
    }
    let mut out = Vec::new();
    gguf.write_to(&mut out).unwrap();
    out
}

fn floats(data: &[u8]) -> impl Iterator<Item = f32> {
    data.chunks_exact(4)
        .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
}

fn bytes(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    values.into_iter().flat_map(f32::to_le_bytes).collect()
}

/// Value heads that stood together for a key head are dealt out: head `k * n + i` becomes
/// `i * keys + k`.
fn tile_heads(config: &Value, name: &str, data: &[u8], rows: usize) -> Vec<u8> {
    let number = |key: &str| config[key].as_u64().unwrap() as usize;
    let (keys, values) = (
        number("linear_num_key_heads"),
        number("linear_num_value_heads"),
    );
    let width = number("linear_value_head_dim");
    let shared = values / keys;
    let order = (0..values).map(|new| new % keys * shared + new / keys);
    let deal = |data: &[u8]| -> Vec<u8> {
        let heads: Vec<&[u8]> = data.chunks_exact(data.len() / values).collect();
        order.clone().flat_map(|old| heads[old].to_vec()).collect()
    };
    if name.contains("out_proj") {
        // Heads are columns.
        return data
            .chunks_exact(values * width * 4)
            .flat_map(deal)
            .collect();
    }
    // Queries and keys come before the values.
    let before = rows
        - if rows > values * width {
            values * width
        } else {
            rows
        };
    let (kept, dealt) = data.split_at(before * (data.len() / rows));
    [kept, &deal(dealt)].concat()
}

/// Rows `(2, head_dim / 2)` of each head become `(head_dim / 2, 2)`: pairs side by side.
fn permute(data: &[u8], heads: usize, head_dim: usize) -> Vec<u8> {
    let row_bytes = data.len() / (heads * head_dim);
    let rows: Vec<&[u8]> = data.chunks_exact(row_bytes).collect();
    let order = (0..heads).flat_map(|head| {
        (0..head_dim).map(move |i| head * head_dim + i % 2 * (head_dim / 2) + i / 2)
    });
    order.flat_map(|row| rows[row].to_vec()).collect()
}

/// The divisors that Llama 3.1 puts on the frequencies (transformers, `_compute_llama3_parameters`).
fn llama3_factors(rope: &Value, head_dim: u32) -> Vec<f32> {
    let number = |key: &str| rope[key].as_f64().unwrap();
    let (factor, original) = (number("factor"), number("original_max_position_embeddings"));
    let (low, high) = (number("low_freq_factor"), number("high_freq_factor"));
    (0..head_dim / 2)
        .map(|i| {
            let frequency = number("rope_theta").powf(-2.0 * f64::from(i) / f64::from(head_dim));
            let wavelength = 2.0 * std::f64::consts::PI / frequency;
            if wavelength > original / low {
                factor as f32
            } else if wavelength < original / high {
                1.0
            } else {
                let smooth = (original / wavelength - low) / (high - low);
                (1.0 / ((1.0 - smooth) / factor + smooth)) as f32
            }
        })
        .collect()
}

fn gguf_name(arch: &str, name: &str) -> String {
    let name = name
        .trim_start_matches("model.")
        .trim_end_matches(".weight");
    let plain = match name {
        "embed_tokens" => "token_embd",
        "norm" => "output_norm",
        "lm_head" => "output",
        _ => "",
    };
    if !plain.is_empty() {
        return format!("{plain}.weight");
    }
    let mut parts = name.splitn(3, '.').skip(1);
    let (layer, part) = (parts.next().unwrap(), parts.next().unwrap());
    let part = match part {
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.o_proj" => "attn_output",
        "self_attn.q_norm" => "attn_q_norm",
        "self_attn.k_norm" => "attn_k_norm",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        "input_layernorm" => "attn_norm",
        "post_attention_layernorm" if matches!(arch, "gemma3" | "qwen35") => "post_attention_norm",
        "post_attention_layernorm" | "pre_feedforward_layernorm" => "ffn_norm",
        "post_feedforward_layernorm" => "post_ffw_norm",
        "mlp.gate" => "ffn_gate_inp",
        "mlp.experts.gate_proj" => "ffn_gate_exps",
        "mlp.experts.up_proj" => "ffn_up_exps",
        "mlp.experts.down_proj" => "ffn_down_exps",
        "linear_attn.in_proj_qkv" => "attn_qkv",
        "linear_attn.in_proj_z" => "attn_gate",
        "linear_attn.in_proj_a" => "ssm_alpha",
        "linear_attn.in_proj_b" => "ssm_beta",
        "linear_attn.conv1d" => "ssm_conv1d",
        "linear_attn.norm" => "ssm_norm",
        "linear_attn.out_proj" => "ssm_out",
        "linear_attn.dt_bias" => return format!("blk.{layer}.ssm_dt.bias"),
        "linear_attn.A_log" => return format!("blk.{layer}.ssm_a"),
        _ if part.ends_with(".bias") => {
            let weight = gguf_name(arch, &name.replace(".bias", ".weight"));
            return weight.replace(".weight", ".bias");
        }
        other => panic!("no GGUF name for {other}"),
    };
    format!("blk.{layer}.{part}.weight")
}
