use serde_json::{Value, json};

use super::*;
use crate::body;

fn parse(body: &Value) -> Result<(Ask, Delivery), ApiError> {
    body::parse::<ChatRequest>(body.to_string().as_bytes(), 64)?.check()
}

#[test]
fn a_prompt_is_all_that_is_needed() {
    let (ask, delivery) = parse(&json!({"prompt": "Hi"})).unwrap();
    assert_eq!(ask.input, Input::Chat(vec![Message::user("Hi")]));
    assert_eq!(ask.sampling.max_new_tokens, Some(128));
    assert_eq!(
        (ask.model, ask.deadline, ask.sampling.temperature),
        (None, None, None)
    );
    assert_eq!(delivery, Delivery::Whole);
}

#[test]
fn every_field_reaches_the_question() {
    let (ask, delivery) = parse(&json!({
        "model": "small", "system": "Be brief.",
        "messages": [
            {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"},
            {"role": "tool", "content": "3", "name": "add"},
        ],
        "max_new_tokens": 256, "temperature": 0.5, "top_p": 1, "seed": u64::MAX,
        "stop": ["a", "b"], "context_overflow": "drop_oldest_turns", "deadline_ms": 200,
        "stream": true, "drop_policy": "coalesce", "queue_capacity": 16,
    }))
    .unwrap();
    let messages = vec![
        Message::system("Be brief."),
        Message::user("Hi"),
        Message::assistant("Hello"),
        Message::tool("3").with_name("add"),
    ];
    assert_eq!(ask.input, Input::Chat(messages));
    assert_eq!(ask.model.as_deref(), Some("small"));
    assert_eq!(ask.deadline, Some(Duration::from_millis(200)));
    let sampling = &ask.sampling;
    assert_eq!(sampling.max_new_tokens, Some(256));
    assert_eq!(
        (sampling.temperature, sampling.top_p),
        (Some(0.5), Some(1.0))
    );
    assert_eq!(sampling.seed, Some(u64::MAX));
    assert_eq!(sampling.stop, ["a", "b"]);
    assert_eq!(
        sampling.context_overflow,
        Some(ContextOverflow::DropOldestTurns)
    );
    assert_eq!(delivery, Delivery::Dropping(Drops::Coalesce, 16));
}

#[test]
fn streams_wait_unless_a_policy_drops() {
    for (policy, delivery) in [
        (json!(null), Delivery::Paced),
        (json!("pause"), Delivery::Paced),
        (json!("drop_oldest"), Delivery::Dropping(Drops::Oldest, 32)),
        (json!("drop_newest"), Delivery::Dropping(Drops::Newest, 32)),
        (json!("coalesce"), Delivery::Dropping(Drops::Coalesce, 32)),
    ] {
        let body = json!({"prompt": "Hi", "stop": "x", "stream": true, "drop_policy": policy});
        assert_eq!(parse(&body).unwrap().1, delivery);
    }
}

#[test]
fn what_is_wrong_is_refused_by_name() {
    let long = "a".repeat(4001);
    let cases = [
        (json!({}), "invalid_request", "prompt", "is missing"),
        (json!({"prompt": ""}), "empty_prompt", "prompt", "empty"),
        (json!({"prompt": " \n"}), "empty_prompt", "prompt", "empty"),
        (
            json!({"prompt": long}),
            "input_too_large",
            "prompt",
            "Prompt too long",
        ),
        (
            json!({"messages": []}),
            "empty_messages",
            "messages",
            "no messages",
        ),
        (
            json!({"prompt": "a", "messages": [{"role": "user", "content": "a"}]}),
            "invalid_request",
            "messages",
            "not both",
        ),
        (
            json!({"messages": [{"role": "user", "content": "a"}, {"role": "x", "content": ""}]}),
            "invalid_role",
            "messages[1].role",
            "`x`",
        ),
        (
            json!({"system": "a", "messages": [{"role": "system", "content": "a"}]}),
            "invalid_request",
            "system",
            "not both",
        ),
        (
            json!({"prompt": "a", "max_new_tokens": 0}),
            "invalid_parameter",
            "max_new_tokens",
            "max_new_tokens out of range",
        ),
        (
            json!({"prompt": "a", "max_new_tokens": 257}),
            "invalid_parameter",
            "max_new_tokens",
            "max_new_tokens out of range",
        ),
        (
            json!({"prompt": "a", "max_new_tokens": -1}),
            "invalid_parameter",
            "max_new_tokens",
            "max_new_tokens out of range",
        ),
        (
            json!({"prompt": "a", "max_new_tokens": true}),
            "invalid_request",
            "max_new_tokens",
            "boolean",
        ),
        (
            json!({"prompt": "a", "stop": 3}),
            "invalid_request",
            "stop",
            "a list of strings",
        ),
        (
            json!({"prompt": "a", "deadline_ms": 0}),
            "invalid_parameter",
            "deadline_ms",
            "is 0",
        ),
        (
            json!({"prompt": "a", "context_overflow": "cut"}),
            "invalid_request",
            "context_overflow",
            "drop_oldest_turns",
        ),
        (
            json!({"prompt": "a", "stream": true, "drop_policy": "drop_all"}),
            "invalid_request",
            "drop_policy",
            "drop_oldest",
        ),
        (
            json!({"prompt": "a", "drop_policy": "drop_oldest"}),
            "unsupported_parameter",
            "drop_policy",
            "`stream`",
        ),
        (
            json!({"prompt": "a", "stream": true, "queue_capacity": 16}),
            "unsupported_parameter",
            "queue_capacity",
            "drop_policy",
        ),
        (
            json!({"prompt": "a", "stream": true, "drop_policy": "coalesce",
                "queue_capacity": 15}),
            "invalid_parameter",
            "queue_capacity",
            "16 to 64",
        ),
        (
            json!({"prompt": "a", "top_k": 1}),
            "invalid_request",
            "top_k",
            "unknown field",
        ),
    ];
    for (body, code, param, part) in cases {
        let error = parse(&body).unwrap_err();
        assert_eq!((error.status.as_u16(), error.code), (400, code), "{body}");
        assert_eq!(error.param.as_deref(), Some(param), "{body}");
        assert!(error.message.contains(part), "{body}: {}", error.message);
    }
}
