//! `--session` and `--context-overflow` of `tercel run`.

mod common;

use common::{Place, TEMPLATE, events};
use serde_json::Value;

const SHORT: [&str; 5] = ["--ignore-eos", "--max-new-tokens", "5", "--seed", "7"];

fn reply(place: &Place, args: &[&str]) -> Value {
    let stdout = place.stdout(&[args, &SHORT[..], &["--json"]].concat());
    events(&stdout).pop().expect("an end")
}

#[test]
fn a_conversation_goes_on_in_the_next_run() {
    let place = Place::new();
    let model = place.model(&[]);
    let file = place.text("talk.session");
    let session = ["run", &model, "--session", &file, "-p"];
    let first = reply(&place, &[&session[..], &["one"]].concat());
    let second = reply(&place, &[&session[..], &["two"]].concat());
    let tokens = |reply: &Value| reply["usage"]["prompt_tokens"].as_u64().expect("a number");
    // `user: two`, two line breaks, `assistant: `, and the reply before.
    assert_eq!(tokens(&first), 10 + 11);
    let said = first["text"].as_str().expect("text").len() as u64;
    assert_eq!(tokens(&second), tokens(&first) + said + 1 + 10 + 11);

    let template = place.write("other.jinja", format!("{TEMPLATE} "));
    let other = [&session[..], &["three", "--template", &template]].concat();
    let refused = place.run(&[&other[..], &SHORT[..]].concat());
    assert_eq!(refused.code, 1);
    assert!(
        refused.stderr.contains("another chat template"),
        "{refused:?}"
    );
    assert!(
        refused.stderr.contains("hint: `--session-transcript`"),
        "{refused:?}"
    );
    let third = reply(&place, &[&other[..], &["--session-transcript"]].concat());
    assert!(tokens(&third) > tokens(&second));

    let broken = place.write("broken.session", "TRCLCHAT and nothing");
    let refused = place.run(&["run", &model, "--session", &broken, "-p", "x"]);
    assert!(refused.stderr.contains("error: session "), "{refused:?}");
}

#[test]
fn what_is_cut_is_noted_on_standard_error() {
    let place = Place::new();
    let model = place.model(&[]);
    let prompt = "x".repeat(300);
    let run = |policy: &str| {
        let args = ["run", &model, "-p", &prompt, "--context-overflow", policy];
        place.run(&[&args[..], &SHORT[..]].concat())
    };
    let refused = run("error");
    assert!(
        refused.stderr.contains("the context holds 160"),
        "{refused:?}"
    );
    let cut = run("truncate_middle");
    assert_eq!(cut.code, 0, "{cut:?}");
    // A note, then the statistics.
    assert!(
        cut.stderr.contains(
            "note: the context was full (truncate_middle): 1 message shortened; \
             155 of 318 prompt tokens ran"
        ),
        "{cut:?}"
    );
    assert!(
        cut.stderr.contains("155 prompt + 5 generated tokens"),
        "{cut:?}"
    );
    let refused = run("drop_oldest_turns");
    assert!(
        refused
            .stderr
            .contains("hint: `drop_oldest_turns` drops whole turns"),
        "{refused:?}"
    );
    assert_eq!(run("shorten").code, 2);
}
