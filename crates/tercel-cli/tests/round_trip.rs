//! The two real models, converted to half floats and loaded back: as good as they were.
//!
//! `cargo xtask test` sets the paths of their files. `TERCEL_TEST_CHUNKS=all` measures the whole
//! text, which takes minutes.

#![expect(
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "helpers of tests fail by panicking"
)]

mod common;

use std::ops::ControlFlow;

use common::Place;
use tercel::{Engine, EngineBuilder};
use tercel_eval::{PerplexityOptions, perplexity};

const TEXT: &str = include_str!("../../../test-data/perplexity/python-docs.txt");
/// Chunks of 512 tokens; the whole text has 28 of them.
const CHUNKS: usize = 1;

#[test]
fn smollm2_is_as_good_as_before() {
    check("TERCEL_TEST_SMOLLM2");
}

#[test]
fn gemma3_is_as_good_as_before() {
    check("TERCEL_TEST_GEMMA3");
}

fn check(variable: &str) {
    let file = std::env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} is not set: run `cargo xtask test`, or set it to the GGUF file")
    });
    let place = Place::new();
    let output = place.text("converted");
    place.stdout(&["convert", &file, "--output", &output, "--dtype", "f16"]);

    let before = measure(Engine::builder(&file).exact(true));
    let after = measure(Engine::builder(&output).exact(true));
    let quantized = measure(Engine::builder(&output).quantize("q8_0"));
    println!("{variable}: {before:.6}, as half floats {after:.6}, those as q8_0 {quantized:.6}");
    assert_eq!(four_digits(before), four_digits(after));
    let change = (quantized / before - 1.0).abs();
    assert!(change < 0.005, "{quantized} is not {before}");
}

fn measure(builder: EngineBuilder) -> f64 {
    let engine = builder.max_context(512).offline(true).load().unwrap();
    let mut options = PerplexityOptions::default();
    if std::env::var_os("TERCEL_TEST_CHUNKS").is_none() {
        options = options.max_chunks(CHUNKS);
    }
    let result = perplexity(&engine, TEXT, options, |_| ControlFlow::Continue(()));
    result.unwrap().ppl
}

fn four_digits(value: f64) -> String {
    format!("{value:.3e}")
}
