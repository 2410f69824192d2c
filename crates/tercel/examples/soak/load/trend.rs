//! Whether a quantity that was measured again and again grows.

use std::fmt;

/// Neighbouring measurements are alike, so they count as one: the mean of a block.
const BLOCKS: usize = 24;
/// Fewer say nothing.
const LEAST_BLOCKS: usize = 6;
/// What may come on top in the time that is judged, however long: allocators settle, and a buffer
/// that grows by doubling does so once more. A leak has no such bound.
const ALLOWED: f64 = 2.0 * MEBIBYTE;
/// With a wider interval than this, more time is needed to tell.
const WIDEST: f64 = 16.0 * MEBIBYTE;
const MEBIBYTE: f64 = 1_048_576.0;

/// A straight line through measurements, in bytes and minutes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trend {
    pub(crate) bytes_per_minute: f64,
    /// The slope lies within so much of it in 95 of 100 cases.
    pub(crate) margin: f64,
    /// The time it was measured over.
    pub(crate) minutes: f64,
}

/// What a trend says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Flat,
    Growing,
    /// The measurements vary too much for their number.
    TooShort,
}

impl Trend {
    /// The least squares line through `points`, which are minutes and bytes in order of time;
    /// nothing where there are too few.
    pub(crate) fn of(points: &[(f64, f64)]) -> Option<Self> {
        let blocks = BLOCKS.min(points.len());
        if blocks < LEAST_BLOCKS {
            return None;
        }
        let means: Vec<(f64, f64)> = (0..blocks)
            .map(|i| {
                let block = &points[i * points.len() / blocks..(i + 1) * points.len() / blocks];
                let mean = |of: fn(&(f64, f64)) -> f64| {
                    block.iter().map(of).sum::<f64>() / block.len() as f64
                };
                (mean(|point| point.0), mean(|point| point.1))
            })
            .collect();
        let n = blocks as f64;
        let x = means.iter().map(|point| point.0).sum::<f64>() / n;
        let y = means.iter().map(|point| point.1).sum::<f64>() / n;
        let spread: f64 = means.iter().map(|point| (point.0 - x).powi(2)).sum();
        if spread <= 0.0 {
            return None;
        }
        let both: f64 = means
            .iter()
            .map(|point| (point.0 - x) * (point.1 - y))
            .sum();
        let slope = both / spread;
        let residuals = means
            .iter()
            .map(|point| point.1 - y - slope * (point.0 - x));
        let variance = residuals.map(|it| it * it).sum::<f64>() / (n - 2.0);
        let minutes = points.last()?.0 - points.first()?.0;
        Some(Self {
            bytes_per_minute: slope,
            margin: student(n - 2.0) * (variance / spread).sqrt(),
            minutes,
        })
    }

    /// It grows where it certainly grows at all, and by more than is allowed over the whole time.
    pub(crate) fn verdict(&self) -> Verdict {
        let growth = self.bytes_per_minute * self.minutes;
        let margin = self.margin * self.minutes;
        if growth > ALLOWED && growth > margin {
            Verdict::Growing
        } else if margin > WIDEST {
            Verdict::TooShort
        } else {
            Verdict::Flat
        }
    }
}

impl fmt::Display for Trend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:+.0} +- {:.0} bytes/min over {:.1} min",
            self.bytes_per_minute, self.margin, self.minutes
        )
    }
}

/// The 97.5 % point of Student's t with `freedom` degrees, by its expansion around the normal
/// distribution (Abramowitz and Stegun 26.7.5).
fn student(freedom: f64) -> f64 {
    let z = 1.959_964_f64;
    let first = (z.powi(3) + z) / 4.0;
    let second = (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / 96.0;
    let third = (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / 384.0;
    z + first / freedom + second / freedom.powi(2) + third / freedom.powi(3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// A line with noise around it, a measurement every two seconds.
    fn points(minutes: f64, slope: f64, noise: usize) -> Vec<(f64, f64)> {
        let mut random = Random::new(1, 0);
        let n = (minutes * 30.0) as usize;
        let at = |i: usize| i as f64 / 30.0;
        (0..n)
            .map(|i| {
                let noise = random.between(0, 2 * noise + 1) as f64 - noise as f64;
                (at(i), 3e8 + slope * at(i) + noise)
            })
            .collect()
    }

    #[test]
    fn a_slope_is_found_within_its_margin() {
        for (slope, noise) in [(0.0, 100_000), (50_000.0, 100_000), (-2e6, 3_000_000)] {
            let trend = Trend::of(&points(10.0, slope, noise)).expect("enough points");
            assert!(
                (trend.bytes_per_minute - slope).abs() <= trend.margin,
                "{slope}: {trend}"
            );
            assert!(trend.margin < noise as f64, "{slope}: {trend}");
        }
        let exact = Trend::of(&points(10.0, 1000.0, 0)).expect("enough points");
        assert!((exact.bytes_per_minute - 1000.0).abs() < 1.0, "{exact}");
    }

    #[test]
    fn growth_is_told_from_noise_and_from_too_little_time() {
        let mega = 1_000_000;
        for (minutes, slope, noise, want) in [
            (5.0, 0.0, mega, Verdict::Flat),
            // A kilobyte for each of 500 requests a minute, in ten minutes and in two hours.
            (10.0, 512_000.0, mega, Verdict::Growing),
            (120.0, 51_200.0, mega, Verdict::Growing),
            (10.0, 100_000.0, mega, Verdict::Flat),
            (5.0, -4e6, mega, Verdict::Flat),
            (1.0, 0.0, 200 * mega, Verdict::TooShort),
        ] {
            let trend = Trend::of(&points(minutes, slope, noise)).expect("enough points");
            assert_eq!(trend.verdict(), want, "{minutes} {slope} {noise}: {trend}");
        }
    }

    #[test]
    fn too_few_points_give_no_trend() {
        assert!(Trend::of(&points(10.0, 0.0, 9)[..LEAST_BLOCKS - 1]).is_none());
        assert!(Trend::of(&[(1.0, 1.0); 30]).is_none());
    }

    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (freedom, want) in [(4.0, 2.776), (10.0, 2.228), (22.0, 2.074), (1e9, 1.960)] {
            assert!((student(freedom) - want).abs() < 0.01, "{freedom}");
        }
    }
}
