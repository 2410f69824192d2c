use super::*;
use crate::config::{Config, LogPolicy};
use crate::log::testing::Lines;
use crate::models::Models;

fn page(metrics: &Metrics) -> String {
    let config = Config::default();
    let models = Models::new(&config).expect("no models");
    let log = Lines::default().log(&LogPolicy::default());
    metrics.render(&App::new(config, models, log))
}

fn value(page: &str, sample: &str) -> f64 {
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {sample} in\n{page}"))
        .parse()
        .expect("a number")
}

#[test]
fn every_request_ends_in_one_counter() {
    let metrics = Metrics::new();
    for _ in 0..6 {
        metrics.received();
    }
    let reply = Measured {
        first_token_seconds: Some(0.2),
        total_seconds: Some(1.0),
        prompt_tokens: 7,
        cached_tokens: 3,
        generated_tokens: 5,
        ..Measured::default()
    };
    assert_eq!(metrics.finished(&reply, None), None);
    metrics.finished(&Measured::default(), None);
    metrics.finished(&reply, Some("disconnect"));
    metrics.failed("queue_full");
    metrics.failed("queue_full");
    let page = page(&metrics);
    for (sample, expected) in [
        ("tercel_requests_received_total", 6.0),
        ("tercel_requests_in_flight", 1.0),
        ("tercel_requests_completed_total", 2.0),
        ("tercel_requests_without_token_total", 1.0),
        (
            "tercel_requests_cancelled_total{reason=\"disconnect\"}",
            1.0,
        ),
        ("tercel_requests_cancelled_total{reason=\"deadline\"}", 0.0),
        ("tercel_requests_failed_total{code=\"queue_full\"}", 2.0),
        ("tercel_prompt_tokens_total", 14.0),
        ("tercel_prefix_cached_tokens_total", 6.0),
        ("tercel_generated_tokens_total", 10.0),
        ("tercel_time_to_first_token_seconds_count", 2.0),
        ("tercel_time_to_first_token_seconds_bucket{le=\"0.1\"}", 0.0),
        (
            "tercel_time_to_first_token_seconds_bucket{le=\"0.25\"}",
            2.0,
        ),
        (
            "tercel_time_to_first_token_seconds_window{quantile=\"0.5\"}",
            0.2,
        ),
        ("tercel_models_loaded", 0.0),
    ] {
        assert_eq!(value(&page, sample), expected, "{sample}");
    }
}

#[test]
fn paths_of_strangers_fill_no_memory() {
    let metrics = Metrics::new();
    metrics.answered("/v1/models", 200);
    for path in 0..1000 {
        metrics.answered(&format!("/{path}"), 404);
    }
    metrics.answered("/v1/models", 200);
    metrics.rate_limited("client");
    let page = page(&metrics);
    let paths = page
        .lines()
        .filter(|line| line.starts_with("tercel_http_answers_total"));
    assert_eq!(paths.count(), MOST_PATHS + 1);
    let models = "tercel_http_answers_total{path=\"/v1/models\",status=\"200\"}";
    assert_eq!(value(&page, models), 2.0);
    let other = "tercel_http_answers_total{path=\"other\",status=\"404\"}";
    assert_eq!(value(&page, other), 937.0);
    assert_eq!(
        value(&page, "tercel_rate_limited_total{scope=\"client\"}"),
        1.0
    );
}

#[test]
fn every_hundredth_reply_comes_with_a_report() {
    let metrics = Metrics::new();
    let reports: Vec<Value> = (0..200)
        .filter_map(|reply| {
            metrics.received();
            let seconds = Some(f64::from(reply) / 100.0);
            let reply = Measured {
                first_token_seconds: seconds,
                total_seconds: seconds,
                tokens_per_second: seconds,
                generated_tokens: 1,
                ..Measured::default()
            };
            metrics.finished(&reply, None)
        })
        .collect();
    assert_eq!(reports.len(), 2);
    assert_eq!(
        (&reports[0]["replies"], &reports[0]["samples"]),
        (&json!(100), &json!(100))
    );
    assert_eq!(
        reports[0]["ttft_s"],
        json!({"p50": 0.5, "p90": 0.89, "p95": 0.94, "p99": 0.98})
    );
    assert_eq!(reports[0]["tps"]["p5"], json!(0.05));
    assert_eq!(reports[0]["queue_s"]["p50"], Value::Null);
}

#[test]
fn a_page_has_each_name_once_and_no_line_that_is_not_a_sample() {
    let page = page(&Metrics::new());
    let mut names: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all);
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').expect("a name and a value");
        assert!(name.starts_with("tercel_"), "{line}");
        value
            .parse::<f64>()
            .unwrap_or_else(|error| panic!("{line}: {error}"));
    }
}
