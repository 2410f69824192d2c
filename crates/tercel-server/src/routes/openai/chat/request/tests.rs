use serde_json::json;
use tercel::{ContextOverflow, Message, Tool, ToolChoice};

use super::*;
use crate::body::parse;
use crate::work::ToolsAsked;

/// A request with these fields beside its messages.
fn check(fields: &Value) -> Result<Checked, ApiError> {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
    let fields = fields.as_object().unwrap();
    body.as_object_mut().unwrap().extend(fields.clone());
    let request: ChatRequest = parse(body.to_string().as_bytes(), 32)?;
    request.check(&Limits::default())
}

#[test]
fn every_field_reaches_the_model() {
    let checked = check(&json!({
        "max_completion_tokens": 9, "temperature": 0, "top_p": 0.5, "top_k": 3, "min_p": 0.1,
        "repetition_penalty": 1.1, "repetition_window": 8, "presence_penalty": -1,
        "frequency_penalty": 2, "logit_bias": {"5": -100}, "seed": -1, "stop": "a",
        "ignore_eos": true, "context_overflow": "sliding_window", "reserve_tokens": 4,
        "keep_first_tokens": 0, "priority": -3, "deadline_ms": 1500, "n": 2, "stream": true,
        "stream_options": {"include_usage": true}, "logprobs": true, "top_logprobs": 20,
        "max_thinking_tokens": 7, "min_answer_tokens": 5, "reasoning_effort": "none",
    }))
    .unwrap();
    assert_eq!(
        (checked.choices, checked.stream, checked.include_usage),
        (2, true, true)
    );
    let (ask, set) = (&checked.ask, &checked.ask.sampling);
    assert_eq!(ask.model.as_deref(), Some("m"));
    assert_eq!(ask.input, Input::Chat(vec![Message::user("hi")]));
    assert_eq!((ask.logprobs, ask.priority), (Some(20), -3));
    assert_eq!(ask.deadline, Some(std::time::Duration::from_millis(1500)));
    assert_eq!(
        (set.max_new_tokens, set.temperature, set.top_k),
        (Some(9), Some(0.0), Some(3))
    );
    assert_eq!((set.top_p, set.min_p), (Some(0.5), Some(0.1)));
    assert_eq!(
        (set.repetition_penalty, set.repetition_window),
        (Some(1.1), Some(8))
    );
    assert_eq!(
        (set.presence_penalty, set.frequency_penalty),
        (Some(-1.0), Some(2.0))
    );
    assert_eq!(
        (set.seed, &*set.logit_bias),
        (Some(u64::MAX), &[(5, -100.0)][..])
    );
    assert_eq!(
        (&*set.stop, set.ignore_eos),
        (&["a".to_owned()][..], Some(true))
    );
    assert_eq!(set.context_overflow, Some(ContextOverflow::SlidingWindow));
    assert_eq!(
        (set.reserve_tokens, set.keep_first_tokens),
        (Some(4), Some(0))
    );
    assert_eq!(
        (set.max_thinking_tokens, set.min_answer_tokens),
        (Some(7), Some(5))
    );
    assert_eq!(set.thinking, Some(Thinking::Off));
}

#[test]
fn what_is_without_effect_is_taken_and_null_is_nothing() {
    let plain = check(&json!({})).unwrap();
    let checked = check(&json!({
        "user": "u", "metadata": {"a": "b"}, "store": false, "service_tier": "auto",
        "parallel_tool_calls": true, "safety_identifier": "s", "prompt_cache_key": "k",
        "tools": [], "tool_choice": "none", "functions": [], "function_call": "none",
        "modalities": ["text"], "response_format": {"type": "text"}, "verbosity": "medium",
        "logprobs": false, "top_logprobs": 0, "temperature": null, "stop": null, "n": null,
        "stream": null, "stream_options": null, "audio": null, "max_tokens": null,
        "seed": null, "logit_bias": null, "chat_template_kwargs": {},
    }))
    .unwrap();
    assert_eq!(checked.ask.sampling, plain.ask.sampling);
    assert_eq!(
        (checked.choices, checked.stream, checked.ask.logprobs),
        (1, false, None)
    );
}

#[test]
fn tools_reach_the_model() {
    let tool = json!({"type": "function", "function": {"name": "f"}});
    let checked = check(&json!({
        "tools": [tool], "tool_choice": {"type": "function", "function": {"name": "f"}},
        "parallel_tool_calls": false,
    }))
    .unwrap();
    let asked = ToolsAsked {
        list: vec![Tool::new("f", Value::Null)],
        choice: ToolChoice::Named("f".to_owned()),
        is_single: true,
    };
    assert_eq!(checked.ask.tools, asked);
}

#[test]
fn what_is_not_to_be_had_is_refused_by_name() {
    let tool = json!([{"type": "custom", "function": {"name": "f"}}]);
    for (fields, code, param) in [
        (
            json!({"response_format": {"type": "json_schema", "json_schema": {"name": ""}}}),
            "invalid_parameter",
            "response_format.json_schema.name",
        ),
        (
            json!({"tools": tool}),
            "unsupported_parameter",
            "tools[0].type",
        ),
        (
            json!({"tool_choice": "any"}),
            "invalid_parameter",
            "tool_choice",
        ),
        (
            json!({"functions": [{"name": "f"}]}),
            "unsupported_parameter",
            "functions",
        ),
        (
            json!({"modalities": ["text", "audio"]}),
            "unsupported_parameter",
            "modalities",
        ),
        (
            json!({"audio": {"voice": "a"}}),
            "unsupported_parameter",
            "audio",
        ),
        (
            json!({"prediction": {}}),
            "unsupported_parameter",
            "prediction",
        ),
        (
            json!({"web_search_options": {}}),
            "unsupported_parameter",
            "web_search_options",
        ),
        (
            json!({"verbosity": "low"}),
            "unsupported_parameter",
            "verbosity",
        ),
        (json!({"store": true}), "unsupported_parameter", "store"),
        (
            json!({"service_tier": "flex"}),
            "unsupported_parameter",
            "service_tier",
        ),
        (
            json!({"chat_template_kwargs": {"x": 1}}),
            "unsupported_parameter",
            "chat_template_kwargs.x",
        ),
        (
            json!({"chat_template_kwargs": {"enable_thinking": 1}}),
            "invalid_parameter",
            "chat_template_kwargs.enable_thinking",
        ),
        (
            json!({"reasoning_effort": "high", "chat_template_kwargs": {"enable_thinking": false}}),
            "invalid_parameter",
            "chat_template_kwargs.enable_thinking",
        ),
        (
            json!({"reasoning_effort": "some"}),
            "invalid_parameter",
            "reasoning_effort",
        ),
        (json!({"n": 0}), "invalid_parameter", "n"),
        (json!({"n": 9}), "invalid_parameter", "n"),
        (json!({"n": -1}), "invalid_request", "n"),
        (
            json!({"top_logprobs": 5}),
            "invalid_parameter",
            "top_logprobs",
        ),
        (
            json!({"logprobs": true, "top_logprobs": 21}),
            "invalid_parameter",
            "top_logprobs",
        ),
        (
            json!({"stream_options": {"include_usage": true}}),
            "invalid_parameter",
            "stream_options",
        ),
        (json!({"max_tokens": 0}), "invalid_parameter", "max_tokens"),
        (
            json!({"max_completion_tokens": 0}),
            "invalid_parameter",
            "max_completion_tokens",
        ),
        (
            json!({"max_tokens": 1, "max_completion_tokens": 2}),
            "invalid_parameter",
            "max_tokens",
        ),
        (
            json!({"temperature": 2.1}),
            "invalid_parameter",
            "temperature",
        ),
        (
            json!({"temperature": "hot"}),
            "invalid_request",
            "temperature",
        ),
        (json!({"top_p": 0}), "invalid_parameter", "top_p"),
        (json!({"min_p": 1}), "invalid_parameter", "min_p"),
        (
            json!({"presence_penalty": 3}),
            "invalid_parameter",
            "presence_penalty",
        ),
        (
            json!({"repetition_penalty": 0}),
            "invalid_parameter",
            "repetition_penalty",
        ),
        (
            json!({"logit_bias": {"5": 101}}),
            "invalid_parameter",
            "logit_bias",
        ),
        (
            json!({"logit_bias": {"a": 1}}),
            "invalid_parameter",
            "logit_bias",
        ),
        (json!({"seed": 1.5}), "invalid_request", "seed"),
        (json!({"stop": [""]}), "invalid_parameter", "stop"),
        (json!({"stop": vec!["a"; 17]}), "invalid_parameter", "stop"),
        (json!({"stop": ["a", 1]}), "invalid_request", "stop[1]"),
        (
            json!({"context_overflow": "drop"}),
            "invalid_parameter",
            "context_overflow",
        ),
        (
            json!({"deadline_ms": 0}),
            "invalid_parameter",
            "deadline_ms",
        ),
        (json!({"messages": []}), "empty_messages", "messages"),
        (
            json!({"max_new_tokens": 5}),
            "invalid_request",
            "max_new_tokens",
        ),
    ] {
        let error = check(&fields).unwrap_err();
        assert_eq!(
            (error.code, error.param.as_deref()),
            (code, Some(param)),
            "{fields}: {error:?}"
        );
        assert_eq!(
            error.status,
            axum::http::StatusCode::BAD_REQUEST,
            "{fields}"
        );
    }
}

#[test]
fn thoughts_are_turned_on_and_off() {
    for (fields, want) in [
        (json!({}), None),
        (json!({"reasoning_effort": "minimal"}), Some(Thinking::Off)),
        (json!({"reasoning_effort": "high"}), Some(Thinking::On)),
        (
            json!({"chat_template_kwargs": {"enable_thinking": true}}),
            Some(Thinking::On),
        ),
        (
            json!({"reasoning_effort": "none", "chat_template_kwargs": {"enable_thinking": false}}),
            Some(Thinking::Off),
        ),
    ] {
        assert_eq!(
            check(&fields).unwrap().ask.sampling.thinking,
            want,
            "{fields}"
        );
    }
}
