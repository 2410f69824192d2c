//! What an engine says it takes, against what the system says that its process has.
//!
//! Each measurement is a process of its own: this test program again, told by a variable what to
//! load.

#![cfg(target_os = "linux")]

use std::process::Command;
use std::time::{Duration, Instant};

use tercel::memory::{Ledger, LedgerOptions, measure};
use tercel::{Engine, Error, KvType, Pooling, Request};

const CHILD: &str = "TERCEL_TEST_MEASURE";
const MODELS: [&str; 2] = ["TERCEL_TEST_SMOLLM2", "TERCEL_TEST_GEMMA3"];

fn file(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        let problem = "is not set: run the tests by `cargo xtask test`";
        unreachable!("{variable} {problem}")
    })
}

/// The child: loads, writes a few tokens, makes a vector, and prints what was promised and what it has.
#[test]
fn child() {
    let Ok(what) = std::env::var(CHILD) else {
        return;
    };
    let words: Vec<&str> = what.split(' ').collect();
    let number = |word: usize| words[word].parse().expect("a number");
    let kv_type = match words[3] {
        "q8_0" => KvType::Q8_0,
        _ => KvType::F16,
    };
    let engine = Engine::builder(file(words[0]))
        .max_context(number(1))
        .max_sequences(number(2))
        .kv_type(kv_type)
        .commit_memory(true)
        .offline(true)
        .load()
        .expect("a model");
    let request = Request::prompt("One, two, three").max_new_tokens(8);
    engine.generate(request.logprobs(20)).expect("a reply");
    let text = engine.raw_tokens(&"One, two, three. ".repeat(32));
    let text = text.expect("tokens");
    engine.embed(&text, Pooling::Mean).expect("a vector");
    let measured = measure().expect("Linux tells").own_bytes;
    println!(
        "measured {measured} promised {}",
        engine.info().memory.total_bytes
    );
}

/// Promised and measured bytes.
fn measured(model: &str, context: usize, sequences: usize, kv: &str) -> (u64, u64) {
    let output = Command::new(std::env::current_exe().expect("a path"))
        .args(["child", "--exact", "--nocapture"])
        .env(CHILD, format!("{model} {context} {sequences} {kv}"))
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let after = |word: &str| {
        let mut words = text.split_whitespace().skip_while(|it| *it != word);
        words.nth(1).and_then(|number| number.parse().ok())
    };
    let (promised, measured) = (after("promised"), after("measured"));
    assert!(output.status.success() && measured.is_some(), "{text}");
    (promised.unwrap_or(0), measured.unwrap_or(0))
}

#[test]
fn an_engine_takes_what_it_says_within_a_twentieth() {
    for model in MODELS {
        for context in [512, 2048, 8192] {
            for sequences in [1, 4, 8] {
                // The other encoding where it weighs most.
                let kinds: &[&str] = match (context, sequences) {
                    (8192, 8) => &["f16", "q8_0"],
                    _ => &["f16"],
                };
                for kv in kinds {
                    let (promised, measured) = measured(model, context, sequences, kv);
                    let ratio = measured as f64 / promised as f64;
                    println!(
                        "{model} {kv}, context {context}, {sequences} sequences: promised {} MiB, \
                         measured {} MiB, {ratio:.3}",
                        promised >> 20,
                        measured >> 20
                    );
                    assert!((0.95..=1.05).contains(&ratio), "{ratio}");
                }
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_in_less_than_a_second_with_the_table() {
    let mut options = LedgerOptions::default();
    options.baseline_bytes = Some(0);
    options.lent_bytes = Some(100 << 20);
    let ledger = Ledger::new(options);
    for model in MODELS {
        let builder = Engine::builder(file(model)).max_context(8192).offline(true);
        let begun = Instant::now();
        let error = builder.ledger(&ledger).load().expect_err("refused");
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(1), "{model}: {took:?}");
        assert_eq!(error.kind(), "insufficient_memory");
        let Error::Admission(refused) = error else {
            unreachable!("{error}")
        };
        let table = refused.table();
        for part in [
            "weights",
            "KV cache",
            "workspace",
            "prefix cache",
            "tokenizer",
            "total",
        ] {
            assert!(table.contains(part), "{part} is not in {table}");
        }
    }
}
