//! Short causal convolution along the tokens of a sequence, one filter per channel, followed by
//! SiLU, as the layers of the gated delta rule have it before their heads
//! (Yang et al., 2024; transformers, `causal_conv1d_update`).
//!
//! The sequence may come in chunks: the state carries the last inputs from one to the next, and a
//! chunked sequence has the bits of a whole one.

mod scalar;
mod vector;

use std::ops::Range;

use super::SharedMut;
use crate::dispatch::{dispatch, versions};
use crate::{Isa, Pool};

versions! {
    fn row(before: &[&[f32]], weights: &[[f32; BLOCK]], x: &mut [f32]);
}

/// Longest filter.
pub const MAX_TAPS: usize = 8;
/// Channels computed side by side. Ranges of threads start at multiples of this.
const BLOCK: usize = 64;
/// Fewer numbers than this are not worth another thread.
const MIN_NUMBERS: usize = 2048;

/// Replaces each input of a channel by `silu(sum of its last inputs, each times its weight)`.
///
/// `x` is `(n, channels)`, consecutive tokens of one sequence. `weight` is `(channels, taps)`, the
/// tap of the newest input last, with 2 to [`MAX_TAPS`] taps. `state` is `(taps - 1, channels)`:
/// the inputs before `x`, oldest first, zeros before the first token of a sequence; after the call
/// the last inputs up to the end of `x`.
///
/// # Panics
/// When a length does not fit the shapes, or the filter is too short or too long.
pub fn short_conv(
    pool: &mut Pool,
    isa: Isa,
    channels: usize,
    x: &mut [f32],
    weight: &[f32],
    state: &mut [f32],
) {
    let taps = weight.len() / channels.max(1);
    assert!(
        weight.len() == taps * channels && (2..=MAX_TAPS).contains(&taps),
        "{} weights are no filters of 2 to {MAX_TAPS} taps for {channels} channels",
        weight.len()
    );
    assert!(
        x.len().is_multiple_of(channels) && state.len() == (taps - 1) * channels,
        "{} inputs and {} numbers of state for {channels} channels of {taps} taps",
        x.len(),
        state.len()
    );
    let n = x.len() / channels;
    if n == 0 {
        return;
    }
    let columns = Columns {
        taps,
        n,
        channels,
        x: SharedMut::new(x),
        state: SharedMut::new(state),
    };
    let job = |_, blocks: Range<usize>| {
        for block in blocks {
            let range = block * BLOCK..channels.min((block + 1) * BLOCK);
            columns.convolve(isa, range, weight);
        }
    };
    let grain = MIN_NUMBERS.div_ceil(BLOCK * n);
    pool.run(channels.div_ceil(BLOCK), grain, job);
}

/// State and inputs as one sequence of `taps - 1 + n` rows.
struct Columns<'a> {
    taps: usize,
    n: usize,
    channels: usize,
    x: SharedMut<'a, f32>,
    state: SharedMut<'a, f32>,
}

impl Columns<'_> {
    /// Convolves at most [`BLOCK`] channels, which no other thread touches meanwhile.
    fn convolve(&self, isa: Isa, range: Range<usize>, weight: &[f32]) {
        let (taps, width) = (self.taps, range.len());
        // (taps, BLOCK): a weight for each lane.
        let mut weights = [[0.0; BLOCK]; MAX_TAPS];
        let filters = weight[range.start * taps..range.end * taps].chunks_exact(taps);
        for (lane, filter) in filters.enumerate() {
            for (row, weight) in weights.iter_mut().zip(filter) {
                row[lane] = *weight;
            }
        }
        // Inputs are read before they are replaced: the new state first, then from the last token
        // back to the first.
        let mut kept = [[0.0; BLOCK]; MAX_TAPS - 1];
        for (i, kept) in kept[..taps - 1].iter_mut().enumerate() {
            // SAFETY: a row of these channels, which are this call's; no other slice lives.
            kept[..width].copy_from_slice(unsafe { self.row(self.n + i, &range) });
        }
        for token in (0..self.n).rev() {
            let before: [&[f32]; MAX_TAPS - 1] = std::array::from_fn(|i| {
                if i + 1 < taps {
                    // SAFETY: rows `token` to `token + taps - 1` are different rows of these
                    // channels, which are this call's.
                    unsafe { &*self.row(token + i, &range) }
                } else {
                    &[]
                }
            });
            // SAFETY: as above.
            let x = unsafe { self.row(token + taps - 1, &range) };
            dispatch!(isa, row(&before[..taps - 1], &weights[..taps], x));
        }
        for (i, kept) in kept[..taps - 1].iter().enumerate() {
            // SAFETY: as above; the state has `taps - 1` rows.
            unsafe { self.row(i, &range) }.copy_from_slice(&kept[..width]);
        }
    }

    /// The channels of `range` in row `index` of state and inputs.
    ///
    /// # Safety
    /// As [`SharedMut::slice`]: no slice that overlaps may live.
    #[expect(clippy::mut_from_ref, reason = "disjointness is the caller's promise")]
    unsafe fn row(&self, index: usize, range: &Range<usize>) -> &mut [f32] {
        let (rows, index) = match index.checked_sub(self.taps - 1) {
            Some(token) => (&self.x, token),
            None => (&self.state, index),
        };
        let at = index * self.channels;
        // SAFETY: by the contract of this function.
        unsafe { rows.slice(at + range.start..at + range.end) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::random;
    use super::*;

    /// The definition, in double precision, for a whole sequence.
    fn reference(channels: usize, x: &[f32], weight: &[f32], state: &[f32]) -> Vec<f64> {
        let taps = weight.len() / channels;
        let inputs: Vec<f32> = state.iter().chain(x).copied().collect();
        (0..x.len())
            .map(|i| {
                let (token, channel) = (i / channels, i % channels);
                let sum: f64 = (0..taps)
                    .map(|tap| {
                        f64::from(inputs[(token + tap) * channels + channel])
                            * f64::from(weight[channel * taps + tap])
                    })
                    .sum();
                sum / (1.0 + (-sum).exp())
            })
            .collect()
    }

    fn convolve(
        isa: Isa,
        threads: usize,
        channels: usize,
        x: &[f32],
        weight: &[f32],
        state: &mut [f32],
        chunk: usize,
    ) -> Vec<f32> {
        let mut pool = Pool::new(threads).unwrap();
        let mut out = x.to_vec();
        for x in out.chunks_mut(chunk * channels) {
            short_conv(&mut pool, isa, channels, x, weight, state);
        }
        out
    }

    #[test]
    fn every_isa_is_near_the_definition() {
        for isa in Isa::available() {
            for (channels, taps, n) in [
                (1, 2, 1),
                (7, 4, 1),
                (8, 3, 5),
                (13, 8, 3),
                (64, 4, 2),
                (65, 5, 20),
                (300, 4, 11),
            ] {
                let x: Vec<f32> = random(1, n * channels).iter().map(|x| 3.0 * x).collect();
                let weight = random(2, taps * channels);
                let before = random(3, (taps - 1) * channels);
                let mut state = before.clone();
                let got = convolve(isa, 2, channels, &x, &weight, &mut state, n);
                let want = reference(channels, &x, &weight, &before);
                for (got, want) in got.iter().zip(&want) {
                    // At most eight products, each up to 3, and the sigmoid's own error.
                    let error = (f64::from(*got) - want).abs();
                    assert!(error <= 4e-6, "{channels} {taps} {n}: {got}, want {want}");
                }
                let inputs: Vec<f32> = before.iter().chain(&x).copied().collect();
                assert_eq!(
                    state,
                    inputs[n * channels..],
                    "the state is the last inputs"
                );
            }
        }
    }

    #[test]
    fn chunks_and_threads_give_the_bits_of_the_whole() {
        for isa in Isa::available() {
            for (channels, taps) in [(70, 4), (200, 8), (5000, 2)] {
                let x = random(1, 13 * channels);
                let weight = random(2, taps * channels);
                let mut state = vec![0.0; (taps - 1) * channels];
                let whole = convolve(isa, 1, channels, &x, &weight, &mut state, 13);
                for (chunk, threads) in [(1, 1), (2, 3), (5, 2), (13, 4)] {
                    let mut other = vec![0.0; (taps - 1) * channels];
                    let cut = convolve(isa, threads, channels, &x, &weight, &mut other, chunk);
                    assert_eq!(cut, whole, "chunks of {chunk}, {threads} threads");
                    assert_eq!(other, state);
                }
            }
        }
    }

    #[test]
    fn no_tokens_change_nothing() {
        let mut state = random(1, 3 * 10);
        let before = state.clone();
        let mut pool = Pool::new(1).unwrap();
        let weight = random(2, 40);
        short_conv(&mut pool, Isa::SCALAR, 10, &mut [], &weight, &mut state);
        assert_eq!(state, before);
    }
}
