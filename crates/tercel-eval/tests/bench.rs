//! Measuring the speed of a tiny random model: what is counted, and that it adds up.

#[path = "../../tercel/tests/tiny/mod.rs"]
mod tiny;

use std::ops::ControlFlow;

use tercel_eval::{BenchOptions, BenchReport, BenchRun, EvalError, bench};
use tiny::TinyModel;

fn options() -> BenchOptions {
    let mut options = BenchOptions::default();
    (options.warmup, options.runs) = (1, 3);
    (options.prompt_tokens, options.max_new_tokens) = (40, 9);
    options
}

fn measure(options: &BenchOptions) -> (BenchReport, Vec<BenchRun>) {
    let model = TinyModel::new(&[]);
    let engine = model.builder().max_sequences(2).load().expect("it loads");
    let mut runs = Vec::new();
    let report = bench(&engine, options, |run| {
        runs.push(run.clone());
        ControlFlow::Continue(())
    });
    (report.expect("a report"), runs)
}

#[test]
fn every_run_computes_its_whole_prompt_and_reply() {
    let (report, runs) = measure(&options());
    assert_eq!(runs.len(), 3);
    for (i, run) in runs.iter().enumerate() {
        assert_eq!((run.run, run.request), (i + 1, 0));
        assert_eq!((run.prompt_tokens, run.out_tokens), (40, 9));
        assert_eq!(run.cached_tokens, 0, "a prompt of another run was found");
        // The ends of a reply of random bytes need not be whole characters.
        assert!((1..=8).contains(&run.gaps_s.len()), "{}", run.gaps_s.len());
        let stages = run.stages.prefill_s + run.stages.decode_s;
        assert!(
            stages <= run.total_s && run.stages.tokenize_s > 0.0,
            "{run:?}"
        );
        assert!(run.stages.sampling_s + run.stages.detokenize_s < run.total_s);
        assert!((run.tpot_s - run.stages.decode_s / 8.0).abs() < 1e-9);
        let rate = 8.0 / run.stages.decode_s;
        assert!((run.tokens_per_second - rate).abs() < 1e-6 * rate);
        // Sums of the same instants, rounded another way.
        let prefill_s = run.stages.prefill_s - 1e-9;
        assert!(run.ttft_s <= run.ttft_e2e_s && run.ttft_s >= prefill_s);
    }
    let slowest = runs.iter().map(|run| run.ttft_s * 1e3).fold(0.0, f64::max);
    assert_eq!(report.ttft_ms.max, slowest);
    assert_eq!(report.options, options());
    assert!(report.first_request_ttft_ms > 0.0 && report.load_seconds > 0.0);
}

#[test]
fn what_is_deep_is_held_and_not_computed_again() {
    let mut options = options();
    options.depth = 64;
    let (_, runs) = measure(&options);
    for run in &runs {
        assert_eq!(run.prompt_tokens, 104);
        assert!(
            (64..72).contains(&run.cached_tokens),
            "{}",
            run.cached_tokens
        );
    }
}

#[test]
fn requests_at_once_are_counted_together() {
    let mut options = options();
    options.concurrency = 2;
    let (report, runs) = measure(&options);
    assert_eq!(runs.len(), 6);
    let requests: Vec<_> = runs.iter().map(|run| (run.run, run.request)).collect();
    assert_eq!(requests, [(1, 0), (1, 1), (2, 0), (2, 1), (3, 0), (3, 1)]);
    // A round lasts as long as its longest request at least.
    let fastest = runs.chunks(2).map(|round| {
        let seconds = round.iter().map(|run| run.total_s - run.stages.tokenize_s);
        18.0 / seconds.fold(0.0, f64::max)
    });
    let fastest = fastest.fold(0.0, f64::max);
    let total = report.total_tokens_per_second;
    assert!(
        total.max > 0.0 && total.max <= 1.001 * fastest,
        "{total:?}, {fastest}"
    );
}

#[test]
fn a_prompt_of_ones_own_goes_through_the_template() {
    let mut options = options();
    options.prompt = Some("How many?".to_owned());
    let (report, runs) = measure(&options);
    // user: How many?\nassistant: , a token a byte.
    assert_eq!(runs[0].prompt_tokens, 27);
    assert_eq!(runs[2].cached_tokens, 0, "the prefix cache was not emptied");
    assert!(report.stages_ms[0].ms.p50 > 0.0, "the template takes time");
}

#[test]
fn options_are_checked_and_a_caller_may_stop() {
    let model = TinyModel::new(&[]);
    let engine = model.builder().load().expect("it loads");
    let go_on = |_: &BenchRun| ControlFlow::Continue(());
    let change: [fn(&mut BenchOptions); 4] = [
        |options| options.runs = 0,
        |options| options.prompt_tokens = 0,
        |options| options.max_new_tokens = 0,
        |options| options.concurrency = 0,
    ];
    for change in change {
        let mut options = options();
        change(&mut options);
        let error = bench(&engine, &options, go_on).expect_err("out of range");
        assert!(
            matches!(error, EvalError::InvalidOption { value: 0, .. }),
            "{error}"
        );
    }
    let stopped = bench(&engine, &options(), |_| ControlFlow::Break(()));
    assert!(matches!(stopped, Err(EvalError::Cancelled)));
    let mut long = options();
    long.prompt_tokens = 1000;
    let error = bench(&engine, &long, go_on).expect_err("longer than the context");
    assert!(matches!(error, EvalError::Engine(_)), "{error}");
}
