//! The command on the two real models. `cargo xtask test` sets the paths of their files.

#![expect(clippy::panic, reason = "helpers of tests fail by panicking")]

mod common;

use common::{Place, events};

fn model(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} is not set: run `cargo xtask test`, or set it to the GGUF file")
    })
}

#[test]
fn smollm2_answers_a_question() {
    let place = Place::new();
    let model = model("TERCEL_TEST_SMOLLM2");
    let reply = |threads: &str| {
        place.stdout(&[
            "run",
            &model,
            "What is the capital of France?",
            "--temperature",
            "0",
            "--max-new-tokens",
            "24",
            "--threads",
            threads,
        ])
    };
    let first = reply("1");
    assert!(first.contains("Paris"), "{first}");
    assert_eq!(reply("2"), first);
}

#[test]
fn smollm2_is_a_chat_model_of_known_size() {
    let place = Place::new();
    let model = model("TERCEL_TEST_SMOLLM2");
    let text = place.stdout(&["inspect", &model, "--json"]);
    let of: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(of["model"]["parameters"], 134_515_008);
    assert_eq!(of["model"]["architecture"], "llama");
    assert!(of["template"].is_string());
    let tokens = place.stdout(&["tokenize", &model, "Hello world"]);
    assert_eq!(tokens, " 19556  \"Hello\"\n   905  \" world\"\n");
}

#[test]
fn gemma3_continues_a_text_and_says_so() {
    let place = Place::new();
    let model = model("TERCEL_TEST_GEMMA3");
    let outcome = place.run(&[
        "run",
        &model,
        "1, 2, 3, 4,",
        "--temperature",
        "0",
        "--max-new-tokens",
        "8",
    ]);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert!(outcome.stdout.starts_with(" 5, 6"), "{outcome:?}");
    assert!(
        outcome
            .stderr
            .starts_with("note: this model has no chat template"),
        "{outcome:?}"
    );
    let stdout = place.stdout(&[
        "run",
        &model,
        "One, two,",
        "--json",
        "--max-new-tokens",
        "2",
    ]);
    assert_eq!(events(&stdout).pop().expect("an event")["event"], "done");
}
