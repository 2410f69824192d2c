//! The real binary, a store of its own, and a model small enough to be written by a test.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use tempfile::TempDir;
use tercel_formats::DType;
use tercel_formats::gguf::{OwnedValue, Writer};

/// The vocabulary of the tiny model: a token per byte and an end token.
pub(crate) const VOCAB: usize = 257;
/// Tokens its context holds.
const CONTEXT: u32 = 160;
/// What it reads of a conversation.
pub(crate) const TEMPLATE: &str =
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: ";

/// The same for a model that thinks, unless it is asked not to.
pub(crate) const THINKS: &str = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: \
    {% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n\
    {% else %}<think>\n{% endif %}";

/// A directory that is gone at the end of the test, with `home` for the store.
pub(crate) struct Place {
    directory: TempDir,
}

/// What a command wrote and how it ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self {
            directory: tempfile::tempdir().expect("a directory"),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.path("home")
    }

    /// Writes a file and gives its path.
    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("inside")).expect("made");
        fs::write(&path, bytes).expect("written");
        path.display().to_string()
    }

    /// Writes the tiny model, with metadata changed or added, and gives its path.
    pub(crate) fn model(&self, changes: &[(&str, OwnedValue)]) -> String {
        self.write("tiny.gguf", tiny_model(changes))
    }

    /// Writes the tiny model without a chat template.
    pub(crate) fn base_model(&self) -> String {
        self.write(
            "base.gguf",
            model_without(&[], &["tokenizer.chat_template"]),
        )
    }

    /// The command: offline, with this place's store, whatever the user's environment.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("tercel"));
        for (name, value) in self.environment() {
            command.env(name, value);
        }
        command.env_remove("NO_COLOR").args(args);
        command
    }

    pub(crate) fn environment(&self) -> Vec<(&'static str, PathBuf)> {
        vec![
            ("TERCEL_HOME", self.home()),
            ("HF_HOME", self.path("hub")),
            ("HF_HUB_CACHE", self.path("hub")),
            ("TERCEL_OFFLINE", "1".into()),
            ("COLUMNS", "100".into()),
        ]
    }

    /// Runs the command with nothing on standard input.
    pub(crate) fn run(&self, args: &[&str]) -> Outcome {
        outcome(&mut self.command(args))
    }

    /// Runs the command and gives its standard output. It must succeed.
    pub(crate) fn stdout(&self, args: &[&str]) -> String {
        let outcome = self.run(args);
        assert_eq!(outcome.code, 0, "{args:?}: {outcome:?}");
        outcome.stdout
    }

    /// Runs the command with a text on standard input. It must succeed.
    pub(crate) fn stdout_of_stdin(&self, args: &[&str], stdin: &str) -> String {
        let outcome = outcome(self.command(args).write_stdin(stdin));
        assert_eq!(outcome.code, 0, "{args:?}: {outcome:?}");
        outcome.stdout
    }
}

pub(crate) fn outcome(command: &mut Command) -> Outcome {
    let output = command.output().expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Outcome {
        code: output.status.code().expect("no signal"),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

/// The events of a `--json` run.
pub(crate) fn events(stdout: &str) -> Vec<serde_json::Value> {
    stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("an object a line"))
        .collect()
}

/// A llama of two layers with random weights and a token per byte.
pub(crate) fn tiny_model(changes: &[(&str, OwnedValue)]) -> Vec<u8> {
    model_without(changes, &[])
}

fn model_without(changes: &[(&str, OwnedValue)], dropped: &[&str]) -> Vec<u8> {
    let mut metadata = metadata();
    metadata.extend(changes.iter().cloned());
    let mut writer = Writer::new();
    for (key, value) in metadata {
        if !dropped.contains(&key) {
            writer.set(key, value).expect("a valid entry");
        }
    }
    let tensors = tensors();
    for (name, shape, bytes) in &tensors {
        writer
            .tensor(name, DType::F32, shape, bytes)
            .expect("a valid tensor");
    }
    let mut file = Vec::new();
    writer.write_to(&mut file).expect("written");
    file
}

const HIDDEN: usize = 64;
const FEED_FORWARD: usize = 96;
const LAYERS: usize = 2;

fn metadata() -> BTreeMap<&'static str, OwnedValue> {
    let types: Vec<i32> = (0..VOCAB).map(|id| if id < 256 { 1 } else { 3 }).collect();
    let entries: [(&str, OwnedValue); 17] = [
        ("general.architecture", "llama".into()),
        ("general.name", "Tiny \x1b[31mllama".into()),
        ("general.license", "mit".into()),
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
        ("tokenizer.chat_template", TEMPLATE.into()),
    ];
    entries.into()
}

fn tensors() -> Vec<(String, Vec<usize>, Vec<u8>)> {
    let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    let mut state = 1_u64;
    let mut random = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1_u64 << 24) as f32 - 0.5
    };
    let mut tensor = |name: String, shape: &[usize]| {
        let is_norm = shape.len() == 1;
        let values = (0..shape.iter().product::<usize>())
            .flat_map(|_| (if is_norm { 1.0 } else { random() * 0.6 }).to_le_bytes());
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
    tensors
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

/// Whether anything is below `directory`.
pub(crate) fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).map_or(true, |mut entries| entries.next().is_none())
}
