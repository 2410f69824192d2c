//! The sampler against naive definitions, and its draws against their distribution.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn settings() -> Settings {
    Settings {
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        ..Settings::default()
    }
}

fn sample(settings: &Settings, step: u64, logits: &[f32]) -> TokenId {
    let mut sampler = Sampler::default();
    sampler.begin(settings, &[]);
    sampler.sample(step, logits).expect("finite logits")
}

/// The ids left to draw from, sorted.
fn kept(settings: &Settings, logits: &[f32]) -> Vec<TokenId> {
    let mut sampler = Sampler::default();
    sampler.begin(settings, &[]);
    sampler.sample(0, logits).expect("finite logits");
    let mut ids: Vec<TokenId> = sampler.candidates.iter().map(|c| c.id).collect();
    ids.sort_unstable();
    ids
}

/// The definition, with full sorts. The second value says how far the nearest decision was from
/// going the other way.
fn kept_naively(settings: &Settings, logits: &[f32]) -> (Vec<TokenId>, f64) {
    let mut ranked: Vec<usize> = (0..logits.len()).collect();
    ranked.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    if settings.top_k > 0 {
        ranked.truncate(settings.top_k);
    }
    let temperature = f64::from(settings.temperature);
    let weight = |id: usize| (f64::from(logits[id]) / temperature).exp();
    let total: f64 = ranked.iter().map(|&id| weight(id)).sum();
    let mut margin = f64::INFINITY;
    let mut mass = 0.0;
    let mut nucleus = Vec::new();
    for &id in &ranked {
        nucleus.push(id);
        mass += weight(id) / total;
        if settings.top_p < 1.0 {
            margin = margin.min((mass - f64::from(settings.top_p)).abs());
            if mass >= f64::from(settings.top_p) {
                break;
            }
        }
    }
    let likeliest = weight(ranked[0]);
    nucleus.retain(|&id| {
        let fraction = weight(id) / likeliest;
        margin = margin.min((fraction - f64::from(settings.min_p)).abs());
        settings.min_p == 0.0 || fraction >= f64::from(settings.min_p)
    });
    let mut ids: Vec<TokenId> = nucleus.into_iter().map(token_id).collect();
    ids.sort_unstable();
    (ids, margin)
}

proptest! {
    #[test]
    fn the_filters_keep_what_their_definitions_keep(
        // Coarse values make ties common.
        logits in vec((-40_i32..40).prop_map(|n| n as f32 / 4.0), 1..700),
        top_k in prop_oneof![Just(0_usize), 1_usize..30, 1_usize..800],
        temperature in 0.05_f32..2.0,
        top_p in prop_oneof![Just(1.0_f32), 0.01_f32..1.0],
        min_p in prop_oneof![Just(0.0_f32), 0.0_f32..0.99],
    ) {
        let settings = Settings { temperature, top_k, top_p, min_p, ..settings() };
        let (expected, margin) = kept_naively(&settings, &logits);
        prop_assume!(margin > 1e-9);
        prop_assert_eq!(kept(&settings, &logits), expected);
    }

    #[test]
    fn greedy_takes_the_first_of_the_highest(
        logits in vec((-5_i32..5).prop_map(|n| n as f32), 1..200),
    ) {
        let greedy = Settings { temperature: 0.0, ..settings() };
        let mut best = 0;
        for (id, logit) in logits.iter().enumerate() {
            if *logit > logits[best] {
                best = id;
            }
        }
        prop_assert_eq!(sample(&greedy, 0, &logits) as usize, best);
    }

    #[test]
    fn bias_and_penalties_follow_their_formula(
        logits in vec(-10.0_f32..10.0, 20),
        text in vec(0_u32..20, 0..60),
        window in 1_usize..80,
        repetition_penalty in 0.5_f32..2.0,
        presence_penalty in -2.0_f32..2.0,
        frequency_penalty in -2.0_f32..2.0,
        bias in vec((0_u32..20, -100.0_f32..100.0), 0..4),
        split in 0_usize..60,
    ) {
        let settings = Settings {
            temperature: 0.0,
            repetition_window: window,
            repetition_penalty,
            presence_penalty,
            frequency_penalty,
            logit_bias: bias.clone(),
            ..settings()
        };
        let recent = &text[text.len().saturating_sub(window)..];
        let expected: Vec<f32> = (0..20_u32).map(|id| {
            let own = bias.iter().filter(|(token, _)| *token == id);
            let logit = own.fold(logits[id as usize], |logit, (_, bias)| logit + bias);
            let count = recent.iter().filter(|&&token| token == id).count();
            if count == 0 {
                return logit;
            }
            let repeated =
                if logit > 0.0 { logit / repetition_penalty } else { logit * repetition_penalty };
            repeated - presence_penalty - count as f32 * frequency_penalty
        }).collect();

        let mut sampler = Sampler::default();
        let split = split.min(text.len());
        sampler.begin(&settings, &text[..split]);
        text[split..].iter().for_each(|&token| sampler.accept(token));
        sampler.sample(0, &logits).expect("finite logits");
        prop_assert_eq!(&sampler.adjusted, &expected);
    }

    #[test]
    fn the_most_likely_tokens_come_in_order(
        logits in vec((-40_i32..40).prop_map(|n| n as f32 / 4.0), 1..300),
        k in 0_usize..30,
    ) {
        let mut ranked: Vec<usize> = (0..logits.len()).collect();
        ranked.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
        ranked.truncate(k);
        let want: Vec<TokenId> = ranked.into_iter().map(token_id).collect();
        let mut sampler = Sampler::default();
        prop_assert_eq!(sampler.most_likely(&logits, k).collect::<Vec<_>>(), want);
    }
}

#[test]
fn a_hundred_thousand_draws_follow_the_distribution() {
    // The settings, and the upper 0.1 % point of chi-square for the tokens they leave less one.
    let logits = [1.0, 0.5, 3.0, -1.0, 2.0, 0.0, 2.5, -8.0, 1.5, 0.25];
    let cases = [
        (settings(), 27.88),
        (
            Settings {
                temperature: 0.5,
                top_k: 5,
                ..settings()
            },
            18.47,
        ),
        (
            Settings {
                temperature: 1.5,
                top_p: 0.9,
                ..settings()
            },
            22.46,
        ),
        (
            Settings {
                min_p: 0.2,
                ..settings()
            },
            16.27,
        ),
    ];
    for (settings, limit) in cases {
        let ids = kept(&settings, &logits);
        let weight =
            |id: TokenId| (f64::from(logits[id as usize]) / f64::from(settings.temperature)).exp();
        let total: f64 = ids.iter().map(|&id| weight(id)).sum();
        let mut counts = [0_u32; 10];
        let mut sampler = Sampler::default();
        sampler.begin(
            &Settings {
                seed: 20_240_607,
                ..settings.clone()
            },
            &[],
        );
        for step in 0..100_000 {
            counts[sampler.sample(step, &logits).expect("finite logits") as usize] += 1;
        }
        let chi: f64 = ids
            .iter()
            .map(|&id| {
                let expected = weight(id) / total * 100_000.0;
                (f64::from(counts[id as usize]) - expected).powi(2) / expected
            })
            .sum();
        assert_eq!(
            ids.iter().map(|&id| counts[id as usize]).sum::<u32>(),
            100_000
        );
        assert!(chi < limit, "chi-square {chi} over {} tokens", ids.len());
    }
}

#[test]
fn a_draw_depends_on_seed_and_step_alone() {
    let logits: Vec<f32> = (0..1000)
        .map(|id| ((id * 37) % 101) as f32 / 10.0)
        .collect();
    let run = |seed| -> Vec<TokenId> {
        let seeded = Settings {
            seed,
            ..Settings::default()
        };
        (0..50).map(|step| sample(&seeded, step, &logits)).collect()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
    // Order of calls does not matter.
    let seeded = Settings {
        seed: 1,
        ..Settings::default()
    };
    assert_eq!(sample(&seeded, 31, &logits), run(1)[31]);
}

#[test]
fn logits_that_are_not_numbers_are_an_error() {
    for bad in [f32::NAN, f32::INFINITY] {
        for position in [0, 7, 8, 18] {
            for temperature in [0.0, 1.0] {
                let mut logits = vec![0.0; 19];
                logits[position] = bad;
                let mut sampler = Sampler::default();
                sampler.begin(
                    &Settings {
                        temperature,
                        ..settings()
                    },
                    &[],
                );
                assert_eq!(sampler.sample(0, &logits), Err(InvalidLogits));
            }
        }
    }
    let mut sampler = Sampler::default();
    sampler.begin(&settings(), &[]);
    assert_eq!(
        sampler.sample(0, &[f32::NEG_INFINITY; 3]),
        Err(InvalidLogits)
    );
    assert_eq!(sampler.sample(0, &[]), Err(InvalidLogits));
}

#[test]
fn masked_tokens_are_never_drawn() {
    let mut logits = vec![f32::NEG_INFINITY; 100];
    logits[42] = -3.0;
    for top_k in [0, 5] {
        for step in 0..100 {
            assert_eq!(
                sample(
                    &Settings {
                        top_k,
                        ..settings()
                    },
                    step,
                    &logits
                ),
                42
            );
        }
    }
}

#[test]
fn extreme_settings_stay_finite() {
    let logits = [1.0e30, -1.0e30, 0.0, -5.0];
    let extreme = Settings {
        temperature: f32::MIN_POSITIVE,
        repetition_penalty: f32::MIN_POSITIVE,
        presence_penalty: -2.0,
        ..settings()
    };
    let mut sampler = Sampler::default();
    sampler.begin(&extreme, &[0, 1, 2, 3]);
    assert_eq!(sampler.sample(0, &logits), Ok(0));
}

#[test]
#[ignore = "a benchmark: run it with --release --nocapture"]
fn time_of_a_large_vocabulary() {
    let logits: Vec<f32> = (0..262_144_u64)
        .map(|id| rng::uniform(3, id) as f32 * 30.0 - 15.0)
        .collect();
    for (name, settings) in [
        (
            "greedy",
            Settings {
                temperature: 0.0,
                ..settings()
            },
        ),
        ("defaults", Settings::default()),
        (
            "top_k 1000",
            Settings {
                top_k: 1000,
                ..settings()
            },
        ),
        (
            "top_p 0.9 alone",
            Settings {
                top_p: 0.9,
                ..settings()
            },
        ),
        ("temperature alone", settings()),
        (
            "defaults, penalties",
            Settings {
                repetition_penalty: 1.1,
                ..Settings::default()
            },
        ),
    ] {
        let mut sampler = Sampler::default();
        sampler.begin(&settings, &[1, 2, 3]);
        let start = std::time::Instant::now();
        for step in 0..100 {
            std::hint::black_box(sampler.sample(step, &logits).expect("finite logits"));
        }
        println!("{name}: {:.0} us", start.elapsed().as_secs_f64() * 1e4);
    }
}

#[test]
fn a_bias_forces_and_bans_tokens_whatever_the_temperature() {
    let logits = [3.0, 8.0, -2.0, 5.0];
    for temperature in [0.0, 0.7, 2.0] {
        let with = |token, bias| Settings {
            temperature,
            logit_bias: vec![(token, bias)],
            ..settings()
        };
        for step in 0..50 {
            assert_eq!(sample(&with(2, 100.0), step, &logits), 2);
            assert_ne!(sample(&with(1, -100.0), step, &logits), 1);
        }
    }
}
