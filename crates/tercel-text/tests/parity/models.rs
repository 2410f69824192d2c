//! Token ids of real models, equal to those of the Python packages.
//!
//! `cargo xtask test` pulls the models and says where they are. Without them these tests fail:
//! a comparison that did not happen is not a pass.

use crate::common::{Expected, check};
use tercel_formats::Gguf;
use tercel_text::Tokenizer;

#[test]
fn smollm2_ids_equal_those_of_python() {
    with_model("TERCEL_TEST_SMOLLM2", |tokenizer| {
        assert_eq!(
            (tokenizer.model(), tokenizer.pre_tokenizer()),
            ("gpt2", "smollm")
        );
        check(tokenizer, &Expected::load("smollm2.json").texts);
        let ends = tokenizer.end_ids().iter().map(|id| tokenizer.token(*id));
        assert_eq!(
            ends.collect::<Vec<_>>(),
            [Some("<|endoftext|>"), Some("<|im_end|>")]
        );
        assert!(!tokenizer.add_bos());
    });
}

#[test]
fn gemma3_ids_equal_those_of_python() {
    with_model("TERCEL_TEST_GEMMA3", |tokenizer| {
        assert_eq!(
            (tokenizer.model(), tokenizer.vocab_size()),
            ("llama", 262_144)
        );
        check(tokenizer, &Expected::load("gemma3.json").texts);
        let ends = tokenizer.end_ids().iter().map(|id| tokenizer.token(*id));
        assert_eq!(
            ends.collect::<Vec<_>>(),
            [Some("<eos>"), Some("<end_of_turn>")]
        );
        assert!(tokenizer.add_bos());
    });
}

fn with_model(variable: &str, test: impl Fn(&Tokenizer)) {
    let Some(path) = std::env::var_os(variable) else {
        panic!("{variable} does not name a model file; run `cargo xtask test`, which fetches it");
    };
    let file = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let gguf = Gguf::parse(&file).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let start = std::time::Instant::now();
    let tokenizer = Tokenizer::from_gguf(gguf.metadata());
    let took = start.elapsed();
    let tokenizer = tokenizer.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    println!("{} tokens in {took:?}", tokenizer.vocab_size());
    test(&tokenizer);
}
