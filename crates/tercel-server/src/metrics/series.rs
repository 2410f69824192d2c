//! Values that come again and again: a histogram of all, and percentiles of the latest.

use std::collections::VecDeque;
use std::sync::Mutex;

use super::lock;

/// The latest values that percentiles are of.
const WINDOW: usize = 5000;

/// Upper ends of the buckets of a histogram, in seconds.
pub(super) const SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0,
    120.0, 300.0,
];
pub(super) const TOKEN_SECONDS: &[f64] = &[
    0.001, 0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5,
    1.0, 2.5,
];
pub(super) const TOKENS_PER_SECOND: &[f64] = &[
    1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 50.0, 75.0, 100.0, 150.0, 200.0, 300.0, 500.0, 1000.0,
];

/// Percentiles of times.
pub(super) const HIGH: [u32; 4] = [50, 90, 95, 99];
/// Percentiles of a throughput, whose slow tail is the low one.
pub(super) const LOW_AND_HIGH: [u32; 6] = [5, 10, 50, 90, 95, 99];

pub(super) struct Series {
    bounds: &'static [f64],
    state: Mutex<State>,
}

struct State {
    /// One for each bound, and one above.
    buckets: Vec<u64>,
    sum: f64,
    latest: VecDeque<f64>,
}

/// A histogram at one moment.
pub(super) struct Histogram {
    /// How many values are at or below each bound.
    pub(super) cumulative: Vec<(f64, u64)>,
    pub(super) sum: f64,
    pub(super) count: u64,
}

impl Series {
    pub(super) fn new(bounds: &'static [f64]) -> Self {
        Self {
            bounds,
            state: Mutex::new(State {
                buckets: vec![0; bounds.len() + 1],
                sum: 0.0,
                latest: VecDeque::with_capacity(WINDOW),
            }),
        }
    }

    /// Adds `value` so many times.
    pub(super) fn add(&self, value: f64, times: usize) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        let mut state = lock(&self.state);
        if let Some(bucket) = state.buckets.get_mut(bucket) {
            *bucket += u64::try_from(times).unwrap_or(u64::MAX);
        }
        for _ in 0..times.min(WINDOW) {
            if state.latest.len() == WINDOW {
                state.latest.pop_front();
            }
            state.latest.push_back(value);
        }
        state.sum += value * f64::from(u32::try_from(times).unwrap_or(u32::MAX));
    }

    pub(super) fn histogram(&self) -> Histogram {
        let state = lock(&self.state);
        let mut count = 0;
        let cumulative = self
            .bounds
            .iter()
            .zip(&state.buckets)
            .map(|(bound, bucket)| {
                count += bucket;
                (*bound, count)
            });
        let cumulative = cumulative.collect();
        Histogram {
            cumulative,
            sum: state.sum,
            count: state.buckets.iter().sum(),
        }
    }

    /// The latest values, sorted.
    pub(super) fn window(&self) -> Vec<f64> {
        let mut values: Vec<f64> = lock(&self.state).latest.iter().copied().collect();
        values.sort_by(f64::total_cmp);
        values
    }
}

/// The value of nearest rank: at `(n - 1) * percent / 100` of the sorted values, rounded to the
/// even one where two are equally near. In whole numbers, so that a tie is a tie.
pub(super) fn percentile(sorted: &[f64], percent: u32) -> Option<f64> {
    let scaled = sorted.len().checked_sub(1)? * usize::try_from(percent).ok()?;
    let (index, rest) = (scaled / 100, scaled % 100);
    let up = rest > 50 || (rest == 50 && index % 2 == 1);
    sorted.get(index + usize::from(up)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_nearest_rank_and_ties_go_to_the_even_one() {
        let values = |n: u32| (0..n).map(f64::from).collect::<Vec<_>>();
        for (n, percent, value) in [
            (1, 99, Some(0.0)),
            (2, 50, Some(0.0)),
            (4, 50, Some(2.0)),
            (6, 50, Some(2.0)),
            (8, 50, Some(4.0)),
            (11, 90, Some(9.0)),
            (11, 95, Some(10.0)),
            (101, 99, Some(99.0)),
            (100, 99, Some(98.0)),
            (21, 5, Some(1.0)),
            (6, 10, Some(0.0)),
            (0, 50, None),
        ] {
            assert_eq!(percentile(&values(n), percent), value, "p{percent} of {n}");
        }
    }

    #[test]
    fn a_value_at_a_bound_is_in_its_bucket_and_all_are_counted() {
        let series = Series::new(&[1.0, 2.0]);
        for (value, times) in [(0.5, 1), (1.0, 2), (1.5, 1), (9.0, 3)] {
            series.add(value, times);
        }
        let histogram = series.histogram();
        assert_eq!(histogram.cumulative, [(1.0, 3), (2.0, 4)]);
        assert_eq!((histogram.count, histogram.sum), (7, 31.0));
    }

    #[test]
    fn the_window_keeps_the_latest() {
        let series = Series::new(SECONDS);
        series.add(1.0, WINDOW);
        series.add(2.0, 1);
        let window = series.window();
        assert_eq!(
            (window.len(), window[0], window[WINDOW - 1]),
            (WINDOW, 1.0, 2.0)
        );
        series.add(3.0, 2 * WINDOW);
        assert_eq!(series.window()[0], 3.0);
        assert_eq!(series.histogram().count, 3 * 5000 + 1);
    }
}
