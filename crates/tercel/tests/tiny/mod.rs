//! A model small enough to be written by a test.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use tercel::{Engine, EngineBuilder};
use tercel_formats::DType;
use tercel_formats::gguf::{OwnedValue, Writer};

pub(crate) const VOCAB: usize = 257;
pub(crate) const CONTEXT: u32 = 160;
pub(crate) const LAYERS: usize = 2;
pub(crate) const TEMPLATE: &str =
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: ";

const HIDDEN: usize = 64;
const FEED_FORWARD: usize = 96;

/// A llama of two layers with random weights and a token per byte.
pub(crate) struct TinyModel {
    pub(crate) path: PathBuf,
    _directory: tempfile::TempDir,
}

impl TinyModel {
    /// Writes the model, with some metadata changed or added.
    pub(crate) fn new(changes: &[(&str, OwnedValue)]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("tiny.gguf");
        write_model(&path, changes);
        Self {
            path,
            _directory: directory,
        }
    }

    pub(crate) fn name(&self) -> String {
        self.path.display().to_string()
    }

    pub(crate) fn builder(&self) -> EngineBuilder {
        Engine::builder(self.name()).threads(1)
    }
}

fn write_model(path: &Path, changes: &[(&str, OwnedValue)]) {
    let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    let mut state = 1_u64;
    let mut random = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1_u64 << 24) as f32 - 0.5
    };
    let mut tensor = |name: String, shape: &[usize]| {
        let scale = if shape.len() == 1 { 0.0 } else { 0.6 };
        let values = (0..shape.iter().product::<usize>())
            .flat_map(|_| (if scale == 0.0 { 1.0 } else { random() * scale }).to_le_bytes());
        tensors.push((name, shape.to_vec(), values.collect()));
    };
    tensor("token_embd.weight".into(), &[HIDDEN, VOCAB]);
    tensor("output.weight".into(), &[HIDDEN, VOCAB]);
    tensor("output_norm.weight".into(), &[HIDDEN]);
    for i in 0..LAYERS {
        let mut part =
            |name: &str, shape: &[usize]| tensor(format!("blk.{i}.{name}.weight"), shape);
        part("attn_norm", &[HIDDEN]);
        part("attn_q", &[HIDDEN, HIDDEN]);
        part("attn_k", &[HIDDEN, HIDDEN / 2]);
        part("attn_v", &[HIDDEN, HIDDEN / 2]);
        part("attn_output", &[HIDDEN, HIDDEN]);
        part("ffn_norm", &[HIDDEN]);
        part("ffn_gate", &[HIDDEN, FEED_FORWARD]);
        part("ffn_up", &[HIDDEN, FEED_FORWARD]);
        part("ffn_down", &[FEED_FORWARD, HIDDEN]);
    }

    let types: Vec<i32> = (0..VOCAB).map(|id| if id < 256 { 1 } else { 3 }).collect();
    let entries: [(&str, OwnedValue); 14] = [
        ("general.architecture", "llama".into()),
        ("llama.context_length", CONTEXT.into()),
        ("llama.embedding_length", (HIDDEN as u32).into()),
        ("llama.block_count", (LAYERS as u32).into()),
        ("llama.feed_forward_length", (FEED_FORWARD as u32).into()),
        ("llama.attention.head_count", 4_u32.into()),
        ("llama.attention.head_count_kv", 2_u32.into()),
        ("llama.attention.layer_norm_rms_epsilon", 1e-5_f32.into()),
        ("tokenizer.ggml.model", "gpt2".into()),
        ("tokenizer.ggml.pre", "default".into()),
        ("tokenizer.ggml.tokens", byte_tokens().into()),
        ("tokenizer.ggml.token_type", types.into()),
        ("tokenizer.ggml.merges", Vec::<String>::new().into()),
        ("tokenizer.ggml.eos_token_id", 256_u32.into()),
    ];
    let mut metadata: BTreeMap<&str, OwnedValue> = entries.into();
    metadata.insert("tokenizer.chat_template", TEMPLATE.into());
    metadata.extend(changes.iter().cloned());
    let mut writer = Writer::new();
    for (key, value) in metadata {
        writer.set(key, value).expect("a valid entry");
    }
    for (name, shape, bytes) in &tensors {
        writer
            .tensor(name, DType::F32, shape, bytes)
            .expect("a valid tensor");
    }
    let mut file = Vec::new();
    writer.write_to(&mut file).expect("written");
    fs::write(path, file).expect("written");
}

/// Byte-level BPE writes a byte that is not printable as the next free character from U+0100.
fn byte_tokens() -> Vec<String> {
    let mut free = (0x100_u32..).filter_map(char::from_u32);
    let byte = |byte: u8| match byte {
        0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => Some(char::from(byte)),
        _ => free.next(),
    };
    let characters: Option<Vec<char>> = (0..=255).map(byte).collect();
    let tokens = characters
        .expect("enough characters")
        .into_iter()
        .map(String::from);
    tokens.chain(["<end>".to_owned()]).collect()
}
