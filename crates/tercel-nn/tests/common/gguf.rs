//! Directories as GGUF files, converted as llama.cpp's converter does it.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test helper fails by panicking"
)]

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
    let number = |key: &str| config[key].as_u64().unwrap() as u32;
    let arch = if config["model_type"] == "llama" {
        "llama"
    } else {
        "gemma3"
    };
    let mut gguf = Writer::new();
    gguf.set("general.architecture", arch).unwrap();
    let heads = number("num_attention_heads");
    let head_dim = config["head_dim"]
        .as_u64()
        .map_or(number("hidden_size") / heads, |d| d as u32);
    for (key, value) in [
        ("context_length", number("max_position_embeddings")),
        ("embedding_length", number("hidden_size")),
        ("block_count", number("num_hidden_layers")),
        ("feed_forward_length", number("intermediate_size")),
        ("attention.head_count", heads),
        ("attention.head_count_kv", number("num_key_value_heads")),
        ("attention.key_length", head_dim),
        ("attention.value_length", head_dim),
        ("rope.dimension_count", head_dim),
    ] {
        gguf.set(&format!("{arch}.{key}"), value).unwrap();
    }
    let eps = config["rms_norm_eps"].as_f64().unwrap() as f32;
    gguf.set(&format!("{arch}.attention.layer_norm_rms_epsilon"), eps)
        .unwrap();
    let rope = &config["rope_parameters"];
    if arch == "gemma3" {
        let theta = |kind: &str| rope[kind]["rope_theta"].as_f64().unwrap() as f32;
        gguf.set("gemma3.rope.freq_base", theta("full_attention"))
            .unwrap();
        gguf.set("gemma3.rope.freq_base_swa", theta("sliding_attention"))
            .unwrap();
        gguf.set("gemma3.attention.sliding_window", number("sliding_window"))
            .unwrap();
        let period = number("sliding_window_pattern");
        gguf.set("gemma3.attention.sliding_window_pattern", period)
            .unwrap();
    } else {
        gguf.set(
            "llama.rope.freq_base",
            rope["rope_theta"].as_f64().unwrap() as f32,
        )
        .unwrap();
        if rope["rope_type"] == "llama3" {
            let factors: Vec<u8> = llama3_factors(rope, head_dim)
                .iter()
                .flat_map(|f| f.to_le_bytes())
                .collect();
            let len = factors.len() / 4;
            gguf.tensor("rope_freqs.weight", DType::F32, &[len], factors)
                .unwrap();
        }
    }
    let file = SafeTensors::deserialize(safetensors).unwrap();
    for (name, tensor) in file.tensors() {
        let mut shape: Vec<usize> = tensor.shape().to_vec();
        let mut data = tensor.data().to_vec();
        if arch == "llama" && (name.contains("q_proj") || name.contains("k_proj")) {
            data = permute(&data, shape[0] / head_dim as usize, head_dim as usize);
        }
        if arch == "gemma3" && name.contains("norm") {
            data = data
                .chunks_exact(4)
                .flat_map(|x| (f32::from_le_bytes(x.try_into().unwrap()) + 1.0).to_le_bytes())
                .collect();
        }
        shape.reverse();
        gguf.tensor(&gguf_name(arch, &name), DType::F32, &shape, data)
            .unwrap();
    }
    let mut out = Vec::new();
    gguf.write_to(&mut out).unwrap();
    out
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
        "post_attention_layernorm" if arch == "gemma3" => "post_attention_norm",
        "post_attention_layernorm" | "pre_feedforward_layernorm" => "ffn_norm",
        "post_feedforward_layernorm" => "post_ffw_norm",
        other => panic!("no GGUF name for {other}"),
    };
    format!("blk.{layer}.{part}.weight")
}
