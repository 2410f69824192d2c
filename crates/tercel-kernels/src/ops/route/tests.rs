//! Against the definitions, and the same bits whoever shares the batch.

use super::super::random;
use super::*;

struct Routed {
    probabilities: Vec<f32>,
    experts: Vec<u32>,
    weights: Vec<f32>,
}

fn route(threads: usize, logits: &[f32], n_experts: usize, k: usize, renormalise: bool) -> Routed {
    let n = logits.len() / n_experts;
    let mut probabilities = logits.to_vec();
    let (mut experts, mut weights) = (vec![u32::MAX; n * k], vec![f32::NAN; n * k]);
    let mut pool = Pool::new(threads).unwrap();
    top_k(
        &mut pool,
        &mut probabilities,
        n_experts,
        k,
        renormalise,
        &mut experts,
        &mut weights,
    );
    Routed {
        probabilities,
        experts,
        weights,
    }
}

#[test]
fn the_largest_are_chosen_in_order() {
    for (n, n_experts, k) in [(1, 1, 1), (3, 4, 4), (5, 60, 4), (40, 128, 8), (2, 7, 1)] {
        let logits: Vec<f32> = random(1, n * n_experts).iter().map(|x| 5.0 * x).collect();
        for renormalise in [false, true] {
            let routed = route(2, &logits, n_experts, k, renormalise);
            for token in 0..n {
                let row = &logits[token * n_experts..(token + 1) * n_experts];
                let mut sorted: Vec<usize> = (0..n_experts).collect();
                sorted.sort_by(|a, b| row[*b].total_cmp(&row[*a]));
                let exps: Vec<f64> = row.iter().map(|x| f64::from(*x).exp()).collect();
                let chosen: f64 = sorted[..k].iter().map(|e| exps[*e]).sum();
                let total = if renormalise {
                    chosen
                } else {
                    exps.iter().sum()
                };
                for (slot, expert) in sorted.into_iter().take(k).enumerate() {
                    assert_eq!(routed.experts[token * k + slot] as usize, expert);
                    let weight = f64::from(routed.weights[token * k + slot]);
                    assert!((weight - exps[expert] / total).abs() < 1e-6);
                }
            }
            let rows = routed.probabilities.chunks(n_experts);
            assert!(
                rows.map(|row| row.iter().sum::<f32>())
                    .all(|sum| (sum - 1.0).abs() < 1e-5)
            );
        }
    }
}

#[test]
fn equals_come_by_number_and_what_is_no_number_is_still_an_expert() {
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    for (logits, want) in [
        ([1.0, 2.0, 1.0, 2.0, 0.0], [1, 3, 0]),
        ([0.0; 5], [0, 1, 2]),
        ([-inf, -inf, -inf, 1.0, -inf], [3, 0, 1]),
        // Different logits, one probability: too small for a float.
        ([-200.0, 0.0, -150.0, -1.0, -300.0], [1, 3, 0]),
        ([nan, 1.0, 2.0, 3.0, 4.0], [0, 1, 2]),
        ([-inf; 5], [0, 1, 2]),
        ([0.0, 1.0, inf, 3.0, 4.0], [0, 1, 2]),
    ] {
        assert_eq!(route(1, &logits, 5, 3, true).experts, want, "{logits:?}");
    }
}

#[test]
fn choices_are_grouped_by_expert_then_by_token() {
    for (n, n_experts, k) in [(0, 3, 2), (1, 4, 4), (9, 5, 2), (50, 128, 8)] {
        let routed = route(1, &random(3, n * n_experts), n_experts, k, true);
        let mut offsets = vec![7; n_experts + 1];
        let mut choices = vec![7; n * k];
        group(&routed.experts, &mut offsets, &mut choices);
        let mut want: Vec<u32> = (0..(n * k) as u32).collect();
        want.sort_by_key(|choice| routed.experts[*choice as usize]); // stable
        assert_eq!(choices, want);
        assert_eq!((offsets[0], offsets[n_experts] as usize), (0, n * k));
        for expert in 0..n_experts {
            let range = offsets[expert] as usize..offsets[expert + 1] as usize;
            let theirs = choices[range].iter().map(|c| routed.experts[*c as usize]);
            assert!(theirs.into_iter().all(|e| e as usize == expert));
        }
    }
}

/// The mixture of experts that multiply by their number plus one.
fn mixture(
    x: &[f32],
    routed: &Routed,
    cols: usize,
    k: usize,
    threads: usize,
    all: bool,
) -> Vec<f32> {
    let n_experts = 6;
    let mut pool = Pool::new(threads).unwrap();
    let mut offsets = vec![0; n_experts + 1];
    let mut choices = vec![0; routed.experts.len()];
    group(&routed.experts, &mut offsets, &mut choices);
    let mut rows = vec![f32::NAN; choices.len() * cols];
    let mut out = vec![0.0; x.len()];
    gather_rows(&mut pool, x, cols, k, &choices, &mut rows);
    for expert in 0..n_experts {
        let range = offsets[expert] as usize..offsets[expert + 1] as usize;
        let mine = &mut rows[range.start * cols..range.end * cols];
        mine.iter_mut().for_each(|x| *x *= expert as f32 + 1.0);
        if !all {
            let weights = &routed.weights;
            scatter_add_rows(&mut pool, mine, cols, k, &choices[range], weights, &mut out);
        }
    }
    if all {
        scatter_add_rows(
            &mut pool,
            &rows,
            cols,
            k,
            &choices,
            &routed.weights,
            &mut out,
        );
    }
    out
}

#[test]
fn a_token_gets_the_same_bits_in_any_batch() {
    let (n_experts, k) = (6, 3);
    for (n, cols) in [(1, 1), (7, 33), (20, 200), (64, 1000)] {
        let (logits, x) = (random(4, n * n_experts), random(5, n * cols));
        let routed = route(1, &logits, n_experts, k, true);
        let whole = mixture(&x, &routed, cols, k, 1, true);
        for token in 0..n {
            let row = &x[token * cols..(token + 1) * cols];
            let alone = route(
                2,
                &logits[token * n_experts..(token + 1) * n_experts],
                n_experts,
                k,
                true,
            );
            let factor: f64 = (0..k)
                .map(|s| f64::from(alone.weights[s]) * (f64::from(alone.experts[s]) + 1.0))
                .sum();
            let got = mixture(row, &alone, cols, k, 1, false);
            assert_eq!(got, whole[token * cols..(token + 1) * cols]);
            for (got, x) in got.iter().zip(row) {
                assert!((f64::from(*got) - f64::from(*x) * factor).abs() < 1e-5);
            }
        }
        for (threads, all) in [(1, false), (3, true), (3, false)] {
            assert_eq!(mixture(&x, &routed, cols, k, threads, all), whole);
        }
    }
}
