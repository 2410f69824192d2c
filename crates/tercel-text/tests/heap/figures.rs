//! What a tokenizer says it takes, against an allocator that counts.
//!
//! `cargo xtask test` fetches the real models and tokenizers and says where they are. Without them
//! these tests fail: a comparison that did not happen is not a pass.

use std::path::PathBuf;

use tercel_formats::Gguf;
use tercel_text::{HfTokenizerFiles, Tokenizer, VocabularySize};

use crate::counting::held_by;

/// How far the figures may be off: what a tokenizer counts of itself, and what is estimated before
/// it is built.
const COUNTED: f64 = 0.10;
const ESTIMATED: f64 = 0.15;

#[test]
fn smollm2_takes_what_it_says() {
    of_gguf("TERCEL_TEST_SMOLLM2");
}

#[test]
fn gemma3_takes_what_it_says() {
    of_gguf("TERCEL_TEST_GEMMA3");
}

#[test]
fn published_tokenizers_take_what_they_say() {
    let root = named("TERCEL_TEST_TOKENIZERS");
    for name in ["qwen3", "gemma3"] {
        let read = |file: &str| {
            let path = root.join(name).join(file);
            std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        };
        let (json, config) = (read("tokenizer.json"), read("tokenizer_config.json"));
        let size = VocabularySize::from_hf(&json).expect("a published file");
        let files = HfTokenizerFiles {
            tokenizer_json: &json,
            tokenizer_config: Some(&config),
            special_tokens_map: None,
        };
        let (tokenizer, held) = held_by(|| Tokenizer::from_hf(&files).expect("a published file"));
        compare(name, &tokenizer, held, &size);
    }
}

#[test]
fn small_tokenizers_count_all_their_parts() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../test-data/tokenizers/small");
    let read = |name: &str| std::fs::read(root.join(name)).expect("a committed file");
    let small = [
        "qwen3.json",
        "unigram.json",
        "unigram-bytes.json",
        "wordpiece.json",
    ];
    let mut files: Vec<(&str, Vec<u8>)> = small.map(|name| (name, read(name))).into();
    files.push(("an expression", with_expression(&read("qwen3.json"))));
    let mut compared = 0;
    for (name, json) in files {
        let files = HfTokenizerFiles {
            tokenizer_json: &json,
            tokenizer_config: None,
            special_tokens_map: None,
        };
        let (tokenizer, held) = held_by(|| Tokenizer::from_hf(&files).expect("a committed file"));
        let counted = tokenizer.heap_bytes();
        println!("{name}: {held} bytes held, {counted} counted");
        // Boxes and names that are not counted weigh more in small ones.
        assert!(
            counted.abs_diff(held) <= held / 10 + 2048,
            "{name}: {counted} of {held}"
        );
        compared += 1;
    }
    assert_eq!(compared, 5);
}

/// A tokenizer whose words are cut by an expression that is not written out by hand: that of
/// Mistral's.
fn with_expression(json: &[u8]) -> Vec<u8> {
    let mut file: serde_json::Value = serde_json::from_slice(json).expect("JSON");
    let pattern = &mut file["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"];
    assert!(pattern.is_string());
    *pattern = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+".into();
    serde_json::to_vec(&file).expect("JSON")
}

fn of_gguf(variable: &str) {
    let path = named(variable);
    let file = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let gguf = Gguf::parse(&file).expect("a model");
    let size = VocabularySize::from_gguf(gguf.metadata()).expect("a vocabulary");
    let size = size.expect("a vocabulary");
    let (tokenizer, held) = held_by(|| Tokenizer::from_gguf(gguf.metadata()).expect("a tokenizer"));
    compare(variable, &tokenizer, held, &size);
}

fn named(variable: &str) -> PathBuf {
    let Some(path) = std::env::var_os(variable) else {
        panic!("{variable} names no file; run `cargo xtask test`, which fetches it");
    };
    path.into()
}

fn compare(name: &str, tokenizer: &Tokenizer, held: usize, size: &VocabularySize) {
    let (counted, estimated) = (tokenizer.heap_bytes(), size.heap_bytes());
    println!("{name}: {held} bytes held, {counted} counted, {estimated} estimated, {size:?}");
    assert_eq!(size.tokens, tokenizer.vocab_size(), "{name}");
    for (figure, tolerance) in [(counted, COUNTED), (estimated, ESTIMATED)] {
        let off = figure.abs_diff(held) as f64 / held as f64;
        assert!(
            off <= tolerance,
            "{name}: {figure} of {held} bytes, {off:.3} off"
        );
    }
}
