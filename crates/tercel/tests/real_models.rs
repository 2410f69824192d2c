//! The promises of the engine on the two real models.
//!
//! `cargo xtask test` pulls the models and names their files in the environment.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

use tercel::{Engine, Reply, Request, StopReason};

fn file(variable: &str) -> String {
    std::env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} is not set: run the tests by `cargo xtask test`"))
}

fn engine(file: &str, threads: usize, prefill_chunk: usize) -> Engine {
    let builder = Engine::builder(file).max_context(1024).offline(true);
    builder
        .threads(threads)
        .prefill_chunk(prefill_chunk)
        .load()
        .unwrap()
}

/// A long prompt, so that chunks matter, and two short ones.
fn requests() -> Vec<Request> {
    let long = "The quick brown fox jumps over the lazy dog. ".repeat(30);
    let prompts = [long.as_str(), "Once upon a time", "1, 2, 3,"];
    let sampled = prompts.iter().enumerate().map(|(i, prompt)| {
        Request::prompt(*prompt)
            .max_new_tokens(24)
            .temperature(0.9)
            .seed(40 + i as u64)
    });
    let greedy = Request::prompt("The capital of France is")
        .max_new_tokens(24)
        .temperature(0.0);
    sampled
        .chain([greedy])
        .map(|request| request.ignore_eos(true))
        .collect()
}

#[test]
fn one_seed_one_text() {
    for variable in ["TERCEL_TEST_SMOLLM2", "TERCEL_TEST_GEMMA3"] {
        let file = file(variable);
        let run = |engine: &Engine| -> Vec<_> {
            requests()
                .into_iter()
                .map(|r| engine.generate(r).unwrap().tokens)
                .collect()
        };
        let first = engine(&file, 1, 256);
        let want = run(&first);
        assert_eq!(
            run(&first),
            want,
            "a second run, with what the first left in the cache"
        );
        drop(first);
        for (threads, chunk) in [(1, 256), (2, 256), (2, 16), (1, 1)] {
            let again = engine(&file, threads, chunk);
            assert_eq!(
                run(&again),
                want,
                "{file}: {threads} threads, chunks of {chunk}"
            );
        }
    }
}

#[test]
fn a_chat_remembers_and_computes_only_what_is_new() {
    let engine = engine(&file("TERCEL_TEST_SMOLLM2"), 2, 256);
    let mut chat = engine
        .chat()
        .system("Answer in one short sentence.")
        .temperature(0.0);
    let first = chat
        .ask("My name is Ada. What is the capital of France?")
        .unwrap();
    assert!(first.text.contains("Paris"), "{}", first.text);
    assert_eq!(first.stop_reason, StopReason::Eos);
    assert_eq!(first.usage.cached_tokens, 0);
    let second = chat.ask("And of Italy?").unwrap();
    assert!(second.text.contains("Rome"), "{}", second.text);
    let Reply { usage, .. } = second;
    assert!(
        usage.cached_tokens >= first.usage.prompt_tokens,
        "{usage:?} after {:?}",
        first.usage
    );
}

#[test]
fn special_tokens_in_user_text_stay_text() {
    let engine = engine(&file("TERCEL_TEST_SMOLLM2"), 2, 256);
    let tokenizer = engine.tokenizer();
    let end = tokenizer.id("<|im_end|>").unwrap();
    assert!(!tokenizer.encode("hello <|im_end|> there").contains(&end));
    assert!(
        tokenizer
            .encode_trusted("hello <|im_end|> there")
            .contains(&end)
    );
    let mut chat = engine.chat().temperature(0.0).max_new_tokens(1);
    let plain = chat.ask("hello there").unwrap().usage.prompt_tokens;
    chat.reset();
    let marked = chat
        .ask("hello <|im_end|> there")
        .unwrap()
        .usage
        .prompt_tokens;
    assert!(
        marked > plain + 1,
        "the marker was spelled out: {marked} tokens, not {plain} + 1"
    );
}

#[test]
fn a_base_model_without_a_template_refuses_to_chat() {
    let engine = engine(&file("TERCEL_TEST_GEMMA3"), 2, 256);
    let error = engine.chat().ask("Hello").unwrap_err();
    assert_eq!(error.kind(), "no_chat_template");
    assert!(error.hint().is_some());
    let reply = engine
        .generate(Request::prompt("The sky is").max_new_tokens(4))
        .unwrap();
    assert!(reply.usage.generated_tokens > 0);
}

#[test]
fn what_the_vocabulary_cannot_express_is_counted_in_the_reply() {
    let engine = engine(&file("TERCEL_TEST_SMOLLM2"), 2, 256);
    let lost = |text: &str| {
        let request = Request::prompt(text).max_new_tokens(1);
        engine.generate(request).unwrap().usage.lost_bytes
    };
    assert_eq!(lost("caf\u{e9} \u{1f600}"), 0);
    assert_eq!(
        lost("a\u{4}b\u{6}c"),
        2,
        "SmolLM2 has no token for these control characters"
    );
}
