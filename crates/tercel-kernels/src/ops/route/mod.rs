//! Routing of a mixture of experts: which experts a token goes to, and with which weights; the
//! tokens of each expert; and the sum of what comes back.
//!
//! A token's place with an expert is a *choice*: number `token * k + slot`, where the slots of a
//! token are its `k` experts, heaviest first. Choices are sorted by expert ([`group`]), so that a
//! caller gathers rows expert by expert ([`gather_rows`]), multiplies, and adds them back
//! ([`scatter_add_rows`]).
//!
//! # Order
//! Within an expert choices stand by token, and experts follow each other by number. What a token
//! receives is so added in the order of its experts' numbers, whoever else is in the batch, and
//! whether the rows come back all at once or expert by expert from the first.

#[cfg(test)]
mod tests;

use std::ops::Range;

use super::SharedMut;
use crate::Pool;

/// Fewer numbers than this are not worth another thread.
const MIN_NUMBERS: usize = 16384;
/// Columns in a thread's part of a sum: a whole number of cache lines.
const COLUMN_GRAIN: usize = 64;

/// Chooses the `k` experts of each token: those of the largest probability by softmax over all
/// experts, largest first, the lower number first among equals.
///
/// `logits` is `(n, n_experts)`, and holds the probabilities afterwards. `experts` and `weights`
/// are `(n, k)`: numbers of experts, and their probabilities, divided by their sum when
/// `renormalise`. A token with a logit that is NaN or infinite upwards gets experts 0 to
/// `k - 1`, and NaN for their weights.
///
/// # Panics
/// When a length does not fit, or `k` is zero or more than `n_experts`.
pub fn top_k(
    pool: &mut Pool,
    logits: &mut [f32],
    n_experts: usize,
    k: usize,
    renormalise: bool,
    experts: &mut [u32],
    weights: &mut [f32],
) {
    assert!(
        (1..=n_experts).contains(&k) && u32::try_from(n_experts).is_ok(),
        "{k} of {n_experts} experts"
    );
    let n = logits.len() / n_experts;
    assert!(
        logits.len() == n * n_experts && experts.len() == n * k && weights.len() == n * k,
        "{} logits, {} experts and {} weights for {k} of {n_experts}",
        logits.len(),
        experts.len(),
        weights.len()
    );
    let logits = SharedMut::new(logits);
    let (experts, weights) = (SharedMut::new(experts), SharedMut::new(weights));
    let job = |_, tokens: Range<usize>| {
        for token in tokens {
            // SAFETY: each token belongs to one range.
            let (logits, experts, weights) = unsafe {
                (
                    logits.slice(token * n_experts..(token + 1) * n_experts),
                    experts.slice(token * k..(token + 1) * k),
                    weights.slice(token * k..(token + 1) * k),
                )
            };
            softmax(logits);
            choose(logits, experts, weights);
            if renormalise {
                let sum: f32 = weights.iter().sum();
                weights.iter_mut().for_each(|weight| *weight /= sum);
            }
        }
    };
    pool.run(n, MIN_NUMBERS.div_ceil(n_experts * (k + 8)), job);
}

fn softmax(x: &mut [f32]) {
    let largest = x
        .iter()
        .fold(f32::NEG_INFINITY, |largest, x| largest.max(*x));
    let mut sum = 0.0;
    for x in x.iter_mut() {
        *x = (*x - largest).exp();
        sum += *x;
    }
    x.iter_mut().for_each(|x| *x /= sum);
}

/// Finds the largest numbers one after another: each is the first of those behind the last one
/// found, so nothing need be marked.
fn choose(probabilities: &[f32], experts: &mut [u32], weights: &mut [f32]) {
    let key = |p: f32| if p.is_nan() { -1.0 } else { p };
    let (mut last, mut last_index) = (f32::INFINITY, 0);
    for (expert, weight) in experts.iter_mut().zip(weights) {
        let mut best = (f32::NEG_INFINITY, 0);
        for (index, p) in probabilities.iter().enumerate() {
            let p = key(*p);
            let behind = p < last || (p == last && index > last_index);
            if behind && p > best.0 {
                best = (p, index);
            }
        }
        (last, last_index) = best;
        *expert = last_index as u32;
        *weight = probabilities[last_index];
    }
}

/// Sorts choices by expert: those of expert `e` are `choices[offsets[e]..offsets[e + 1]]`, by
/// token.
///
/// `experts` is `(n, k)`, `offsets` has one number more than there are experts, `choices` is as
/// long as `experts`.
///
/// # Panics
/// When a length does not fit, or an expert's number is too large.
pub fn group(experts: &[u32], offsets: &mut [u32], choices: &mut [u32]) {
    assert!(
        experts.len() == choices.len() && u32::try_from(experts.len()).is_ok(),
        "{} choices of {} experts",
        choices.len(),
        experts.len()
    );
    let n_experts = offsets.len().saturating_sub(1);
    offsets.fill(0);
    for expert in experts {
        offsets[..n_experts][*expert as usize] += 1;
    }
    // Counts to where each expert begins; the last, past them all, is the end.
    let mut begin = 0;
    for offset in offsets.iter_mut() {
        begin += std::mem::replace(offset, begin);
    }
    for (choice, expert) in experts.iter().enumerate() {
        let next = &mut offsets[*expert as usize];
        choices[*next as usize] = choice as u32;
        *next += 1;
    }
    // Each has moved to where the next begins.
    offsets.copy_within(..n_experts, 1);
    offsets[0] = 0;
}

/// Copies to each row of `out` the row of `x` that its choice's token has.
///
/// `x` is `(n, cols)`, `out` is `(choices, cols)`, and `k` choices belong to a token.
///
/// # Panics
/// When a length does not fit or a choice is of no token.
pub fn gather_rows(
    pool: &mut Pool,
    x: &[f32],
    cols: usize,
    k: usize,
    choices: &[u32],
    out: &mut [f32],
) {
    assert!(
        cols > 0 && k > 0 && x.len().is_multiple_of(cols) && out.len() == choices.len() * cols,
        "{} numbers for {} rows of {cols}",
        out.len(),
        choices.len()
    );
    let out = SharedMut::new(out);
    let job = |_, rows: Range<usize>| {
        for row in rows {
            let token = choices[row] as usize / k;
            // SAFETY: each row belongs to one range.
            let out = unsafe { out.slice(row * cols..(row + 1) * cols) };
            out.copy_from_slice(&x[token * cols..(token + 1) * cols]);
        }
    };
    pool.run(choices.len(), MIN_NUMBERS.div_ceil(cols), job);
}

/// Adds each row, times its choice's weight, to the row of `out` that its choice's token has, in
/// the order of `choices`.
///
/// `rows` is `(choices, cols)`, `weights` is `(n, k)`, `out` is `(n, cols)`.
///
/// # Panics
/// When a length does not fit or a choice is of no token.
pub fn scatter_add_rows(
    pool: &mut Pool,
    rows: &[f32],
    cols: usize,
    k: usize,
    choices: &[u32],
    weights: &[f32],
    out: &mut [f32],
) {
    assert!(
        cols > 0 && k > 0 && rows.len() == choices.len() * cols,
        "{} numbers for {} rows of {cols}",
        rows.len(),
        choices.len()
    );
    assert!(
        out.len().is_multiple_of(cols) && weights.len() == out.len() / cols * k,
        "{} weights for {} sums of {k} rows",
        weights.len(),
        out.len() / cols
    );
    let out = SharedMut::new(out);
    // Threads share the columns, not the rows: a token may be there more than once.
    let job = |_, grains: Range<usize>| {
        let columns = grains.start * COLUMN_GRAIN..cols.min(grains.end * COLUMN_GRAIN);
        for (row, choice) in rows.chunks_exact(cols).zip(choices) {
            let weight = weights[*choice as usize];
            let at = *choice as usize / k * cols;
            // SAFETY: ranges of columns are disjoint, and the last row's slice is gone.
            let out = unsafe { out.slice(at + columns.start..at + columns.end) };
            for (out, x) in out.iter_mut().zip(&row[columns.clone()]) {
                *out += weight * x;
            }
        }
    };
    let grain = MIN_NUMBERS.div_ceil(COLUMN_GRAIN * choices.len().max(1));
    pool.run(cols.div_ceil(COLUMN_GRAIN), grain, job);
}
