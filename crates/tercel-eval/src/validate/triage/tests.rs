use super::super::{GreedyReport, PositionReport};
use super::*;

/// A prompt whose positions have these errors, as shares of a spread of 1.
fn prompt(errors: &[f64], flips: &[usize]) -> PromptReport {
    let position = |(i, error): (usize, &f64)| PositionReport {
        position: i,
        max_abs: *error,
        mse: error * error,
        relative: *error,
        argmax_equal: !flips.contains(&i),
        overlap: if *error > 0.3 { 0.2 } else { 1.0 },
        gap: 0.5,
    };
    let mut prompt = PromptReport {
        tokens: errors.len(),
        ids_equal: true,
        positions: errors.iter().enumerate().map(position).collect(),
        greedy: Some(greedy(None, 0.5)),
        ..PromptReport::default()
    };
    prompt.summarize();
    prompt
}

fn greedy(differs_at: Option<usize>, gap: f64) -> GreedyReport {
    GreedyReport {
        tokens: 32,
        equal: differs_at.is_none(),
        differs_at,
        gap,
    }
}

fn with_greedy(mut prompt: PromptReport, differs_at: usize, gap: f64) -> PromptReport {
    prompt.greedy = Some(greedy(Some(differs_at), gap));
    prompt
}

#[test]
fn the_shape_of_a_failure_names_its_cause() {
    let other_ids = PromptReport::default();
    let right = || prompt(&[1e-6; 8], &[]);
    let late = || prompt(&[1e-6, 0.4, 0.8, 1.2, 1.5, 1.5, 1.5, 1.5], &[2, 3]);
    let all = || prompt(&[1.2; 8], &[0, 1, 2, 3]);
    let (exact, close) = (Thresholds::exact(), Thresholds::close());
    let cases: [(&str, &Thresholds, Vec<PromptReport>, Option<Triage>); 17] = [
        ("all right", &exact, vec![right(), right()], None),
        (
            "noise of quantization",
            &close,
            vec![prompt(&[0.1; 8], &[])],
            None,
        ),
        (
            "other ids",
            &exact,
            vec![right(), other_ids],
            Some(Triage::IdsDiffer),
        ),
        (
            "no numbers",
            &close,
            vec![prompt(&[0.0, f64::NAN], &[])],
            Some(Triage::NotNumbers),
        ),
        (
            "all positions",
            &exact,
            vec![all(), all()],
            Some(Triage::AllPositions),
        ),
        (
            "all positions, coarse",
            &close,
            vec![all()],
            Some(Triage::AllPositions),
        ),
        (
            "late",
            &exact,
            vec![late(), late()],
            Some(Triage::LatePositions),
        ),
        (
            "late, coarse",
            &close,
            vec![late()],
            Some(Triage::LatePositions),
        ),
        (
            "late, and one prompt ends before",
            &exact,
            vec![
                prompt(&[1e-6; 3], &[]),
                prompt(&[1e-6, 1e-6, 1e-6, 1e-6, 0.9], &[4]),
            ],
            Some(Triage::LatePositions),
        ),
        (
            "some prompts",
            &exact,
            vec![right(), all()],
            Some(Triage::SomePrompts),
        ),
        (
            "some prompts, in the middle",
            &exact,
            vec![right(), prompt(&[1e-6, 1e-6, 0.9, 0.9], &[2])],
            Some(Triage::SomePrompts),
        ),
        (
            "drift",
            &exact,
            vec![prompt(&[0.02; 8], &[3])],
            Some(Triage::Drift),
        ),
        (
            "drift with flips",
            &close,
            vec![prompt(&[0.2; 8], &[3])],
            Some(Triage::Drift),
        ),
        (
            "ties",
            &exact,
            vec![tie(prompt(&[1e-3; 8], &[3]))],
            Some(Triage::NearTies),
        ),
        (
            "ties, coarse",
            &close,
            vec![tie(prompt(&[0.01; 8], &[3]))],
            Some(Triage::NearTies),
        ),
        (
            "greedy",
            &exact,
            vec![right(), with_greedy(right(), 4, 0.5)],
            Some(Triage::GreedyOnly),
        ),
        (
            "greedy, excused",
            &close,
            vec![with_greedy(prompt(&[0.1; 8], &[]), 4, 0.15)],
            None,
        ),
    ];
    for (name, thresholds, prompts, expected) in cases {
        assert_eq!(triage(&prompts, thresholds), expected, "{name}");
        let fails = prompts
            .iter()
            .any(|prompt| failure(prompt, thresholds).is_some());
        assert_eq!(fails, expected.is_some(), "{name}");
    }
}

/// The first and the second are as close as the error is large.
fn tie(mut prompt: PromptReport) -> PromptReport {
    for position in &mut prompt.positions {
        position.gap = position.max_abs;
    }
    prompt
}

#[test]
fn long_prompts_may_flip_ranks_but_not_lose_the_best_five() {
    let thresholds = Thresholds::close();
    let flips: Vec<usize> = (0..40).collect();
    let long = prompt(&[0.2; 100], &flips);
    assert_eq!(failure(&long, &thresholds), None);
    let short = prompt(&[0.2; 64], &[1]);
    assert_eq!(
        failure(&short, &thresholds),
        Some("the most likely tokens differ")
    );
    let lost = prompt(&[0.9; 100], &[]);
    assert_eq!(
        failure(&lost, &thresholds),
        Some("the five most likely tokens differ")
    );
}

#[test]
fn every_cause_has_words_of_its_own() {
    for (cause, word) in [
        (Triage::IdsDiffer, "tokenizer"),
        (Triage::NotNumbers, "overflow"),
        (Triage::AllPositions, "order of layers"),
        (Triage::LatePositions, "RoPE"),
        (Triage::SomePrompts, "special tokens"),
        (Triage::Drift, "quantization"),
        (Triage::NearTies, "near ties"),
        (Triage::GreedyOnly, "KV cache"),
    ] {
        assert!(cause.to_string().contains(word), "{cause}");
    }
}
