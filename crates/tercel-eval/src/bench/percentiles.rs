//! What is said of a sample of numbers.

use serde::Serialize;

/// Mean, ends and percentiles of a sample.
///
/// A percentile is an element of the sorted sample: the one at index `(n - 1) * p`, rounded half to
/// even.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Percentiles {
    /// The arithmetic mean.
    pub mean: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// What 5 % are below.
    pub p5: f64,
    /// What 10 % are below.
    pub p10: f64,
    /// The median.
    pub p50: f64,
    /// What 90 % are below.
    pub p90: f64,
    /// What 95 % are below.
    pub p95: f64,
    /// What 99 % are below.
    pub p99: f64,
}

impl Percentiles {
    /// Those of a sample; `None` where it is empty or has a number that is not finite.
    pub fn of(sample: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = sample.into_iter().collect();
        if sorted.is_empty() || sorted.iter().any(|x| !x.is_finite()) {
            return None;
        }
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len() - 1;
        let at = |p: f64| sorted[(last as f64 * p).round_ties_even() as usize];
        Some(Self {
            mean: sorted.iter().sum::<f64>() / sorted.len() as f64,
            min: sorted[0],
            max: sorted[last],
            p5: at(0.05),
            p10: at(0.10),
            p50: at(0.50),
            p90: at(0.90),
            p95: at(0.95),
            p99: at(0.99),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_rounded_half_to_even() {
        // The two samples whose indexes the specification names (chapter 1.4).
        let four = Percentiles::of([0.0, 1.0, 2.0, 3.0]).unwrap_or_default();
        assert_eq!(four.p50, 2.0);
        let twenty = Percentiles::of((0..20).rev().map(f64::from)).unwrap_or_default();
        assert_eq!((twenty.p95, twenty.p5, twenty.mean), (18.0, 1.0, 9.5));
        assert_eq!((twenty.min, twenty.max, twenty.p99), (0.0, 19.0, 19.0));
        let one = Percentiles::of([7.0]).unwrap_or_default();
        assert_eq!((one.p5, one.p50, one.p99), (7.0, 7.0, 7.0));
    }

    #[test]
    fn there_are_none_of_nothing() {
        assert_eq!(Percentiles::of([]), None);
        assert_eq!(Percentiles::of([1.0, f64::NAN]), None);
    }
}
