//! `tercel prompt`: tokens of texts, and prompts within a budget.

mod common;

use common::Place;
use serde_json::{Value, json};

fn worked_example() -> Value {
    let turn = |tokens: u32| json!({"user": {"tokens": tokens}});
    json!({
        "budget": {
            "max_context_tokens": 4096, "max_new_tokens": 256, "summary_tokens": 600,
            "window_turns": 6, "tool_outputs": {"tokens": 900, "scope": "per_output"},
        },
        "system": {"tokens": 220},
        "summary": {"tokens": 540},
        "turns": [turn(310), turn(360), turn(420), turn(390)],
        "tools": [
            {"name": "A", "text": {"tokens": 520}},
            {"name": "B", "text": {"tokens": 610}},
        ],
        "user": {"tokens": 0},
    })
}

/// The column of tokens that are left.
fn left(stdout: &str) -> Vec<u32> {
    let rows = stdout.lines().skip(2);
    let numbers = rows.map(|row| {
        let words: Vec<&str> = row.split_whitespace().collect();
        let numbers: Vec<u32> = words.iter().rev().filter_map(|w| w.parse().ok()).collect();
        numbers[0]
    });
    numbers.collect()
}

#[test]
fn the_worked_example_shows_what_is_left_after_each_block() {
    let place = Place::new();
    let file = place.write("prompt.json", worked_example().to_string());
    let outcome = place.run(&["prompt", "fit", &file]);
    assert_eq!(
        (outcome.code, outcome.stderr.as_str()),
        (0, ""),
        "{outcome:?}"
    );
    let first = outcome.stdout.lines().next().expect("a line");
    assert_eq!(
        first,
        "4096 tokens of context - 256 for the reply - 0 of margin = 3840 for the prompt"
    );
    assert_eq!(
        left(&outcome.stdout),
        [3620, 3080, 3080, 2690, 2270, 1910, 1600, 1080, 470]
    );

    // Options come before the file; what goes is told with the reason.
    let narrow = [
        "--context",
        "2000",
        "--tool-tokens",
        "900",
        "--tool-scope",
        "per_request",
    ];
    let stdout = place.stdout(&[&["prompt", "fit", &file], &narrow[..]].concat());
    assert!(stdout.contains("dropped (context)"), "{stdout}");
    assert!(stdout.contains("dropped (tool_outputs)"), "{stdout}");
    let refused = place.run(&["prompt", "fit", &file, "--context", "400", "--json"]);
    let error: Value = serde_json::from_str(refused.stdout.trim()).expect("JSON");
    assert_eq!(
        (refused.code, &error["kind"]),
        (1, &json!("context_overflow")),
        "{refused:?}"
    );
}

#[test]
fn a_model_counts_the_whole_prompt_as_its_template_writes_it() {
    let place = Place::new();
    let model = place.model(&[]);
    let prompt = json!({
        "budget": {"max_context_tokens": 100, "max_new_tokens": 10},
        "system": "rules", "user": "now",
        "turns": [
            {"user": "question 1", "assistant": "answer 1"},
            {"user": "question 2", "assistant": "answer 2"},
        ],
    });
    let file = place.write("prompt.json", prompt.to_string());
    let fit = |more: &[&str]| -> Value {
        let args = [&["prompt", "fit", &file, "--json"], more].concat();
        serde_json::from_str(&place.stdout(&args)).expect("JSON")
    };
    let fitted = fit(&["--model", &model]);
    let messages = fitted["messages"].as_array().expect("messages");
    assert_eq!(messages.len(), 4);
    // `system: rules`, `user: question 2`, `assistant: answer 2`, `user: now`, each with a line
    // break, and `assistant: `; the model has a token for each byte.
    assert_eq!(fitted["report"]["prompt_tokens"], 14 + 17 + 20 + 10 + 11);
    assert_eq!(fitted["report"]["blocks"][3]["outcome"], "dropped");
    let plain = fit(&["--model", &model, "--plain"]);
    let text = plain["text"].as_str().expect("a text");
    assert!(
        text.starts_with("System: rules\n\nUser: question 2\nAssistant:"),
        "{text}"
    );
    assert_eq!(plain["report"]["prompt_tokens"], text.len());

    let estimated = place.run(&["prompt", "fit", &file]);
    assert!(
        estimated.stderr.contains("counts are estimates"),
        "{estimated:?}"
    );
    let wrong = place.write("wrong.json", "{\"users\": 1}");
    let refused = place.run(&["prompt", "fit", &wrong]);
    assert!(
        refused.stderr.contains("unknown field `users`"),
        "{refused:?}"
    );
}

#[test]
fn tokens_of_two_texts_are_compared() {
    let place = Place::new();
    let model = place.model(&[]);
    let long = place.write("long.txt", "a long text");
    let short = place.write("short.txt", "short");
    let count = |args: &[&str]| {
        let args = [&["prompt", "count", "--model", &model], args].concat();
        place.stdout(&args)
    };
    assert_eq!(count(&[&long]), format!("     11 tokens  {long}\n"));
    let both = count(&[&long, &short]);
    assert!(
        both.ends_with("short.txt saves 6 tokens (54.5 %)\n"),
        "{both}"
    );
    let both = count(&[&short, &long]);
    assert!(
        both.ends_with("long.txt has 6 tokens more (120.0 %)\n"),
        "{both}"
    );
    let json: Value = serde_json::from_str(&count(&[&short, &short, "--json"])).expect("JSON");
    assert_eq!(
        (&json["difference"], &json["files"][1]["tokens"]),
        (&json!(0), &json!(5))
    );
}
