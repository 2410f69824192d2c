//! The shapes of the JSON face, and its errors, on models made of closures.

use serde_json::{Value, json};

use super::*;
use crate::testing::{chaotic, engine, says};

/// `m` answers "hi" with "hello"; `endless` says anything and never ends.
fn api() -> JsonApi {
    let host = Host::builder()
        .model("m", ModelSpec::made_by(|| engine(1000, says(7, "hello")).0))
        .model("endless", ModelSpec::made_by(|| engine(1000, chaotic).0))
        .build();
    JsonApi::new(host.expect("a host"))
}

/// As text, with times replaced: what a snapshot can be compared with.
fn steady(value: &Value) -> String {
    fn settle(value: &mut Value) {
        match value {
            Value::Number(number) if number.is_f64() => *value = json!("time"),
            Value::Array(list) => list.iter_mut().for_each(settle),
            Value::Object(map) => map.values_mut().for_each(settle),
            _ => {}
        }
    }
    let mut value = value.clone();
    settle(&mut value);
    value.to_string()
}

fn endless() -> Value {
    json!({"model_name": "endless", "prompt": "x", "max_new_tokens": 900, "stream_id": "s"})
}

#[test]
fn infer_gives_a_list_of_one_result() {
    let expected = r#"[{"text":"hello","prompt_tokens":7,"generated_tokens":6,"#.to_owned()
        + r#""prefill_seconds":"time","decode_seconds":"time","tokens_per_second":"time","#
        + r#""time_to_first_token":"time","total_seconds":"time","stop_reason":"eos"}]"#;
    let api = api();
    for params in [
        json!({"model_name": "m", "prompt": "hi"}),
        json!({"model_name": "m", "messages": [{"role": "user", "content": "hi"}]}),
        json!({"model_name": "m", "inputs": {"prompt": "hi", "enable_thinking": true}}),
        json!({"model_name": "m", "inputs": [{"prompt": "hi", "temperature": 0, "top_k": 1}]}),
    ] {
        assert_eq!(
            steady(&api.call("infer", params).expect("a reply")),
            expected
        );
    }
    // Each call stands alone: nothing of the last one is in the prompt.
    let limited = json!({"model_name": "m", "prompt": "hi", "max_new_tokens": 2, "seed": 7});
    let reply = api.call("infer", limited).expect("a reply");
    assert_eq!(reply[0]["prompt_tokens"], 7);
    assert_eq!(
        (&reply[0]["text"], &reply[0]["stop_reason"]),
        (&json!("he"), &json!("max_new_tokens"))
    );
    let stopped = json!({"model_name": "m", "prompt": "hi", "stop_sequences": ["ll"]});
    let reply = api.call("infer", stopped).expect("a reply");
    assert_eq!(
        (&reply[0]["text"], &reply[0]["stop_reason"]),
        (&json!("he"), &json!("stop_sequence"))
    );
}

#[test]
fn a_system_prompt_stands_before_the_prompt_or_the_messages() {
    let api = api();
    // "s:be\n" are five tokens more.
    for params in [
        json!({"model_name": "m", "prompt": "hi", "system_prompt": "be"}),
        json!({"model_name": "m", "system_prompt": "be",
               "messages": [{"role": "user", "content": "hi"}]}),
        json!({"model_name": "m", "messages": [{"role": "system", "content": "be"},
                                               {"role": "user", "content": "hi"}]}),
    ] {
        let reply = api.call("infer", params).expect("a reply");
        assert_eq!(reply[0]["prompt_tokens"], 12);
    }
}

#[test]
fn a_stream_gives_text_and_then_its_end() {
    let api = api();
    let stream = api.infer_stream(json!({"model_name": "m", "prompt": "hi"}));
    let stream = stream.expect("it starts");
    assert_eq!(stream.stream_id(), "stream-1");
    let chunks: Vec<String> = stream
        .map(|chunk| steady(&chunk.expect("a chunk")))
        .collect();
    let text = |index, delta| {
        format!(r#"{{"kind":"text","index":{index},"is_final":false,"delta":"{delta}"}}"#)
    };
    let last = r#"{"kind":"text","index":5,"is_final":true,"time_to_first_token":"time","#
        .to_owned()
        + r#""prompt_tokens":7,"generated_tokens":6,"tokens_per_second":"time","#
        + r#""total_seconds":"time","stop_reason":"eos"}"#;
    let pieces = ["h", "e", "l", "l", "o"].into_iter().enumerate();
    let mut expected: Vec<String> = pieces.map(|(i, piece)| text(i, piece)).collect();
    expected.push(last);
    assert_eq!(chunks, expected);
}

#[test]
fn a_stream_that_is_stopped_says_so() {
    let api = api();
    let mut stream = api.infer_stream(endless()).expect("it starts");
    let first = stream.next().expect("a chunk").expect("text");
    assert_eq!(
        (&first["kind"], &first["index"]),
        (&json!("text"), &json!(0))
    );
    let error = api.infer_stream(endless()).expect_err("the id is taken");
    assert_eq!(
        (&error["code"], &error["param"]),
        (&json!("invalid_parameter"), &json!("stream_id"))
    );

    let stopped = api
        .call("stop_stream", json!({"stream_id": "s"}))
        .expect("it runs");
    assert_eq!(stopped, json!({"stream_id": "s"}));
    let last = stream.last().expect("a chunk").expect("the end");
    let keys: Vec<&String> = last.as_object().expect("an object").keys().collect();
    let expected = "kind index is_final time_to_first_token prompt_tokens generated_tokens \
                    tokens_per_second total_seconds stop_reason";
    assert_eq!(keys, expected.split(' ').collect::<Vec<_>>());
    assert_eq!(
        (
            &last["kind"],
            &last["index"],
            &last["is_final"],
            &last["stop_reason"]
        ),
        (
            &json!("cancelled"),
            &json!(-1),
            &json!(true),
            &json!("cancelled")
        )
    );
    // It is forgotten, and its id is free.
    let error = api
        .call("stop_stream", json!({"stream_id": "s"}))
        .expect_err("it is over");
    assert_eq!(error["code"], "stream_not_found");
    drop(api.infer_stream(endless()).expect("it starts"));
    let error = api
        .call("stop_stream", json!({"stream_id": "s"}))
        .expect_err("it was dropped");
    assert_eq!(error["code"], "stream_not_found");
}

#[test]
fn a_model_that_is_stopped_ends_its_streams_though_nobody_reads_them() {
    let api = api();
    let stream = api.infer_stream(endless()).expect("it starts");
    let stopped = api
        .call("stop_model", json!({"model_name": "endless"}))
        .expect("it goes");
    let expected = r#"{"model_name":"endless","model_type":"llm","status":"stopped"}"#;
    assert_eq!(stopped.to_string(), expected);
    let last = stream.last().expect("a chunk").expect("the end");
    assert_eq!(last["kind"], "cancelled");
    let error = api.infer_stream(endless()).expect_err("it is gone");
    assert_eq!(
        error,
        json!({
            "code": "model_not_found",
            "sdk_error": "unknownModel",
            "message": "no model `endless` here (there are: m)",
            "param": "model_name",
            "hint": "start it with `start_model`",
        })
    );
}

#[test]
fn models_are_listed_with_their_states() {
    let api = api();
    let call = |method, params| api.call(method, params).expect(method);
    assert_eq!(call("is_loaded", json!({"model_name": "m"})), json!(false));
    call("infer", json!({"model_name": "m", "prompt": "hi"}));
    assert_eq!(call("is_loaded", json!({"model_name": "m"})), json!(true));
    let listed = |name: &str, status: &str, phases: &str| {
        format!(r#"{{"model_name":"{name}","model_type":"llm","status":"{status}","running":0,"#)
            + &format!(r#""footprint_mb":"time","load_report":{{"phases":[{phases}]}}}}"#)
    };
    let phase = r#"{"name":"warm_up","started_at_ms":"time","elapsed_ms":"time"}"#;
    let expected = [
        listed("endless", "uninitialized", ""),
        listed("m", "ready", phase),
    ];
    assert_eq!(
        steady(&call("list", json!(null))),
        format!("[{}]", expected.join(","))
    );

    for params in [json!({}), json!({"model_name": "m"})] {
        let footprint = call("memory_footprint", params);
        let keys: Vec<&String> = footprint.as_object().expect("an object").keys().collect();
        assert_eq!(keys, ["footprint_mb", "resident_mb"]);
    }
    assert_eq!(call("initialize", json!({"api_token": "any"})), json!(true));
    assert_eq!(call("is_initialized", json!({})), json!(true));
}

#[test]
fn mistakes_are_named() {
    let api = api();
    let m = |more: Value| {
        let mut params = json!({"model_name": "m"});
        let map = params.as_object_mut().expect("an object");
        map.extend(more.as_object().expect("an object").clone());
        params
    };
    for (method, params, code, part) in [
        (
            "sing",
            json!({}),
            "unknown_method",
            "unknown method `sing` (known: initialize,",
        ),
        (
            "infer",
            json!([]),
            "invalid_request",
            "params must be an object",
        ),
        (
            "infer",
            json!({}),
            "invalid_parameter",
            "`model_name` is missing",
        ),
        (
            "infer",
            json!({"model_name": 1}),
            "invalid_parameter",
            "`model_name` is 1",
        ),
        (
            "infer",
            json!({"model_name": "x", "prompt": "hi"}),
            "model_not_found",
            "no model `x`",
        ),
        (
            "infer",
            m(json!({})),
            "invalid_parameter",
            "`prompt` is missing",
        ),
        (
            "infer",
            m(json!({"prompt": 1})),
            "invalid_parameter",
            "`prompt` is 1, must be a string",
        ),
        (
            "infer",
            m(json!({"prompt": "a", "top_q": 1})),
            "invalid_parameter",
            "parameter `top_q`",
        ),
        (
            "infer",
            m(json!({"inputs": {"prompt": "a", "q": 1}})),
            "invalid_parameter",
            "`inputs.q`",
        ),
        (
            "infer",
            m(json!({"inputs": []})),
            "invalid_parameter",
            "exactly one request",
        ),
        (
            "infer",
            m(json!({"prompt": "a", "messages": []})),
            "invalid_parameter",
            "exclude",
        ),
        (
            "infer",
            m(json!({"messages": {}})),
            "invalid_parameter",
            "a list of messages",
        ),
        (
            "infer",
            m(json!({"messages": []})),
            "empty_messages",
            "no messages",
        ),
        (
            "infer",
            m(json!({"messages": [{}]})),
            "invalid_parameter",
            "`messages[0]` has no role",
        ),
        (
            "infer",
            m(json!({"messages": [{"role": "king"}]})),
            "invalid_role",
            "role `king`",
        ),
        (
            "infer",
            m(json!({"messages": [{"role": "user", "content": 5}]})),
            "invalid_parameter",
            "`messages[0]` is no message",
        ),
        (
            "infer",
            m(json!({"system_prompt": "a", "messages": [{"role": "system", "content": "b"}]})),
            "invalid_parameter",
            "is given twice",
        ),
        (
            "infer",
            m(json!({"prompt": ""})),
            "empty_prompt",
            "the prompt is empty",
        ),
        (
            "infer",
            m(json!({"prompt": "a", "temperature": 3})),
            "invalid_parameter",
            "`temperature` is 3, must be 0 to 2",
        ),
        (
            "infer",
            m(json!({"prompt": "a", "temperature": "hot"})),
            "invalid_parameter",
            "`temperature` is a string, must be a number",
        ),
        (
            "infer",
            m(json!({"prompt": "a", "stop": "x", "stop_sequences": "y"})),
            "invalid_parameter",
            "two names of one thing",
        ),
        (
            "infer",
            m(json!({"prompt": "x".repeat(2000)})),
            "context_overflow",
            "2005 tokens",
        ),
        (
            "infer_stream",
            m(json!({"prompt": "a"})),
            "stream_required",
            "more than one value",
        ),
        (
            "stop_stream",
            json!({"stream_id": "x"}),
            "stream_not_found",
            "no stream `x`",
        ),
        (
            "stop_model",
            json!({"model_name": "x"}),
            "model_not_found",
            "no model `x`",
        ),
        (
            "reset_model",
            json!({"model_name": "x"}),
            "model_not_found",
            "no model `x`",
        ),
        (
            "list",
            json!({"all": true}),
            "invalid_parameter",
            "unknown parameter `all`",
        ),
        (
            "memory_footprint",
            json!({"model_name": "x"}),
            "model_not_found",
            "no model `x`",
        ),
    ] {
        let error = api.call(method, params.clone()).expect_err("a mistake");
        let message = error["message"].as_str().expect("a message");
        assert_eq!(error["code"], code, "{method} {params}: {error}");
        assert!(message.contains(part), "{method} {params}: {message}");
    }
    let error = api
        .infer_stream(m(json!({"prompt": "a", "top_p": 7})))
        .expect_err("a mistake");
    assert_eq!(
        error,
        json!({
            "code": "invalid_parameter",
            "message": "`top_p` is 7, must be above 0, up to 1",
            "param": "top_p",
        })
    );
}
