//! The small checkpoints of every family, as models that an engine loads.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tercel::{Engine, EngineBuilder};

/// A checkpoint with a tokenizer of one token per byte, and room for long prompts.
pub(crate) struct Family {
    /// Tokens that its replies are made of.
    pub(crate) vocab: u32,
    directory: tempfile::TempDir,
}

impl Family {
    /// One of `test-data/checkpoints`.
    pub(crate) fn open(name: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let source = checkpoints().join(name);
        for entry in fs::read_dir(&source).expect("a folder") {
            let path = entry.expect("an entry").path();
            let file = path
                .file_name()
                .expect("a name")
                .to_string_lossy()
                .into_owned();
            // Their own tokenizers, where they have one, are of another vocabulary.
            if file == "config.json" || file.contains(".safetensors") {
                fs::copy(&path, directory.path().join(file)).expect("copied");
            }
        }
        let config = directory.path().join("config.json");
        let mut whole: Value =
            serde_json::from_slice(&fs::read(&config).expect("read")).expect("JSON");
        let mut vocab = 256;
        for part in ["", "/text_config"] {
            let Some(fields) = whole.pointer_mut(part) else {
                continue;
            };
            if let Some(own) = fields["vocab_size"].as_u64() {
                vocab = vocab.min(own as u32);
                fields["max_position_embeddings"] = json!(8192);
            }
        }
        fs::write(&config, whole.to_string()).expect("written");
        fs::write(
            directory.path().join("tokenizer.json"),
            tokenizer(vocab).to_string(),
        )
        .expect("written");
        Self { vocab, directory }
    }

    /// Where it lies.
    pub(crate) fn path(&self) -> String {
        self.directory.path().display().to_string()
    }

    pub(crate) fn builder(&self) -> EngineBuilder {
        Engine::builder(self.path()).max_context(1024).offline(true)
    }

    /// Tokens that look random and are the same every time.
    pub(crate) fn tokens(&self, seed: u64, n: usize) -> Vec<u32> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 33) as u32 % self.vocab
        };
        (0..n).map(|_| next()).collect()
    }
}

pub(crate) fn checkpoints() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../test-data/checkpoints")
}

/// Byte-level BPE without merges: a token for each of the first bytes.
fn tokenizer(vocab: u32) -> Value {
    let mut free = 0x100_u32;
    let characters = (0..256_u32).map(|byte| {
        let printable = matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
        let character = if printable {
            byte
        } else {
            free += 1;
            free - 1
        };
        char::from_u32(character).expect("a character").to_string()
    });
    let tokens: serde_json::Map<String, Value> = characters
        .take(vocab as usize)
        .enumerate()
        .map(|(id, token)| (token, json!(id)))
        .collect();
    let byte_level = json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true
    });
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "pre_tokenizer": byte_level, "post_processor": null,
        "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null,
            "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": tokens, "merges": []
        }
    })
}
