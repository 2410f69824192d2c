use serde_json::{Value, json};
use tercel_text::grammar::Grammar;

use crate::testing::{chaotic, engine, engine_that_guesses, engine_with_template, says};
use crate::{Engine, Error, Message, Reply, Request, StopReason};

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 6},
            "kind": {"enum": ["cat", "dog"]},
            "legs": {"type": "integer", "minimum": 0, "maximum": 8},
        },
        "required": ["name", "kind", "legs"],
        "additionalProperties": false,
    })
}

fn ask(grammar: Grammar, seed: u64) -> Request {
    Request::prompt("x")
        .constrained(grammar)
        .temperature(1.0)
        .seed(seed)
        .max_new_tokens(200)
}

fn reply(engine: &Engine, request: Request) -> Reply {
    engine.generate(request).expect("a reply")
}

#[test]
fn replies_are_what_was_asked_for_to_their_end() {
    let (engine, _) = engine(2_000, chaotic);
    for seed in 0..20 {
        let json = reply(&engine, ask(Grammar::JsonSchema(schema()), seed));
        assert_eq!(json.stop_reason, StopReason::Eos, "{}", json.text);
        let value: Value = serde_json::from_str(&json.text).expect("JSON");
        let name = value["name"].as_str().expect("a name").chars().count();
        assert!((1..=6).contains(&name), "{}", json.text);
        assert!(["cat", "dog"].contains(&value["kind"].as_str().expect("a kind")));
        assert!(
            value["legs"].as_u64().expect("a number") <= 8,
            "{}",
            json.text
        );

        let digits = reply(
            &engine,
            ask(Grammar::Regex("[0-9]{3}-[0-9]{2}".into()), seed),
        );
        assert_eq!((digits.text.len(), &digits.text[3..4]), (6, "-"));
        assert_eq!(digits.stop_reason, StopReason::Eos);

        let list = "root ::= \"[\" item (\",\" item){0,3} \"]\"\nitem ::= [a-c] | \"(\" item \")\"";
        let list = reply(&engine, ask(Grammar::of(list), seed)).text;
        assert!(list.starts_with('[') && list.ends_with(']'), "{list}");
    }
}

#[test]
fn what_must_come_takes_no_pass() {
    let (engine, steps) = engine(2_000, chaotic);
    let only = "start: \"forty-two and then some, \" /[0-9]/";
    let reply = reply(&engine, ask(Grammar::Lark(only.into()), 1));
    assert_eq!(reply.text.len(), 26, "{}", reply.text);
    // The prompt, what must come in chunks, and the digit.
    let passes = steps.lock().expect("no panic").len();
    assert!(
        passes <= 10,
        "{passes} passes for {} tokens",
        reply.tokens.len()
    );
}

#[test]
fn neither_company_nor_guesses_change_a_reply() {
    let texts = |engine: &Engine| -> Vec<String> {
        let streams: Vec<_> = (0..4)
            .map(|seed| {
                let request = ask(Grammar::JsonSchema(schema()), seed);
                engine.stream(request).expect("accepted")
            })
            .collect();
        streams
            .into_iter()
            .map(|it| it.wait().expect("a reply").text)
            .collect()
    };
    let (alone, _) = engine(2_000, chaotic);
    let expected: Vec<String> = (0..4)
        .map(|seed| reply(&alone, ask(Grammar::JsonSchema(schema()), seed)).text)
        .collect();
    assert_eq!(texts(&alone), expected);
    let (guessing, _) = engine_that_guesses(2_000, chaotic);
    assert_eq!(texts(&guessing), expected);
    assert_eq!(texts(&guessing), expected, "with what was learnt");
}

/// A template that marks thoughts, and begins one or not.
fn thinking_template(begins: bool) -> String {
    let begin = if begins { "<think>" } else { "" };
    format!("{{# </think> #}}{{{{ messages[0].content }}}}{begin}")
}

#[test]
fn a_thought_is_free_and_the_answer_is_not() {
    let digits = Grammar::Regex("[0-9]{2}".into());
    let ask = || {
        let request = Request::chat(vec![Message::user("q")]).constrained(digits.clone());
        request.temperature(0.0).max_new_tokens(60)
    };
    let template = thinking_template(true);
    let (engine, _) = engine_with_template(&template, 400, 4, says(8, "well, I</think>no"));
    let answered = reply(&engine, ask());
    assert_eq!(answered.thinking.as_deref(), Some("well, I"));
    assert_eq!(
        (answered.text.len(), answered.stop_reason),
        (2, StopReason::Eos)
    );
    assert!(
        answered.text.bytes().all(|it| it.is_ascii_digit()),
        "{}",
        answered.text
    );

    // One that does not come to its end is ended.
    let (engine, _) = engine_with_template(&template, 400, 4, says(8, &"so ".repeat(200)));
    let answered = reply(&engine, ask().max_thinking_tokens(9));
    assert_eq!(answered.thinking.as_deref(), Some("so so so "));
    assert_eq!(
        (answered.text.len(), answered.stop_reason),
        (2, StopReason::Eos)
    );

    // An end is none before there was an answer.
    let (engine, _) = engine_with_template(&template, 400, 4, says(8, "hm"));
    let answered = reply(&engine, ask().max_thinking_tokens(20));
    assert_eq!(
        (answered.text.len(), answered.stop_reason),
        (2, StopReason::Eos)
    );

    // Without one at hand, the answer comes at once.
    let template = thinking_template(false);
    let (engine, _) = engine_with_template(&template, 400, 4, says(1, "abc"));
    let answered = reply(&engine, ask());
    assert_eq!((answered.thinking, answered.text.len()), (None, 2));
}

#[test]
fn an_end_by_length_says_so() {
    let (engine, _) = engine(2_000, chaotic);
    let cut = reply(
        &engine,
        ask(Grammar::JsonSchema(schema()), 0).max_new_tokens(5),
    );
    assert_eq!(cut.stop_reason, StopReason::MaxNewTokens);
    assert_eq!(cut.tokens.len(), 5);
    assert!(serde_json::from_str::<Value>(&cut.text).is_err());
}

#[test]
fn what_cannot_be_kept_to_is_refused_before_anything_runs() {
    let (engine, steps) = engine(2_000, chaotic);
    let refused = |request: Request| match engine.generate(request) {
        Err(error) => (error.kind(), error.to_string()),
        Ok(reply) => panic!("{}", reply.text),
    };
    for (grammar, part) in [
        (Grammar::Regex("(".into()), "regular expression"),
        (Grammar::of("start: other"), "other"),
        (Grammar::JsonSchema(json!({"not": {}})), "not"),
    ] {
        let (kind, message) = refused(ask(grammar, 0));
        assert_eq!(kind, "invalid_grammar");
        assert!(message.contains(part), "{message}");
    }
    let (kind, _) = refused(ask(Grammar::Json, 0).ignore_eos(true));
    assert_eq!(kind, "invalid_parameter");
    assert!(steps.lock().expect("no panic").is_empty());
}

#[test]
fn a_constrained_reply_is_cancelled_like_any() {
    let (engine, _) = engine(20_000, chaotic);
    let endless = Request::prompt("x").regex("[a-z]*").max_new_tokens(10_000);
    let mut stream = engine.stream(endless).expect("accepted");
    stream.by_ref().take(5).for_each(drop);
    stream.cancel();
    let reply = stream.wait();
    assert!(
        matches!(&reply, Ok(reply) if reply.stop_reason == StopReason::Cancelled)
            || matches!(reply, Err(Error::EngineClosed)),
        "{reply:?}"
    );
    let next = engine.generate(Request::prompt("x").regex("[a-z]{4}"));
    assert_eq!(next.expect("a reply").text.len(), 4);
}
