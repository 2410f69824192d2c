//! Hosts and the JSON face on model files, written by the test.

mod tiny;

use std::fs;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tercel::host::{Host, HostError, ModelSpec};
use tercel::json::JsonApi;
use tercel::lifecycle::{State, WarmUp};
use tercel::{Engine, Request};
use tiny::{CONTEXT, TinyModel};

fn spec(model: &TinyModel) -> ModelSpec {
    let name = model.name();
    ModelSpec::new(move || Engine::builder(name.clone()).threads(1))
        .warm_up(WarmUp::new().context_tokens(0))
}

fn request() -> Request {
    Request::prompt("hello")
        .max_new_tokens(12)
        .ignore_eos(true)
        .seed(3)
}

#[test]
fn the_phases_of_a_load_are_timed_and_a_reload_changes_no_token() {
    let model = TinyModel::new(&[]);
    let host = Host::builder()
        .model("m", spec(&model))
        .build()
        .expect("a host");
    assert!(host.load_report("m").expect("known").phases.is_empty());
    let first = host
        .get("m")
        .expect("ready")
        .generate(request())
        .expect("a reply");

    let report = host.load_report("m").expect("known");
    let names: Vec<&str> = report.phases.iter().map(|phase| phase.name).collect();
    let expected = [
        "verify_assets",
        "load_weights",
        "initialize_runtime",
        "allocate_buffers",
        "warm_up",
    ];
    assert_eq!(names, expected);
    let mut end = 0.0;
    for phase in &report.phases {
        assert_eq!(phase.started_at_ms, end, "no gap before {}", phase.name);
        end = phase.started_at_ms + phase.elapsed_ms;
    }
    assert!(report.phase("warm_up").expect("it ran").elapsed_ms > 0.0);
    let json = serde_json::to_value(&report).expect("serializes");
    let keys: Vec<&String> = json["phases"][0]
        .as_object()
        .expect("an object")
        .keys()
        .collect();
    assert_eq!(keys, ["name", "started_at_ms", "elapsed_ms"]);

    let footprint = host.memory_footprint_of("m").expect("known");
    let loaded = host.get("m").expect("ready").info().memory.total_bytes as u64;
    assert_eq!(footprint.footprint_bytes, loaded);
    assert!(loaded > 0);
    host.reload("m").expect("it loads again");
    let again = host
        .get("m")
        .expect("ready")
        .generate(request())
        .expect("a reply");
    assert_eq!(first.tokens, again.tokens);
    host.unload("m").expect("nothing runs");
    assert_eq!(host.memory_footprint().footprint_bytes, 0);
    assert!(!host.is_loaded("m"));
}

#[test]
fn two_models_with_room_for_one_take_turns() {
    let (one, two) = (TinyModel::new(&[]), TinyModel::new(&[]));
    let bytes = one.builder().load().expect("it loads");
    let bytes = bytes.info().memory.total_bytes as u64;
    let host = Host::builder()
        .max_bytes(bytes + bytes / 2)
        .model("one", spec(&one))
        .model("two", spec(&two))
        .build()
        .expect("a host");
    for (name, other) in [("one", "two"), ("two", "one"), ("one", "two")] {
        host.get(name)
            .expect("there is room")
            .generate(request())
            .expect("a reply");
        assert!(host.is_loaded(name) && !host.is_loaded(other));
        assert_eq!(host.memory_footprint().footprint_bytes, bytes);
    }
    let held = host.get("one").expect("ready");
    let error = host.get("two").expect_err("it is in use");
    assert_eq!(error.kind(), "insufficient_memory");
    assert!(error.to_string().contains("the model needs"), "{error}");
    drop(held);
}

#[test]
fn a_file_that_is_repaired_loads_after_a_reset() {
    let model = TinyModel::new(&[]);
    let whole = fs::read(&model.path).expect("read");
    fs::write(&model.path, &whole[..whole.len() - 1]).expect("written");
    let host = Host::builder()
        .model("m", spec(&model))
        .build()
        .expect("a host");
    let error = host.get("m").expect_err("it is damaged");
    assert!(matches!(error, HostError::Failed { .. }));
    assert_eq!(error.kind(), "model_load_failed");
    fs::write(&model.path, &whole).expect("written");
    assert_eq!(
        host.get("m").expect_err("kept").to_string(),
        error.to_string()
    );
    assert_eq!(host.status("m").expect("known").state, State::Failed);
    host.reset("m").expect("known");
    host.get("m").expect("it is whole");
}

/// A JSON face, and what it is told of loads.
fn api() -> (JsonApi, Arc<Mutex<Vec<Value>>>) {
    let told: Arc<Mutex<Vec<Value>>> = Arc::default();
    let sink = Arc::clone(&told);
    let api = JsonApi::new(Host::builder().build().expect("a host"))
        .offline(true)
        .on_progress(move |progress| sink.lock().expect("no panic").push(progress));
    (api, told)
}

#[test]
fn a_model_is_started_asked_and_stopped() {
    let model = TinyModel::new(&[]);
    let (api, told) = api();
    let call = |method, params| api.call(method, params);
    let start = json!({
        "model_name": "m",
        "engines_path": model.name(),
        "device": "cpu",
        "config": {"threads": 1, "sampling": {"ignore_eos": true, "max_new_tokens": 5}},
    });
    let ready = json!({"model_name": "m", "model_type": "llm", "status": "ready"});
    assert_eq!(
        call("start_model", start.clone()).expect("it starts"),
        ready
    );
    // Once more is no harm, but not in another way.
    assert_eq!(call("start_model", start.clone()).expect("it runs"), ready);
    let other = json!({"model_name": "m", "engines_path": model.name()});
    let error = call("start_model", other).expect_err("it was started otherwise");
    assert_eq!(error["code"], "model_already_started");

    let told = told.lock().expect("no panic");
    let progress: Vec<(&str, f64)> = told
        .iter()
        .map(|event| {
            let keys: Vec<&String> = event.as_object().expect("an object").keys().collect();
            assert_eq!(keys, ["phase", "fraction", "model"]);
            assert_eq!(event["model"], "m");
            let phase = event["phase"].as_str().expect("a name");
            (phase, event["fraction"].as_f64().expect("a number"))
        })
        .collect();
    assert_eq!(progress.last(), Some(&("ready", 1.0)));
    let is_loading =
        |(phase, fraction): &(&str, f64)| *phase == "loading" && (0.85..=0.99).contains(fraction);
    assert!(
        progress[..progress.len() - 1].iter().all(is_loading),
        "{progress:?}"
    );
    assert!(
        progress.windows(2).all(|pair| pair[0].1 <= pair[1].1),
        "{progress:?}"
    );

    let replies = call(
        "infer",
        json!({"model_name": "m", "prompt": "hi", "seed": 1}),
    );
    let replies = replies.expect("a reply");
    assert_eq!(replies[0]["generated_tokens"], 5, "the config has a say");
    let list = call("list", json!({})).expect("a list");
    assert_eq!(
        (&list[0]["model_name"], &list[0]["status"]),
        (&json!("m"), &json!("ready"))
    );
    assert_eq!(
        list[0]["load_report"]["phases"].as_array().map(Vec::len),
        Some(5)
    );
    let footprint = call("memory_footprint", json!({})).expect("numbers");
    assert!(footprint["footprint_mb"].as_f64().expect("a number") > 0.0);
    call("stop_model", json!({"model_name": "m"})).expect("it stops");
    let footprint = call("memory_footprint", json!({})).expect("numbers");
    assert_eq!(footprint["footprint_mb"], json!(0.0));
    let error = call("infer", json!({"model_name": "m", "prompt": "hi"})).expect_err("gone");
    assert_eq!(
        (&error["code"], &error["sdk_error"]),
        (&json!("model_not_found"), &json!("unknownModel"))
    );
}

#[test]
fn a_start_that_fails_keeps_its_reason_and_is_never_ready() {
    let model = TinyModel::new(&[]);
    let (api, told) = api();
    let start = |config| {
        let params = json!({"model_name": "m", "engines_path": model.name(), "config": config});
        api.call("start_model", params)
    };
    let config = json!({"max_context_size": CONTEXT + 1});
    let error = start(config.clone()).expect_err("it was not trained for that");
    assert_eq!(
        error,
        json!({
            "code": "invalid_parameter",
            "message": "`m` cannot be used: `max_context` is 161, the model was trained for 160",
            "param": "max_context_size",
            "hint": "call `reset_model`, or `stop_model` and start it again",
        })
    );
    assert_eq!(start(config).expect_err("kept"), error);
    let reset = api.call("reset_model", json!({"model_name": "m"}));
    let reset = reset.expect("it is known");
    assert_eq!(reset["status"], "uninitialized");
    let config = json!({"max_context_size": CONTEXT + 1});
    assert_eq!(start(config).expect_err("tried once more"), error);
    let list = api.call("list", json!({})).expect("a list");
    assert_eq!(list[0]["status"], "failed");
    assert_eq!(
        list[0]["error"],
        "`max_context` is 161, the model was trained for 160"
    );
    let told_ready = |event: &Value| event["phase"] == "ready";
    assert!(!told.lock().expect("no panic").iter().any(told_ready));

    api.call("stop_model", json!({"model_name": "m"}))
        .expect("it is forgotten");
    // Without a size, the model's own is enough.
    let status = start(json!({"chat_template": "raw"})).expect("it starts");
    assert_eq!(status["status"], "ready");
    let reply = api.call(
        "infer",
        json!({"model_name": "m", "prompt": "hello", "seed": 1}),
    );
    assert_eq!(
        reply.expect("a reply")[0]["prompt_tokens"],
        5,
        "no template"
    );

    let missing = json!({"model_name": "x", "engines_path": "/no/such/model.gguf"});
    let error = api.call("start_model", missing).expect_err("no file");
    assert_eq!(
        (&error["code"], &error["sdk_error"]),
        (&json!("model_not_found"), &json!("modelNotFound"))
    );
}

#[test]
fn a_model_that_is_here_is_fetched_at_once() {
    let model = TinyModel::new(&[]);
    let (api, _) = api();
    for method in ["prefetch_engines", "prefetch"] {
        let path = api.call(method, json!({"repo_id": model.name(), "revision": "v1"}));
        assert_eq!(path.expect("a path"), json!(model.name()));
        let error = api
            .call(method, json!({"repo_id": "no-such-model"}))
            .expect_err("unknown");
        assert_eq!(error["code"], "model_not_found");
        let error = api
            .call(method, json!({"repo": "x"}))
            .expect_err("no repository");
        assert_eq!(error["param"], "repo_id");
    }
}
