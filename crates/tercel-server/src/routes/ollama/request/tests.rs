use std::time::Duration;

use serde_json::json;

use super::*;
use crate::body;

fn chat(changes: &Value, config: &Config) -> Result<Asked, ApiError> {
    let mut request = json!({"model": "m", "messages": [{"role": "user", "content": "a"}]});
    merge(&mut request, changes);
    body::parse::<ChatRequest>(request.to_string().as_bytes(), 16)?.read(config)
}

fn generate(changes: &Value, config: &Config) -> Result<Asked, ApiError> {
    let mut request = json!({"model": "m", "prompt": "a"});
    merge(&mut request, changes);
    body::parse::<GenerateRequest>(request.to_string().as_bytes(), 16)?.read(config)
}

fn merge(request: &mut Value, changes: &Value) {
    for (name, value) in changes.as_object().into_iter().flatten() {
        request[name] = value.clone();
    }
}

fn question(asked: Result<Asked, ApiError>) -> Question {
    match asked {
        Ok(Asked::Question(question)) => *question,
        other => unreachable!("{other:?}"),
    }
}

#[test]
fn calls_and_results_become_messages() {
    let call = json!({"function": {"name": "add", "arguments": {"a": 1}}});
    let request = json!({
        "model": "m",
        "tools": [{"type": "function", "function": {"name": "add"}}],
        "messages": [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": "3", "tool_name": "add"},
        ],
    });
    let request: ChatRequest = body::parse(request.to_string().as_bytes(), 32).unwrap();
    let Asked::Question(question) = request.read(&Config::default()).unwrap() else {
        panic!("a question");
    };
    let call = ToolCall::new("add", json!({"a": 1}));
    let messages = vec![
        Message::user("q"),
        Message::assistant("").with_tool_call(call),
        Message::tool("3").with_name("add"),
    ];
    assert_eq!(question.ask.input, Input::Chat(messages));
    assert_eq!(question.ask.tools.list[0].name, "add");
}

#[test]
fn a_chat_becomes_a_question() {
    let config = Config::default();
    let asked = question(chat(&json!({}), &config));
    assert_eq!(asked.ask.input, Input::Chat(vec![Message::user("a")]));
    assert!(asked.is_streamed);
    assert_eq!(asked.adjustments, Vec::<String>::new());

    let asked = question(chat(
        &json!({
            "messages": [
                {"role": "system", "content": "s"},
                {"role": "user", "content": "a", "images": []},
                {"role": "assistant", "content": "b", "thinking": "hm", "tool_calls": []},
                {"role": "user"},
            ],
            "stream": false, "think": "high", "keep_alive": "5m", "truncate": true,
            "format": "", "tools": [], "options": {"seed": 3, "num_ctx": 512},
            "logprobs": true, "top_logprobs": 2, "shift": false,
        }),
        &config,
    ));
    let expected = vec![
        Message::system("s"),
        Message::user("a"),
        Message::assistant("b").with_reasoning("hm"),
        Message::user(""),
    ];
    assert_eq!(asked.ask.input, Input::Chat(expected));
    assert!(!asked.is_streamed);
    assert_eq!(asked.num_ctx, Some(512));
    assert_eq!(asked.ask.logprobs, Some(2));
    let sampling = &asked.ask.sampling;
    assert_eq!(
        (sampling.seed, sampling.thinking),
        (Some(3), Some(Thinking::On))
    );
    assert_eq!(
        sampling.context_overflow,
        Some(ContextOverflow::DropOldestTurns)
    );
    let told: Vec<&str> = asked
        .adjustments
        .iter()
        .filter_map(|it| it.split(':').next())
        .collect();
    assert_eq!(told, ["keep_alive", "think"]);
}

#[test]
fn a_prompt_becomes_a_question() {
    let config = Config::default();
    let raw = question(generate(&json!({"raw": true}), &config));
    assert_eq!(raw.ask.input, Input::Text("a".to_owned()));
    assert_eq!(raw.without_template, None);
    let plain = question(generate(&json!({"suffix": "", "context": []}), &config));
    assert_eq!(plain.ask.input, Input::Chat(vec![Message::user("a")]));
    assert_eq!(plain.without_template.as_deref(), Some("a"));
    let changes = json!({"system": "s", "template": "{{ messages }}", "think": false});
    let full = question(generate(&changes, &config));
    let expected = vec![Message::system("s"), Message::user("a")];
    assert_eq!(full.ask.input, Input::Chat(expected));
    assert_eq!(full.ask.template.as_deref(), Some("{{ messages }}"));
    assert_eq!(full.without_template, None);
    assert_eq!(full.ask.sampling.thinking, Some(Thinking::Off));
}

#[test]
fn to_ask_nothing_loads_and_unloads() {
    let config = Config::default();
    for (changes, is_wanted_then, notes) in [
        (json!({}), true, 0),
        (json!({"keep_alive": 0}), false, 0),
        (json!({"keep_alive": "0s"}), false, 0),
        (json!({"keep_alive": -1}), true, 0),
        (json!({"keep_alive": "10m"}), true, 1),
    ] {
        let mut of_chat = changes.clone();
        of_chat["messages"] = json!([]);
        let mut of_generate = changes.clone();
        of_generate["prompt"] = json!("");
        for asked in [chat(&of_chat, &config), generate(&of_generate, &config)] {
            let Ok(Asked::Presence {
                is_wanted,
                adjustments,
                ..
            }) = asked
            else {
                unreachable!("{changes}: {asked:?}");
            };
            assert_eq!(
                (is_wanted, adjustments.len()),
                (is_wanted_then, notes),
                "{changes}"
            );
        }
    }
    let config = Config {
        idle_ttl: Some(Duration::from_secs(600)),
        ..Config::default()
    };
    let asked = question(chat(&json!({"keep_alive": "10m"}), &config));
    assert_eq!(asked.adjustments, Vec::<String>::new());
}

#[test]
fn refusals_name_the_field() {
    let config = Config::default();
    let unsupported = "unsupported_parameter";
    let message = |field: &str, value: Value| {
        let mut message = json!({"role": "user", "content": "a"});
        message[field] = value;
        json!({"messages": [message]})
    };
    for (changes, code, param) in [
        (
            json!({"tools": [{"type": "other", "function": {"name": "f"}}]}),
            unsupported,
            "tools[0].type",
        ),
        (json!({"format": "xml"}), "invalid_parameter", "format"),
        (json!({"format": [1]}), "invalid_parameter", "format"),
        (json!({"shift": true}), unsupported, "shift"),
        (
            json!({"keep_alive": "soon"}),
            "invalid_parameter",
            "keep_alive",
        ),
        (json!({"keep_alive": true}), "invalid_request", "keep_alive"),
        (json!({"think": "hard"}), "invalid_parameter", "think"),
        (json!({"think": 3}), "invalid_request", "think"),
        (
            json!({"top_logprobs": 2}),
            "invalid_parameter",
            "top_logprobs",
        ),
        (
            json!({"logprobs": true, "top_logprobs": 21}),
            "invalid_parameter",
            "top_logprobs",
        ),
        (
            json!({"options": {"num_gpu": 1}}),
            unsupported,
            "options.num_gpu",
        ),
        (json!({"other": 1}), "invalid_request", "other"),
        (json!({"model": null}), "invalid_request", "model"),
        (
            message("images", json!(["aa"])),
            unsupported,
            "messages[0].images",
        ),
        (
            message("tool_calls", json!([{}])),
            "invalid_request",
            "messages[0].tool_calls[0]",
        ),
        (
            message(
                "tool_calls",
                json!([{"function": {"name": "f", "arguments": {}}}]),
            ),
            "invalid_parameter",
            "messages[0].tool_calls[0]",
        ),
        (
            message("role", json!("robot")),
            "invalid_role",
            "messages[0].role",
        ),
        (message("role", json!("assistant")), unsupported, "messages"),
        (
            message("content", json!(3)),
            "invalid_request",
            "messages[0].content",
        ),
    ] {
        let error = chat(&changes, &config).unwrap_err();
        let found = (error.code, error.param.as_deref());
        assert_eq!(found, (code, Some(param)), "{changes}: {}", error.message);
    }
    for (changes, code, param) in [
        (json!({"suffix": "x"}), unsupported, "suffix"),
        (json!({"images": ["x"]}), unsupported, "images"),
        (json!({"context": [1]}), unsupported, "context"),
        (json!({"raw": true, "system": "s"}), unsupported, "system"),
        (
            json!({"raw": true, "template": "t"}),
            unsupported,
            "template",
        ),
        (json!({"width": 3}), "invalid_request", "width"),
    ] {
        let error = generate(&changes, &config).unwrap_err();
        let found = (error.code, error.param.as_deref());
        assert_eq!(found, (code, Some(param)), "{changes}: {}", error.message);
    }
    let mut config = Config::default();
    config.guard.output = true;
    let error = chat(&json!({"logprobs": true}), &config).unwrap_err();
    assert_eq!(
        (error.code, error.param.as_deref()),
        (unsupported, Some("logprobs"))
    );
}
