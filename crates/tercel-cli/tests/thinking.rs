//! Thoughts through the real binary: on standard output, in JSON, and refused.

mod common;

use common::{Place, THINKS, events};

/// Forty tokens that are the same each time, and no end token among them.
const FIXED: [&str; 6] = [
    "--seed",
    "7",
    "--max-new-tokens",
    "40",
    "--ignore-eos",
    "--quiet",
];

#[test]
fn a_pipe_gets_the_answer_and_json_the_thought_too() {
    let place = Place::new();
    let model = place.model(&[("tokenizer.chat_template", THINKS.into())]);
    let run = |more: &[&str]| place.stdout(&[&["run", &model, "hi"], &FIXED[..], more].concat());
    // The random model never ends its thought by itself.
    assert_eq!(run(&[]), "\n");
    let limit = ["--max-thinking-tokens", "5"];
    let answer = run(&limit);
    assert!(answer.len() > 1, "{answer:?}");

    let events = events(&run(&[&limit[..], &["--json"]].concat()));
    let joined = |kind: &str| -> String {
        let of_kind = events.iter().filter(|event| event["event"] == kind);
        of_kind
            .map(|event| event["text"].as_str().expect("text"))
            .collect()
    };
    let done = events.last().expect("an event");
    assert_eq!(done["event"], "done");
    assert_eq!(done["thinking"], joined("thinking"));
    assert_eq!(done["text"], joined("delta"));
    assert_eq!(
        answer.trim_end_matches('\n'),
        joined("delta").trim_end_matches('\n')
    );
    let thought = 5 + "\n</think>".len();
    assert_eq!(done["usage"]["thinking_tokens"], thought);
    assert_eq!(done["usage"]["generated_tokens"], 40);
    assert_eq!(done["settings"]["thinking"], "auto");
    assert_eq!(done["settings"]["max_thinking_tokens"], 5);

    let off = events_of(&run(&["--thinking", "off", "--json"]));
    assert_eq!(off["thinking"], serde_json::Value::Null);
    assert_eq!(off["usage"]["thinking_tokens"], 0);
    let kept = events_of(&run(&["--min-answer-tokens", "10", "--json"]));
    assert_eq!(kept["usage"]["thinking_tokens"], 40 - 10 - "\n\n".len());
}

fn events_of(stdout: &str) -> serde_json::Value {
    events(stdout).pop().expect("an event")
}

#[test]
fn what_cannot_be_asked_for_is_refused() {
    let place = Place::new();
    let model = place.model(&[]);
    for (more, code, part) in [
        (&["--thinking", "on"][..], 1, "not known to think"),
        (&["--thinking", "maybe"], 2, "auto, off, on"),
        (&["--max-thinking-tokens", "0"], 1, "must be at least 1"),
        (&["--raw", "--thinking", "off"], 1, "without a template"),
    ] {
        let outcome = place.run(&[&["run", &model, "hi"], more].concat());
        assert_eq!(outcome.code, code, "{outcome:?}");
        assert!(outcome.stderr.contains(part), "{outcome:?}");
    }
    // A model that does not think has nothing to turn off.
    place.stdout(&[&["run", &model, "hi", "--thinking", "off"], &FIXED[..]].concat());
}
