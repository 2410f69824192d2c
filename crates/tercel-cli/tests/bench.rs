//! `tercel bench`: what it prints.

mod common;

use common::{Place, events};

const SMALL: [&str; 8] = [
    "--prompt-tokens",
    "40",
    "--max-new-tokens",
    "8",
    "--runs",
    "2",
    "--threads",
    "1",
];

#[test]
fn one_combination_is_shown_in_full() {
    let place = Place::new();
    let model = place.model(&[]);
    let text = place.stdout(&[&["bench", &model], &SMALL[..]].concat());
    let first = text.lines().next().unwrap_or_default();
    assert!(
        first.contains("40 prompt + 8 new tokens") && first.contains("2 runs"),
        "{text}"
    );
    for says in [
        "STAGE",
        "MEAN MS",
        "P50",
        "P95",
        "format",
        "tokenize",
        "prefill",
        "decode",
        "detokenize",
        "total",
        "first token",
        "further token",
        "tokens/s",
        "diagnosis: ",
        "load",
    ] {
        assert!(text.contains(says), "{says}: {text}");
    }
}

#[test]
fn several_combinations_are_a_table() {
    let place = Place::new();
    let model = place.model(&[]);
    let more = ["--depth", "0,32", "--concurrency", "1,2"];
    let text = place.stdout(&[&["bench", &model], &SMALL[..], &more].concat());
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 6, "{text}");
    assert!(
        lines[0].contains("AT ONCE") && lines[0].contains("DECODE T/S"),
        "{text}"
    );
    let row: Vec<&str> = lines[4].split_whitespace().collect();
    assert_eq!(row[..4], ["2", "32", "40", "8"], "{text}");
}

#[test]
fn json_has_a_line_for_each_combination_and_csv_one_for_each_request() {
    let place = Place::new();
    let model = place.model(&[]);
    let more = ["--depth", "0,32", "--json"];
    let stdout = place.stdout(&[&["bench", &model], &SMALL[..], &more].concat());
    let events = events(&stdout);
    let found: Vec<_> = events
        .iter()
        .filter(|event| event["event"] == "bench")
        .collect();
    assert_eq!(found.len(), 2, "{stdout}");
    assert_eq!(
        (&found[1]["depth"], &found[1]["runs"]),
        (&32.into(), &2.into())
    );
    for key in [
        "ttft_ms",
        "tpot_ms",
        "gap_ms",
        "tokens_per_second",
        "total_tokens_per_second",
    ] {
        for percentile in [
            "p5", "p10", "p50", "p90", "p95", "p99", "mean", "min", "max",
        ] {
            assert!(
                found[0][key][percentile].is_f64(),
                "{key} {percentile}: {stdout}"
            );
        }
    }
    assert!(found[0]["prefill_tokens_per_second"]["p50"].as_f64() > Some(0.0));

    let more = ["--concurrency", "2", "--csv"];
    let csv = place.stdout(&[&["bench", &model], &SMALL[..], &more].concat());
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines.len(), 1 + 2 * 2, "{csv}");
    assert!(
        lines[0].starts_with("concurrency,depth,max_new_tokens,run,request,"),
        "{csv}"
    );
    for line in &lines {
        assert_eq!(
            line.split(',').count(),
            lines[0].split(',').count(),
            "{csv}"
        );
    }
    assert!(lines[4].starts_with("2,0,8,2,1,40,0,8,"), "{csv}");
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let place = Place::new();
    let model = place.model(&[]);
    for (more, code, says) in [
        (&["--runs", "0"][..], 1, "`runs` is 0"),
        (&["--prompt-tokens", "0"], 1, "`prompt_tokens` is 0"),
        (&["--prompt-tokens", "4000"], 1, "--prompt-tokens and"),
        (&["--prompt", "x", "--depth", "5"], 2, "--depth"),
        (&["--json", "--csv"], 2, "--csv"),
        (&["--prompt-tokens", "1,x"], 2, "x"),
    ] {
        let outcome = place.run(&[&["bench", &model], more].concat());
        assert!(
            outcome.code == code && outcome.stderr.contains(says),
            "{more:?}: {outcome:?}"
        );
    }
}

#[test]
fn tuning_tries_one_setting_after_the_other_and_names_the_best() {
    let place = Place::new();
    let model = place.model(&[]);
    let small = [
        "--prompt-tokens",
        "40",
        "--max-new-tokens",
        "8",
        "--runs",
        "1",
    ];
    let more = ["--requests", "2", "--json"];
    let stdout = place.stdout(&[&["tune", &model], &small[..], &more].concat());
    let events = events(&stdout);
    let trials: Vec<_> = events
        .iter()
        .filter(|event| event["event"] == "trial")
        .collect();
    let knobs: Vec<_> = trials.iter().map(|trial| &trial["knob"]).collect();
    assert_eq!(knobs[0], "threads");
    assert_eq!(knobs[knobs.len() - 1], "again");
    let batch = trials.iter().find(|trial| trial["knob"] == "batch");
    assert_eq!(batch.expect("two at once")["requests"], 2);
    let (kept, events) = events.split_last().expect("a line");
    assert_eq!(kept["event"], "kept");
    let best = events.last().expect("a line");
    assert_eq!(best["event"], "best");
    let fastest = trials
        .iter()
        .map(|trial| trial["tokens_per_second"].as_f64());
    let fastest = fastest.flatten().fold(0.0, f64::max);
    assert!(
        best["tokens_per_second"].as_f64() >= Some(0.99 * fastest),
        "{stdout}"
    );

    let outcome = place.run(&[&["tune", &model], &small[..]].concat());
    let text = &outcome.stdout;
    assert!(
        text.starts_with("THREADS") && text.contains("best: --threads "),
        "{text}"
    );
    // Its heads have 16 elements.
    let cannot = "--kv q8_0: this model cannot";
    assert!(outcome.stderr.contains(cannot), "{outcome:?}");
}

#[test]
fn what_cannot_be_tuned_is_refused() {
    let place = Place::new();
    let model = place.model(&[]);
    for (more, says) in [
        (["--runs", "0"], "`runs` is 0"),
        (["--requests", "0"], "`requests` is 0, must be 1 to 64"),
        (["--ttft-target-ms", "0"], "`ttft_target_ms` is 0"),
        (["--ttft-target-ms", "nan"], "`ttft_target_ms` is NaN"),
        (["--prompt-tokens", "4000"], "--prompt-tokens and"),
    ] {
        let outcome = place.run(&[&["tune", &model], &more[..]].concat());
        assert!(
            outcome.code == 1 && outcome.stderr.contains(says),
            "{more:?}: {outcome:?}"
        );
    }
}
