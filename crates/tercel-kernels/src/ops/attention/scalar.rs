//! The reference: online softmax over the pages of a span.

use half::f16;

use super::{PAGE, Span};

pub(super) fn attend(span: &Span<'_>, sums: &mut [f32], maximums: &mut [f32], totals: &mut [f32]) {
    let dim = span.shape.head_dim;
    let float = |bits: u16| f16::from_bits(bits).to_f32();
    for (keys, values, seen) in span.pages() {
        let heads = span.q.chunks_exact(dim).zip(sums.chunks_exact_mut(dim));
        for (head, (q, sums)) in heads.enumerate() {
            let mut scores = [f32::NEG_INFINITY; PAGE];
            for token in seen.clone() {
                let products = q
                    .iter()
                    .enumerate()
                    .map(|(d, q)| q * float(keys[d * PAGE + token]));
                scores[token] = products.sum::<f32>() * span.shape.scale;
            }
            let maximum = scores
                .iter()
                .fold(maximums[head], |largest, x| largest.max(*x));
            let keep = (maximums[head] - maximum).exp();
            let weights = scores.map(|score| (score - maximum).exp());
            maximums[head] = maximum;
            totals[head] = totals[head] * keep + weights.iter().sum::<f32>();
            for (d, sum) in sums.iter_mut().enumerate() {
                let new = seen
                    .clone()
                    .map(|token| weights[token] * float(values[token * dim + d]));
                *sum = *sum * keep + new.sum::<f32>();
            }
        }
    }
}
