use std::sync::Arc;

use axum::http::StatusCode;
use tercel::{Settings, Timings, Usage};

use super::*;
use crate::app::App;
use crate::config::{Config, GuardPolicy, LogPolicy, ServedModel};
use crate::log::testing::Lines;
use crate::models::Models;
use crate::work::{Input, begin};

const PROMPT: &str = "Write to john.doe@example.com,  call +49 30 1234567!";
const OUTPUT: &str = "I wrote to jane.roe@example.org about it.";

fn app(policy: LogPolicy) -> (Shared, Lines) {
    let config = Config {
        log: policy,
        ..Config::default()
    };
    serve(config)
}

fn serve(config: Config) -> (Shared, Lines) {
    let lines = Lines::default();
    let log = lines.log(&config.log);
    let models = Models::new(&config).expect("valid models");
    (Arc::new(App::new(config, models, log)), lines)
}

/// A model of a few thousand weights, whose replies mean nothing.
fn tiny() -> ServedModel {
    let folder = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../test-data/checkpoints/qwen2-padded"
    );
    ServedModel::new("tiny", folder, move || {
        tercel::Engine::builder(folder).max_context(200)
    })
}

fn ask(text: &str) -> Ask {
    let mut ask = Ask::new(None, Input::Text(text.to_owned()));
    ask.sampling.stop = vec!["john.doe@example.com".to_owned()];
    ask
}

fn watch(app: &Shared, text: &str) -> Watch {
    Watch::received(app, &Caller::for_tests(), "small", &ask(text), 0)
}

fn begun() -> Started {
    Started {
        at: Instant::now(),
        version: "f00".to_owned(),
        backend: "cpu-avx2".to_owned(),
        threads: 2,
        context_window: 2048,
        prompt_tokens: 20,
    }
}

fn ending(settings: &Settings) -> Ending<'_> {
    let mut usage = Usage::default();
    usage.prompt_tokens = 20;
    usage.cached_tokens = 4;
    usage.generated_tokens = 3;
    let mut timings = Timings::default();
    timings.queue_seconds = 0.001;
    timings.prefill_seconds = 0.02;
    timings.time_to_first_token = 0.025;
    timings.decode_seconds = 0.1;
    timings.total_seconds = 0.13;
    Ending {
        stop_reason: StopReason::Eos,
        usage,
        timings,
        tokens_per_second: 20.0,
        settings,
        backend: "cpu-avx2",
        threads: 2,
        is_truncated: false,
        guarded_by: None,
        output: OUTPUT,
        kv_bytes: Some(4096),
    }
}

/// A request for each way in which one can end.
fn all_ends(app: &Shared) {
    let settings = Settings::default();
    let mut completed = watch(app, PROMPT);
    completed.start(begun());
    completed.token(0);
    completed.token(2);
    completed.complete(&ending(&settings));

    let mut failed = watch(app, PROMPT);
    let error = ApiError::invalid("stop", format!("`stop` is {PROMPT}"));
    failed.failed(&error);

    let mut gone = watch(app, PROMPT);
    gone.start(begun());
    gone.token(0);
}

fn names(events: &[Value]) -> Vec<&str> {
    events
        .iter()
        .map(|event| event["event"].as_str().expect("a name"))
        .collect()
}

#[test]
fn every_request_ends_once_under_the_name_it_came_by() {
    let (app, lines) = app(LogPolicy::default());
    all_ends(&app);
    drop(app);
    let events = lines.events();
    assert_eq!(
        names(&events),
        [
            "llm.request.received",
            "llm.generation.started",
            "llm.generation.completed",
            "llm.request.received",
            "llm.request.failed",
            "llm.request.received",
            "llm.generation.started",
            "llm.generation.completed",
        ]
    );
    for (begin, end) in [(0, 2), (3, 4), (5, 7)] {
        assert_eq!(events[begin]["request_id"], events[end]["request_id"]);
    }
    assert_ne!(events[0]["request_id"], events[3]["request_id"]);
}

#[test]
fn a_completed_reply_says_what_was_asked_what_came_and_when() {
    let (app, lines) = app(LogPolicy::default());
    all_ends(&app);
    drop(app);
    let event = &lines.events()[2];
    for (pointer, expected) in [
        ("/stage", json!("summary")),
        ("/model_id", json!("small")),
        ("/model/version", json!("f00")),
        ("/prompt/template_id", json!("none")),
        ("/prompt/prompt_preview", json!("[REDACTED_PROMPT]")),
        ("/prompt/prompt_excerpt", Value::Null),
        ("/prompt/input_tokens", json!(20)),
        ("/prompt/cached_tokens", json!(4)),
        ("/generation/max_new_tokens", json!(512)),
        ("/decoding/top_k", json!(20)),
        ("/input/context_window", json!(2048)),
        ("/input/truncated", json!(false)),
        ("/runtime/backend", json!("cpu-avx2")),
        ("/timing_ms/first_token", json!(25.0)),
        ("/timing_ms/per_output_token", json!(50.0)),
        ("/timing_ms/total", json!(130.0)),
        ("/timing/duration_ms_decode", json!(105)),
        ("/output/output_tokens", json!(3)),
        ("/output/finish_reason", json!("eos")),
        ("/output/output_preview", json!("[REDACTED_OUTPUT]")),
        ("/result/end_reason", json!("eos")),
        ("/result/stream_chunks", json!(2)),
        ("/resources/kv_cache_bytes", json!(4096)),
        ("/safety/redaction_level", json!("hash_only")),
        ("/safety/log_prompt_text", json!(false)),
        ("/safety/pii_detected", json!(true)),
        ("/cancel_reason", Value::Null),
    ] {
        assert_eq!(event.pointer(pointer), Some(&expected), "{pointer}");
    }
    let timing = |key: &str| event["timing"][key].as_u64().expect("a number");
    let total = timing("t_generation_end_unix_ms") - timing("t_received_unix_ms");
    assert_eq!(timing("duration_ms_total"), total);
    assert_eq!(event["latency_ms"], json!(total));
    let prompt = event["prompt"]["prompt_hash"].as_str().expect("a hash");
    assert!(
        prompt.starts_with("sha256:") && prompt.len() == 71,
        "{prompt}"
    );
}

#[test]
fn a_failure_says_its_code_and_never_its_message() {
    let (app, lines) = app(LogPolicy::default());
    all_ends(&app);
    drop(app);
    let event = &lines.events()[4];
    let error = json!({
        "error_code": "invalid_parameter", "status": 400, "message": "Bad Request",
    });
    assert_eq!(
        (&event["error"], &event["failed_stage"]),
        (&error, &json!("validation"))
    );
}

#[test]
fn a_client_that_goes_away_is_a_cancelled_reply() {
    let (app, lines) = app(LogPolicy::default());
    all_ends(&app);
    let page = app.metrics.render(&app);
    assert!(
        page.contains("tercel_requests_cancelled_total{reason=\"disconnect\"} 1\n"),
        "{page}"
    );
    assert!(page.contains("tercel_requests_in_flight 0\n"), "{page}");
    app.drain();
    drop(watch(&app, PROMPT));
    drop(app);
    let events = lines.events();
    let gone = &events[7];
    assert_eq!(
        gone["output"],
        json!({"output_tokens": 1, "finish_reason": "cancelled"})
    );
    assert_eq!(gone["cancel_reason"], "disconnect");
    assert_eq!(events[9]["cancel_reason"], "shutdown");
    assert_eq!(events[9]["result"]["tokens_generated"], 0);
}

#[test]
fn a_reply_that_was_cut_short_says_by_what() {
    let (app, lines) = app(LogPolicy::default());
    let settings = Settings::default();
    let reasons = [
        (StopReason::Cancelled, json!("client")),
        (StopReason::Timeout, json!("deadline")),
        (StopReason::ResourceLimit, json!("memory")),
        (StopReason::StopSequence, Value::Null),
    ];
    for (stop_reason, _) in &reasons {
        let mut watch = watch(&app, PROMPT);
        let mut ending = ending(&settings);
        ending.stop_reason = *stop_reason;
        watch.complete(&ending);
    }
    drop(app);
    let events = lines.events();
    for (event, (stop_reason, reason)) in events.iter().skip(1).step_by(2).zip(&reasons) {
        assert_eq!(
            (&event["cancel_reason"], &event["output"]["finish_reason"]),
            (reason, &json!(stop_reason.name()))
        );
    }
}

#[test]
fn a_prompt_is_said_to_be_changed_only_where_it_was() {
    let (app, lines) = app(LogPolicy::default());
    let mut watch = watch(&app, PROMPT);
    watch.normalized(&ask(PROMPT));
    watch.normalized(&ask("Write to nobody."));
    drop((watch, app));
    let events = lines.events();
    assert_eq!(
        names(&events),
        [
            "llm.request.received",
            "llm.prompt.normalized",
            "llm.generation.completed"
        ]
    );
    assert_ne!(
        events[0]["prompt"]["prompt_hash"],
        events[1]["prompt"]["prompt_hash"]
    );
    assert_eq!(
        events[1]["prompt"]["prompt_hash"],
        events[2]["prompt"]["prompt_hash"]
    );
}

/// What of the texts must be in no line.
const RAW: [&str; 7] = [
    "john", "doe", "example", "jane", "1234567", "Write to", "I wrote",
];

#[test]
fn no_line_holds_a_text_unless_it_is_asked_for_and_then_no_address() {
    let plain = LogPolicy {
        tokens: true,
        ..LogPolicy::default()
    };
    let keyed = LogPolicy {
        hash_key: Some(b"key".to_vec()),
        ..plain.clone()
    };
    let previews = LogPolicy {
        previews: true,
        ..plain.clone()
    };
    let whole = LogPolicy {
        prompts_and_outputs: true,
        hashes: false,
        ..plain.clone()
    };
    let preview = "Write to [EMAIL],  call [PHONE_OR_ID]!";
    for (policy, has_texts, has_hash) in [
        (plain, false, "\"sha256:"),
        (keyed, false, "\"hmac-sha256:"),
        (previews, true, "\"sha256:"),
        (whole, true, ""),
    ] {
        let (app, lines) = app(policy);
        all_ends(&app);
        drop(app);
        let text = lines.text();
        assert!(text.contains("llm.token.generated"));
        let forbidden = if has_texts { &RAW[..5] } else { &RAW[..] };
        for raw in forbidden {
            assert!(!text.contains(raw), "{raw} in\n{text}");
        }
        assert_eq!(text.contains(preview), has_texts);
        assert_eq!(text.contains("I wrote to [EMAIL] about it."), has_texts);
        assert!(text.contains(has_hash));
        assert_eq!(text.contains("sha256:"), !has_hash.is_empty());
    }
}

#[test]
fn where_nothing_is_logged_everything_is_still_counted() {
    let policy = LogPolicy {
        target: None,
        ..LogPolicy::default()
    };
    let config = Config {
        log: policy,
        ..Config::default()
    };
    let log = crate::log::Log::new(&config.log).expect("nothing is opened");
    let models = Models::new(&config).expect("no models");
    let app = Arc::new(App::new(config, models, log));
    all_ends(&app);
    let page = app.metrics.render(&app);
    assert!(
        page.contains("tercel_requests_received_total 3\n"),
        "{page}"
    );
    assert!(
        page.contains("tercel_requests_failed_total{code=\"invalid_parameter\"} 1\n"),
        "{page}"
    );
}

/// Nearest rank as it is written down: the index is `(n - 1) * p`, rounded half to even.
fn nearest_rank(mut values: Vec<f64>, p: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let index = ((values.len() - 1) as f64 * p).round_ties_even();
    values[index as usize]
}

fn quantile(page: &str, series: &str, p: f64) -> f64 {
    let sample = format!("tercel_{series}_window{{quantile=\"{p}\"}} ");
    let line = page.lines().find_map(|line| line.strip_prefix(&sample));
    line.unwrap_or_else(|| panic!("no {sample}"))
        .parse()
        .expect("a number")
}

#[test]
fn the_percentiles_of_the_metrics_are_those_of_the_log() {
    let (app, lines) = app(LogPolicy::default());
    let settings = Settings::default();
    let mut random = 1_u64;
    let mut draw = || {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695);
        f64::from(u32::try_from(random >> 40).expect("24 bits")) / 1e7
    };
    for _ in 0..237 {
        let mut watch = watch(&app, "a");
        let mut ending = ending(&settings);
        ending.timings.queue_seconds = draw();
        ending.timings.time_to_first_token = draw();
        ending.timings.decode_seconds = draw();
        ending.timings.total_seconds = draw();
        ending.tokens_per_second = draw() * 100.0;
        watch.complete(&ending);
    }
    // Not a sample: no token came.
    let mut empty = ending(&settings);
    empty.usage.generated_tokens = 0;
    empty.timings.total_seconds = 1000.0;
    watch(&app, "a").complete(&empty);
    let page = app.metrics.render(&app);
    drop(app);
    let events = lines.events();
    for (series, pointer, per_unit) in [
        ("queue_seconds", "/timing_ms/queue", 1e3),
        ("time_to_first_token_seconds", "/timing_ms/first_token", 1e3),
        (
            "time_per_output_token_seconds",
            "/timing_ms/per_output_token",
            1e3,
        ),
        ("request_seconds", "/timing_ms/total", 1e3),
        ("tokens_per_second", "/result/tokens_per_second", 1.0),
    ] {
        let values = events
            .iter()
            .filter(|event| event["event"] == "llm.generation.completed");
        let values = values.filter(|event| event["output"]["output_tokens"] != json!(0));
        let values: Vec<f64> = values
            .map(|event| {
                event
                    .pointer(pointer)
                    .and_then(Value::as_f64)
                    .expect("a number")
            })
            .collect();
        assert_eq!(values.len(), 237);
        for p in [0.5, 0.9, 0.95, 0.99] {
            let (log, metric) = (nearest_rank(values.clone(), p), quantile(&page, series, p));
            assert!(
                (metric * per_unit - log).abs() < 1e-6,
                "{series} p{p}: {metric} and {log}"
            );
        }
    }
    let reports = events
        .iter()
        .filter(|event| event["event"] == "llm.metrics.report");
    assert_eq!(reports.count(), 2);
}

#[test]
fn gaps_between_tokens_are_the_same_in_log_and_metrics() {
    let policy = LogPolicy {
        tokens: true,
        ..LogPolicy::default()
    };
    let (app, lines) = app(policy);
    let mut watch = watch(&app, "a");
    for index in [0, 1, 1, 2, 5, 6, 8] {
        std::thread::sleep(Duration::from_micros(300));
        watch.token(index);
    }
    let page = app.metrics.render(&app);
    drop((watch, app));
    let events = lines.events();
    let events = events
        .iter()
        .filter(|event| event["event"] == "llm.token.generated");
    let gaps: Vec<f64> = events
        .filter_map(|event| {
            Some((
                event["inter_token_ms"].as_f64()?,
                event["tokens_in_chunk"].as_u64()?,
            ))
        })
        .flat_map(|(gap, tokens)| (0..tokens).map(move |_| gap))
        .collect();
    assert_eq!(gaps.len(), 8);
    assert!(
        page.contains("tercel_inter_token_seconds_count 8\n"),
        "{page}"
    );
    for p in [0.5, 0.9, 0.95, 0.99] {
        let (log, metric) = (
            nearest_rank(gaps.clone(), p),
            quantile(&page, "inter_token_seconds", p),
        );
        assert!(
            (metric * 1e3 - log).abs() < 1e-6,
            "p{p}: {metric} and {log}"
        );
    }
}

#[tokio::test]
async fn a_model_is_watched_from_the_request_to_the_last_token() {
    let mut config = Config::default();
    config.models.push(tiny());
    config.guard = GuardPolicy {
        input: true,
        ..GuardPolicy::default()
    };
    config.log.tokens = true;
    let (app, lines) = serve(config);
    let caller = Caller::for_tests();

    let mut asked = Ask::new(None, Input::Text(PROMPT.to_owned()));
    asked.sampling.max_new_tokens = Some(8);
    asked.sampling.ignore_eos = Some(true);
    asked.sampling.temperature = Some(0.0);
    let running = begin(&app, &caller, asked.clone())
        .await
        .expect("it is taken");
    let finished = running.finish().await.expect("a reply");
    assert_eq!(finished.reply.usage.generated_tokens, 8);

    let running = begin(&app, &caller, asked.clone())
        .await
        .expect("it is taken");
    drop(running);

    asked.sampling.temperature = Some(9.0);
    let error = begin(&app, &caller, asked)
        .await
        .err()
        .expect("out of range");
    assert_eq!(error.status, StatusCode::BAD_REQUEST);

    let page = app.metrics.render(&app);
    assert!(
        page.contains("tercel_model_loaded{model=\"tiny\"} 1\n"),
        "{page}"
    );
    assert!(page.contains("tercel_kv_pages{model=\"tiny\"}"), "{page}");
    assert!(
        page.contains("tercel_requests_cancelled_total{reason=\"disconnect\"} 1\n"),
        "{page}"
    );
    drop(app);

    let events = lines.events();
    let ends = |name: &str| events.iter().filter(|event| event["event"] == name).count();
    assert_eq!(
        [
            ends("llm.request.received"),
            ends("llm.generation.started"),
            ends("llm.generation.completed"),
            ends("llm.request.failed"),
        ],
        [3, 2, 2, 1]
    );
    let done = events
        .iter()
        .find(|event| event["event"] == "llm.generation.completed");
    let done = done.expect("it ended");
    assert_eq!(
        done["timing_ms"]["first_token"],
        json!(ms(finished.reply.timings.time_to_first_token))
    );
    assert_eq!(done["output"]["output_tokens"], 8);
    assert!(
        done["timing_ms"]["model_wait"].as_f64() > Some(0.0),
        "it was loaded first"
    );
    let text = lines.text();
    for raw in ["john", "john.doe", "example.com", "1234567", &finished.text] {
        assert!(
            raw.chars().count() < 4 || !text.contains(raw),
            "{raw:?} in\n{text}"
        );
    }
}
