//! The reference: online softmax over the pages of a span.

use super::cache::Encoding;
use super::{PAGE, Partial, Span};

pub(super) fn attend<E: Encoding>(span: &Span<'_, E>, partial: &mut Partial<'_>) {
    let dim = span.shape.head_dim;
    let group = span.q.len() / dim / span.queries();
    for (page, part) in span.pages() {
        let rows = span
            .q
            .chunks_exact(dim)
            .zip(partial.sums.chunks_exact_mut(dim));
        for (row, (q, sums)) in rows.enumerate() {
            let seen = span.seen_of(page, row / group);
            if seen.is_empty() {
                continue;
            }
            let mut scores = [f32::NEG_INFINITY; PAGE];
            for token in seen.clone() {
                let products = q
                    .iter()
                    .enumerate()
                    .map(|(d, q)| q * E::key(part, dim, token, d));
                scores[token] = products.sum::<f32>() * span.shape.scale;
            }
            let before = partial.maximums[row];
            let maximum = scores.iter().fold(before, |largest, x| largest.max(*x));
            let keep = (before - maximum).exp();
            let weights = scores.map(|score| (score - maximum).exp());
            partial.maximums[row] = maximum;
            partial.totals[row] = partial.totals[row] * keep + weights.iter().sum::<f32>();
            for (d, sum) in sums.iter_mut().enumerate() {
                let new = seen
                    .clone()
                    .map(|token| weights[token] * E::value(part, dim, token, d));
                *sum = *sum * keep + new.sum::<f32>();
            }
        }
    }
}
