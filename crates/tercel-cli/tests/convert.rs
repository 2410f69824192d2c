//! `tercel convert`, and models that are quantized as they are loaded.

mod common;

use std::fs;

use common::{Place, events};
use serde_json::Value as Json;

#[test]
fn a_converted_model_says_the_same() {
    let place = Place::new();
    let model = place.model(&[]);
    let output = place.text("converted");
    let told = place.stdout(&["convert", &model, "--output", &output, "--dtype", "f32"]);
    assert!(told.starts_with(&output), "{told}");
    assert!(told.contains("21 tensors, f32"), "{told}");
    let mut files: Vec<_> = fs::read_dir(&output)
        .expect("a directory")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("plain")
        })
        .collect();
    files.sort();
    assert_eq!(
        files,
        [
            "chat_template.jinja",
            "config.json",
            "generation_config.json",
            "manifest.json",
            "model.safetensors",
            "special_tokens_map.json",
            "tokenizer.json",
            "tokenizer_config.json",
        ]
    );
    let reply = |model: &str| {
        let asked = [
            "run",
            model,
            "Hello there",
            "--exact",
            "--temperature",
            "0",
            "--max-new-tokens",
            "24",
            "--json",
        ];
        let events = events(&place.stdout(&asked));
        let done = events.last().expect("an event").clone();
        (done["text"].clone(), done["stop_reason"].clone())
    };
    assert_eq!(reply(&output), reply(&model));
    let tokens = |model: &str| place.stdout(&["tokenize", model, "na\u{ef}ve <end> 12"]);
    assert_eq!(tokens(&output), tokens(&model));

    let manifest = fs::read(format!("{output}/manifest.json")).expect("there");
    let manifest: Json = serde_json::from_slice(&manifest).expect("JSON");
    assert_eq!(manifest["model_name"], "tiny");
    assert_eq!(manifest["precision"], "f32");
    let generation = fs::read(format!("{output}/generation_config.json")).expect("there");
    let generation: Json = serde_json::from_slice(&generation).expect("JSON");
    assert_eq!(generation["eos_token_id"], serde_json::json!([256]));

    // A directory is converted too: what stands beside the weights is the same.
    let again = place.text("again");
    let told = place.stdout(&["convert", &output, "--output", &again, "--json"]);
    let told: Json = serde_json::from_str(&told).expect("JSON");
    assert_eq!(
        (&told["dtype"], &told["tensors"]),
        (&"f16".into(), &21.into())
    );
    let text =
        |directory: &str, file: &str| fs::read(format!("{directory}/{file}")).expect("a file");
    for file in [
        "tokenizer.json",
        "chat_template.jinja",
        "generation_config.json",
    ] {
        assert_eq!(text(&again, file), text(&output, file), "{file}");
    }
}

#[test]
fn nothing_is_overwritten() {
    let place = Place::new();
    let model = place.model(&[]);
    let output = place.write("taken/file", b"mine");
    let outcome = place.run(&["convert", &model, "--output", &output]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.stderr.contains("exists already"), "{outcome:?}");
    assert_eq!(fs::read(&output).expect("there"), b"mine");
    let outcome = place.run(&["convert", &model, "--output", &output, "--dtype", "f64"]);
    assert_eq!(outcome.code, 2, "{outcome:?}");
}

#[test]
fn weights_are_quantized_as_they_are_loaded() {
    let place = Place::new();
    let model = place.model(&[]);
    let run = |more: &[&str]| {
        let mut args = vec![
            "run",
            &model,
            "Hello",
            "--max-new-tokens",
            "4",
            "--seed",
            "1",
        ];
        args.extend(more);
        place.run(&args)
    };
    assert_eq!(run(&["--quantize", "q8_0"]).code, 0);
    let refused = run(&["--quantize", "q9"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("q4_k"), "{refused:?}");
    assert_eq!(run(&["--quantize", "q8_0", "--exact"]).code, 2);
}
