//! Perplexity of the two real models against what llama.cpp gives on the same text.
//!
//! `cargo xtask test` pulls the models and names their files in the environment.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

use std::ops::ControlFlow;

use tercel::Engine;
use tercel_eval::{PerplexityOptions, perplexity};

const TEXT: &str = include_str!("../../../test-data/perplexity/python-docs.txt");
/// Relative difference from llama.cpp that is allowed, over the whole text.
const TOLERANCE: f64 = 0.01;

#[test]
fn smollm2_is_as_perplexed_as_in_llama_cpp() {
    compare("TERCEL_TEST_SMOLLM2", 28, 12.3045, 0.388);
}

#[test]
fn gemma3_is_as_perplexed_as_in_llama_cpp() {
    compare("TERCEL_TEST_GEMMA3", 27, 13.0957, 0.447);
}

fn compare(variable: &str, chunks: usize, ppl: f64, stderr: f64) {
    let file = std::env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} is not set: run the tests by `cargo xtask test`"));
    let engine = Engine::builder(file)
        .max_context(512)
        .offline(true)
        .load()
        .unwrap();
    let options = PerplexityOptions::default();
    let result = perplexity(&engine, TEXT, options, |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(result.chunks, chunks);
    assert_eq!(result.tokens_scored, chunks * 255);
    assert!(
        (result.ppl / ppl - 1.0).abs() < TOLERANCE,
        "{} is not {ppl}",
        result.ppl
    );
    assert!(
        (result.stderr / stderr - 1.0).abs() < 0.05,
        "{} is not {stderr}",
        result.stderr
    );
}
