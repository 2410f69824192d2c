//! Tiny checkpoints with known answers, and the GGUF files that llama.cpp's converter would make
//! of them.

use std::fs;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use serde_json::Value as Json;
use tercel_formats::gguf::{Gguf, OwnedValue, Writer};
use tercel_formats::{Checkpoint, DType};
use tercel_nn::Naming;

/// A directory of safetensors.
pub(crate) struct Folder {
    pub(crate) name: String,
    pub(crate) config: Vec<u8>,
    /// Name and bytes of each file of weights.
    pub(crate) files: Vec<(String, Vec<u8>)>,
    index: Option<Vec<u8>>,
    pub(crate) input_ids: Vec<u32>,
    /// `(input_ids, vocab)`
    pub(crate) logits: Vec<f32>,
}

impl Folder {
    /// A folder of `test-data/checkpoints`.
    pub(crate) fn open(name: &str) -> Self {
        let path = checkpoints().join(name);
        let reference = fs::read(path.join("reference.safetensors")).unwrap();
        let reference = SafeTensors::deserialize(&reference).unwrap();
        let four = |name: &str| -> Vec<[u8; 4]> {
            let data = reference.tensor(name).unwrap().data().to_vec();
            data.chunks_exact(4)
                .map(|four| four.try_into().unwrap())
                .collect()
        };
        Self {
            input_ids: four("input_ids")
                .into_iter()
                .map(u32::from_le_bytes)
                .collect(),
            logits: four("logits").into_iter().map(f32::from_le_bytes).collect(),
            ..Self::at(&path)
        }
    }

    /// A directory without known answers.
    pub(crate) fn at(path: &Path) -> Self {
        let read = |file: &str| fs::read(path.join(file)).unwrap();
        let index = fs::read(path.join("model.safetensors.index.json")).ok();
        let names = match &index {
            Some(index) => tercel_formats::checkpoint::shards(index).unwrap(),
            None => vec!["model.safetensors".to_owned()],
        };
        Self {
            name: path.file_name().unwrap().to_str().unwrap().to_owned(),
            config: read("config.json"),
            files: names
                .into_iter()
                .map(|name| (name.clone(), read(&name)))
                .collect(),
            index,
            input_ids: Vec::new(),
            logits: Vec::new(),
        }
    }

    /// Every folder of `test-data/checkpoints`.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let entries = fs::read_dir(checkpoints()).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        let mut folders: Vec<_> = paths.filter(|path| path.is_dir()).collect();
        folders.sort();
        folders
            .into_iter()
            .map(|path| Self::open(path.file_name().unwrap().to_str().unwrap()))
    }

    pub(crate) fn checkpoint(&self) -> Checkpoint<'_> {
        let files: Vec<(&str, &[u8])> = self
            .files
            .iter()
            .map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
            .collect();
        Checkpoint::from_hugging_face(&self.config, &files, self.index.as_deref()).unwrap()
    }
}

fn checkpoints() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../test-data/checkpoints")
}

pub(crate) fn parse(gguf: &[u8]) -> Checkpoint<'_> {
    Checkpoint::from_gguf(vec![Gguf::parse(gguf).unwrap()]).unwrap()
}

/// Where the data of a tensor begin in a file.
pub(crate) fn position_of(gguf: &[u8], tensor: &str) -> usize {
    let parsed = Gguf::parse(gguf).unwrap();
    let data = parsed.tensor(tensor).unwrap().data;
    data.as_ptr() as usize - gguf.as_ptr() as usize
}

/// The file with another value for a key, or one more.
pub(crate) fn with_field(gguf: &[u8], key: &str, value: OwnedValue) -> Vec<u8> {
    let parsed = Gguf::parse(gguf).unwrap();
    let mut writer = Writer::new();
    for (other, value) in parsed.metadata().iter().filter(|(other, _)| *other != key) {
        writer.set(other, *value).unwrap();
    }
    writer.set(key, value).unwrap();
    for tensor in parsed.tensors() {
        let data = tensor.data.to_vec();
        writer
            .tensor(tensor.name, tensor.dtype, &tensor.shape, data)
            .unwrap();
    }
    let mut changed = Vec::new();
    writer.write_to(&mut changed).unwrap();
    changed
}

/// Tensors of a layer, as GGUF calls them. Those of experts come from many.
const LAYER: &[&str] = &[
    "attn_norm.weight",
    "attn_q.weight",
    "attn_q.bias",
    "attn_k.weight",
    "attn_k.bias",
    "attn_v.weight",
    "attn_v.bias",
    "attn_output.weight",
    "attn_output.bias",
    "attn_q_norm.weight",
    "attn_k_norm.weight",
    "post_attention_norm.weight",
    "ffn_norm.weight",
    "post_ffw_norm.weight",
    "ffn_gate.weight",
    "ffn_gate.bias",
    "ffn_up.weight",
    "ffn_up.bias",
    "ffn_down.weight",
    "ffn_down.bias",
    "ffn_gate_inp.weight",
    "attn_qkv.weight",
    "attn_gate.weight",
    "ssm_alpha.weight",
    "ssm_beta.weight",
    "ssm_conv1d.weight",
    "ssm_dt.bias",
    "ssm_a",
    "ssm_norm.weight",
    "ssm_out.weight",
];
const EXPERTS: &[&str] = &["gate", "up", "down"];

/// A folder of single floats in one file, as a GGUF file with a small tokenizer.
pub(crate) fn as_gguf(folder: &Folder) -> Vec<u8> {
    let config: Json = serde_json::from_slice(&folder.config).unwrap();
    let tensors = SafeTensors::deserialize(&folder.files[0].1).unwrap();
    let arch = match config["model_type"].as_str().unwrap() {
        "gemma3_text" => "gemma3",
        "mistral" => "llama",
        "qwen3_moe" => "qwen3moe",
        "qwen3_5_text" => "qwen35",
        same => same,
    };
    let mut gguf = Writer::new();
    gguf.set("general.architecture", arch).unwrap();
    fields(&mut gguf, arch, &config);
    tokenizer(&mut gguf, config["vocab_size"].as_u64().unwrap() as usize);
    let naming = Naming::of(arch).unwrap();
    let mut add = |name: String, shape: &[usize], data: Vec<u8>| {
        // Dimensions of 1 go, and the rest is turned around.
        let shape: Vec<usize> = match shape {
            [channels, 1, kernel] => vec![*kernel, *channels],
            shape => shape.iter().rev().copied().collect(),
        };
        gguf.tensor(&name, DType::F32, &shape, data).unwrap();
    };
    let layers = config["num_hidden_layers"].as_u64().unwrap();
    let layered = (0..layers).flat_map(|i| LAYER.iter().map(move |part| format!("blk.{i}.{part}")));
    let others = ["token_embd.weight", "output_norm.weight", "output.weight"];
    for name in others.map(str::to_owned).into_iter().chain(layered) {
        // One family has another name for what most call so.
        let known = arch != "qwen35" || !name.ends_with("ffn_norm.weight");
        if let Ok(tensor) = tensors.tensor(&naming.tensor(&name))
            && known
        {
            let data = changed(arch, &config, &name, tensor.data());
            add(name, tensor.shape(), data);
        }
    }
    let experts = config["num_local_experts"]
        .as_u64()
        .or(config["num_experts"].as_u64());
    for i in 0..experts.map_or(0, |_| layers) {
        for part in EXPERTS {
            let one = |e| {
                tensors.tensor(&format!(
                    "model.layers.{i}.mlp.experts.{e}.{part}_proj.weight"
                ))
            };
            let all: Vec<_> = (0..experts.unwrap()).map(|e| one(e).unwrap()).collect();
            let shape = [all.len(), all[0].shape()[0], all[0].shape()[1]];
            let data: Vec<u8> = all.iter().flat_map(|one| one.data().to_vec()).collect();
            let shape: Vec<usize> = shape.into_iter().rev().collect();
            gguf.tensor(
                &format!("blk.{i}.ffn_{part}_exps.weight"),
                DType::F32,
                &shape,
                data,
            )
            .unwrap();
        }
    }
    if config["rope_parameters"]["rope_type"] == "llama3" {
        let factors = llama3_factors(&config);
        let data: Vec<u8> = factors.iter().flat_map(|f| f.to_le_bytes()).collect();
        gguf.tensor("rope_freqs.weight", DType::F32, &[factors.len()], data)
            .unwrap();
    }
    let mut out = Vec::new();
    gguf.write_to(&mut out).unwrap();
    out
}

fn fields(gguf: &mut Writer, arch: &str, config: &Json) {
    let whole = |name: &str| config[name].as_u64().map(|n| n as u32);
    let heads = whole("num_attention_heads").unwrap();
    let width = whole("head_dim").unwrap_or(whole("hidden_size").unwrap() / heads);
    let rope = &config["rope_parameters"];
    let turned = rope["partial_rotary_factor"].as_f64().unwrap_or(1.0) * f64::from(width);
    let inner = whole("linear_num_value_heads").zip(whole("linear_value_head_dim"));
    let windows = whole("sliding_window").filter(|_| arch == "gemma3" || arch == "llama");
    for (key, value) in [
        ("context_length", whole("max_position_embeddings")),
        ("embedding_length", whole("hidden_size")),
        ("block_count", whole("num_hidden_layers")),
        ("feed_forward_length", whole("intermediate_size")),
        ("attention.head_count", Some(heads)),
        ("attention.head_count_kv", whole("num_key_value_heads")),
        ("attention.key_length", Some(width)),
        ("attention.value_length", Some(width)),
        ("rope.dimension_count", Some(turned as u32)),
        ("attention.sliding_window", windows),
        (
            "attention.sliding_window_pattern",
            whole("_sliding_window_pattern").or(whole("sliding_window_pattern")),
        ),
        (
            "expert_count",
            whole("num_local_experts").or(whole("num_experts")),
        ),
        ("expert_used_count", whole("num_experts_per_tok")),
        ("expert_feed_forward_length", whole("moe_intermediate_size")),
        ("ssm.conv_kernel", whole("linear_conv_kernel_dim")),
        ("ssm.group_count", whole("linear_num_key_heads")),
        ("ssm.state_size", whole("linear_key_head_dim")),
        ("ssm.time_step_rank", whole("linear_num_value_heads")),
        ("ssm.inner_size", inner.map(|(heads, width)| heads * width)),
    ] {
        if let Some(value) = value {
            gguf.set(&format!("{arch}.{key}"), value).unwrap();
        }
    }
    if arch == "qwen35" {
        let types = config["layer_types"].as_array().unwrap();
        let recurrent: Vec<bool> = types
            .iter()
            .map(|kind| kind == "linear_attention")
            .collect();
        gguf.set("qwen35.attention.recurrent_layers", recurrent)
            .unwrap();
    }
    let first = |paths: &[&str]| {
        let found = paths.iter().filter_map(|path| config.pointer(path));
        found.filter_map(Json::as_f64).next().map(|x| x as f32)
    };
    for (key, value) in [
        (
            "attention.layer_norm_rms_epsilon",
            first(&["/rms_norm_eps"]),
        ),
        (
            "rope.freq_base",
            first(&[
                "/rope_parameters/full_attention/rope_theta",
                "/rope_parameters/rope_theta",
                "/rope_theta",
            ]),
        ),
        (
            "rope.freq_base_swa",
            first(&[
                "/rope_parameters/sliding_attention/rope_theta",
                "/rope_local_base_freq",
            ]),
        ),
        (
            "rope.scaling.factor",
            first(&[
                "/rope_scaling/factor",
                "/rope_parameters/full_attention/factor",
            ]),
        ),
    ] {
        if let Some(value) = value {
            gguf.set(&format!("{arch}.{key}"), value).unwrap();
        }
    }
}

/// A token for each byte, three that steer, and names for the rest of the embedding.
fn tokenizer(gguf: &mut Writer, vocab: usize) {
    let named = ["<unk>", "<s>", "</s>"].map(str::to_owned).into_iter();
    let bytes = (0..256).map(|byte| format!("<0x{byte:02X}>"));
    let rest = (0..).map(|i| format!("token{i}"));
    let tokens: Vec<String> = named.chain(bytes).chain(rest).take(vocab).collect();
    let texts: Vec<&str> = tokens.iter().map(String::as_str).collect();
    let kind = |i: usize| match i {
        0 => 2,
        1 | 2 => 3,
        3..259 => 6,
        _ => 1,
    };
    gguf.set("tokenizer.ggml.model", "llama").unwrap();
    gguf.set("tokenizer.ggml.tokens", texts.as_slice()).unwrap();
    gguf.set("tokenizer.ggml.scores", vec![0f32; vocab])
        .unwrap();
    gguf.set(
        "tokenizer.ggml.token_type",
        (0..vocab).map(kind).collect::<Vec<i32>>(),
    )
    .unwrap();
    for (key, id) in [("unknown", 0u32), ("bos", 1), ("eos", 2)] {
        gguf.set(&format!("tokenizer.ggml.{key}_token_id"), id)
            .unwrap();
    }
}

/// What llama.cpp's converter does to the numbers of a tensor.
fn changed(arch: &str, config: &Json, name: &str, data: &[u8]) -> Vec<u8> {
    let number = |key: &str| config[key].as_u64().map(|n| n as usize);
    let part = name.splitn(3, '.').nth(2).unwrap_or(name);
    let floats = data.chunks_exact(4);
    let mut floats: Vec<f32> = floats
        .map(|four| f32::from_le_bytes(four.try_into().unwrap()))
        .collect();
    if matches!(arch, "gemma3" | "qwen35")
        && part.ends_with("norm.weight")
        && part != "ssm_norm.weight"
    {
        floats.iter_mut().for_each(|x| *x += 1.0);
    }
    if part == "ssm_a" {
        floats.iter_mut().for_each(|x| *x = -x.exp());
    }
    let heads = number("num_attention_heads").unwrap();
    let width = number("head_dim").unwrap_or(number("hidden_size").unwrap() / heads);
    if arch == "llama" && (part.starts_with("attn_q.") || part.starts_with("attn_k.")) {
        let rows = match part.starts_with("attn_q.") {
            true => heads * width,
            false => number("num_key_value_heads").unwrap() * width,
        };
        floats = pick(&floats, rows, |row| {
            row / width * width + row % 2 * (width / 2) + row % width / 2
        });
    }
    if arch == "qwen35"
        && let Some(value_heads) = number("linear_num_value_heads")
    {
        let keys = number("linear_num_key_heads").unwrap();
        let wide = number("linear_value_head_dim").unwrap();
        let start = 2 * keys * number("linear_key_head_dim").unwrap();
        // Value head `v` of the file is number `v / keys` of key head `v % keys`.
        let of = |wide: usize| {
            move |i: usize| {
                let (v, rest) = (i / wide, i % wide);
                (v % keys * (value_heads / keys) + v / keys) * wide + rest
            }
        };
        let all = value_heads * wide;
        floats = match part {
            "attn_qkv.weight" | "ssm_conv1d.weight" => {
                pick(&floats, start + all, |i| match i.checked_sub(start) {
                    Some(i) => start + of(wide)(i),
                    None => i,
                })
            }
            "attn_gate.weight" => pick(&floats, all, of(wide)),
            "ssm_alpha.weight" | "ssm_beta.weight" | "ssm_a" | "ssm_dt.bias" => {
                pick(&floats, value_heads, of(1))
            }
            "ssm_out.weight" => {
                let rows: Vec<Vec<f32>> = floats
                    .chunks_exact(all)
                    .map(|row| pick(row, all, of(wide)))
                    .collect();
                rows.concat()
            }
            _ => floats,
        };
    }
    floats.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// The rows in the order that `from` gives.
fn pick(floats: &[f32], rows: usize, from: impl Fn(usize) -> usize) -> Vec<f32> {
    let width = floats.len() / rows;
    (0..rows)
        .flat_map(|row| floats[from(row) * width..][..width].to_vec())
        .collect()
}

/// The divisors that Llama 3.1 puts on the frequencies (transformers, `_compute_llama3_parameters`).
fn llama3_factors(config: &Json) -> Vec<f32> {
    let rope = &config["rope_parameters"];
    let number = |key: &str| rope[key].as_f64().unwrap();
    let (factor, original) = (number("factor"), number("original_max_position_embeddings"));
    let (low, high) = (number("low_freq_factor"), number("high_freq_factor"));
    let width = config["head_dim"].as_f64().unwrap();
    let divisor = |i: u32| {
        let frequency = number("rope_theta").powf(-2.0 * f64::from(i) / width);
        let wavelength = 2.0 * std::f64::consts::PI / frequency;
        if wavelength > original / low {
            factor
        } else if wavelength < original / high {
            1.0
        } else {
            let smooth = (original / wavelength - low) / (high - low);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    };
    (0..width as u32 / 2).map(|i| divisor(i) as f32).collect()
}
