//! The reference: online softmax over the pages of a span.

use super::cache::Encoding;
use super::{PAGE, Partial, Span};

pub(super) fn attend<E: Encoding>(span: &Span<'_, E>, partial: Partial<'_>, _codes: &mut [f32]) {
    let Partial {
        sums,
        maximums,
        totals,
    } = partial;
    let dim = span.shape.head_dim;
    for (part, seen) in span.pages() {
        let heads = span.q.chunks_exact(dim).zip(sums.chunks_exact_mut(dim));
        for (head, (q, sums)) in heads.enumerate() {
            let mut scores = [f32::NEG_INFINITY; PAGE];
            for token in seen.clone() {
                let products = q
                    .iter()
                    .enumerate()
                    .map(|(d, q)| q * E::key(part, dim, token, d));
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
                    .map(|token| weights[token] * E::value(part, dim, token, d));
                *sum = *sum * keep + new.sum::<f32>();
            }
        }
    }
}
