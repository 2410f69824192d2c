//! What stands between products and attention: norms, activations, rotation, recurrence, routing.

use std::hint::black_box;

use tercel_kernels::ops::elementwise::mul_sigmoid;
use tercel_kernels::ops::gated::{Activation, gated};
use tercel_kernels::ops::gated_delta::{Shape, Sharing, gated_delta};
use tercel_kernels::ops::norm_gated::norm_gated;
use tercel_kernels::ops::rms_norm::rms_norm;
use tercel_kernels::ops::rope::{Pairing, rope};
use tercel_kernels::ops::route::{gather_rows, group, scatter_add_rows, top_k};
use tercel_kernels::ops::short_conv::short_conv;

use crate::Case;
use crate::data::random;

const TOKENS: usize = 64;
const COLS: usize = 1024;
const NUMBERS: &str = "numbers";
const EPS: f32 = 1e-6;

pub(crate) fn cases() -> impl Iterator<Item = Case> {
    let norms = [norm(), head_norm()];
    let gates = [
        gate("gated/silu", Some(Activation::Silu)),
        gate("gated/gelu", Some(Activation::GeluTanh)),
        gate("gated/sigmoid", None),
    ];
    let ropes = [
        rotation("rope/adjacent", Pairing::Adjacent),
        rotation("rope/halves", Pairing::Halves),
    ];
    let recurrent = [delta_rule(1), delta_rule(16), convolution()];
    let experts = [choice(), exchange()];
    norms
        .into_iter()
        .chain(gates)
        .chain(ropes)
        .chain(recurrent)
        .chain(experts)
}

fn norm() -> Case {
    let name = "rms_norm".to_owned();
    Case::new(name, (TOKENS * COLS, NUMBERS), |_| {
        let (x, weight) = (random(1, TOKENS * COLS), random(2, COLS));
        let mut out = vec![0.0; x.len()];
        Ok(Box::new(move |pool, isa| {
            rms_norm(pool, isa, &x, &weight, EPS, &mut out);
            black_box(&out);
            Ok(())
        }))
    })
}

fn head_norm() -> Case {
    const HEAD_DIM: usize = 128;
    let name = "norm_gated".to_owned();
    Case::new(name, (TOKENS * COLS, NUMBERS), |_| {
        let (mut x, gate) = (random(1, TOKENS * COLS), random(2, TOKENS * COLS));
        let weight = random(3, HEAD_DIM);
        Ok(Box::new(move |pool, isa| {
            norm_gated(pool, isa, &mut x, &gate, &weight, EPS);
            black_box(&x);
            Ok(())
        }))
    })
}

/// The gate of a feed-forward layer, or, without an activation, the one behind attention.
fn gate(name: &str, activation: Option<Activation>) -> Case {
    Case::new(name.to_owned(), (TOKENS * COLS, NUMBERS), move |_| {
        let (mut x, y) = (random(1, TOKENS * COLS), random(2, TOKENS * COLS));
        Ok(Box::new(move |pool, isa| {
            match activation {
                Some(activation) => gated(pool, isa, activation, &mut x, &y),
                None => mul_sigmoid(pool, isa, &mut x, &y),
            }
            black_box(&x);
            Ok(())
        }))
    })
}

fn rotation(name: &str, pairing: Pairing) -> Case {
    const HEAD_DIM: usize = 64;
    const HEADS: usize = COLS / HEAD_DIM;
    Case::new(name.to_owned(), (TOKENS * COLS, NUMBERS), move |_| {
        let mut x = random(1, TOKENS * COLS);
        // 0.8 and 0.6 are a cosine and a sine.
        let table = [0.8, 0.6].repeat(TOKENS * HEAD_DIM / 2);
        Ok(Box::new(move |_, _| {
            rope(&mut x, HEADS, HEAD_DIM, pairing, &table);
            black_box(&x);
            Ok(())
        }))
    })
}

fn delta_rule(tokens: usize) -> Case {
    const SHAPE: Shape = Shape {
        n_key_heads: 4,
        n_value_heads: 8,
        key_dim: 128,
        value_dim: 128,
        sharing: Sharing::Grouped,
    };
    let name = format!("gated_delta/{tokens}");
    // Each number of the state is scaled, read, added to and read.
    let amount = 4 * tokens * SHAPE.state_len();
    Case::new(name, (amount, "multiply-adds"), move |_| {
        let heads = SHAPE.n_value_heads;
        let (decay, bias) = (vec![-0.5; heads], random(1, heads));
        let inputs = [
            random(2, tokens * SHAPE.qkv_len()),
            random(3, tokens * heads),
            random(4, tokens * heads),
        ];
        let mut used = inputs.clone();
        let mut state = vec![0.0; SHAPE.state_len()];
        let mut out = vec![0.0; tokens * SHAPE.out_len()];
        Ok(Box::new(move |pool, isa| {
            for (used, input) in used.iter_mut().zip(&inputs) {
                used.copy_from_slice(input);
            }
            let [qkv, a, b] = &mut used;
            let (state, out) = (&mut state, &mut out);
            gated_delta(pool, isa, &SHAPE, qkv, a, b, &decay, &bias, state, out);
            black_box(out);
            Ok(())
        }))
    })
}

fn convolution() -> Case {
    const TAPS: usize = 4;
    let name = "short_conv".to_owned();
    let amount = (TOKENS * COLS * TAPS, "multiply-adds");
    Case::new(name, amount, |_| {
        let (mut x, weight) = (random(1, TOKENS * COLS), random(2, TAPS * COLS));
        let mut state = vec![0.0; (TAPS - 1) * COLS];
        Ok(Box::new(move |pool, isa| {
            short_conv(pool, isa, COLS, &mut x, &weight, &mut state);
            black_box(&x);
            Ok(())
        }))
    })
}

const EXPERTS: usize = 64;
const CHOSEN: usize = 8;

/// Which experts each token goes to.
fn choice() -> Case {
    let name = "route/choose".to_owned();
    Case::new(name, (TOKENS * EXPERTS, NUMBERS), |_| {
        let logits = random(1, TOKENS * EXPERTS);
        let mut used = logits.clone();
        let (mut experts, mut weights) = (vec![0; TOKENS * CHOSEN], vec![0.0; TOKENS * CHOSEN]);
        let (mut offsets, mut choices) = (vec![0; EXPERTS + 1], vec![0; TOKENS * CHOSEN]);
        Ok(Box::new(move |pool, _| {
            used.copy_from_slice(&logits);
            let (experts, weights) = (&mut experts, &mut weights);
            top_k(pool, &mut used, EXPERTS, CHOSEN, true, experts, weights);
            group(experts, &mut offsets, &mut choices);
            black_box((&weights, &choices));
            Ok(())
        }))
    })
}

/// Rows to their experts and back.
fn exchange() -> Case {
    let name = "route/exchange".to_owned();
    let amount = (TOKENS * CHOSEN * COLS, NUMBERS);
    Case::new(name, amount, |_| {
        let (x, weights) = (random(1, TOKENS * COLS), random(2, TOKENS * CHOSEN));
        let choices: Vec<u32> = (0..).take(TOKENS * CHOSEN).collect();
        let mut rows = vec![0.0; choices.len() * COLS];
        let mut out = vec![0.0; TOKENS * COLS];
        Ok(Box::new(move |pool, _| {
            gather_rows(pool, &x, COLS, CHOSEN, &choices, &mut rows);
            scatter_add_rows(pool, &rows, COLS, CHOSEN, &choices, &weights, &mut out);
            black_box(&out);
            Ok(())
        }))
    })
}
