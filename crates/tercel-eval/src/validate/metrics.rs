//! How far two rows of logits lie apart.

use serde::Serialize;

use super::triage::Thresholds;

/// Places that the overlap looks at.
pub const TOP: usize = 5;

/// The logits after one token, compared.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PositionReport {
    /// The token's place, from 0.
    pub position: usize,
    /// The largest difference of a logit.
    pub max_abs: f64,
    /// The mean squared difference.
    pub mse: f64,
    /// The root of `mse` as a share of the spread (standard deviation) of the reference's logits.
    pub relative: f64,
    /// Whether the same token is the most likely.
    pub argmax_equal: bool,
    /// The share of the reference's five most likely tokens that are among the model's five.
    pub overlap: f64,
    /// How far the reference's best logit is above its second.
    pub gap: f64,
}

impl PositionReport {
    /// Whether every logit is a number.
    pub fn is_finite(&self) -> bool {
        self.mse.is_finite() && self.max_abs.is_finite()
    }

    /// Whether the row is off by more than drift explains.
    pub(crate) fn is_off(&self, thresholds: &Thresholds) -> bool {
        let far = match thresholds.max_abs {
            Some(most) => self.max_abs > most,
            None => self.relative > thresholds.relative,
        };
        far || !self.is_finite()
    }
}

/// Compares two rows of equal length.
pub fn compare(position: usize, reference: &[f32], found: &[f32]) -> PositionReport {
    let n = reference.len().min(found.len()).max(1) as f64;
    let pairs = || {
        let pairs = reference.iter().zip(found);
        pairs.map(|(a, b)| (f64::from(*a), f64::from(*b)))
    };
    // `f64::max` would pass over a NaN.
    let max_abs = pairs().fold(0.0, |most: f64, (a, b)| {
        let apart = (a - b).abs();
        if apart > most || apart.is_nan() {
            apart
        } else {
            most
        }
    });
    let mse = pairs().map(|(a, b)| (a - b).powi(2)).sum::<f64>() / n;
    let mean = pairs().map(|(a, _)| a).sum::<f64>() / n;
    let spread = (pairs().map(|(a, _)| (a - mean).powi(2)).sum::<f64>() / n).sqrt();
    let (of_reference, of_found) = (top(reference), top(found));
    let common = of_reference.iter().filter(|id| of_found.contains(id));
    let logit = |place: usize| of_reference.get(place).map(|id| f64::from(reference[*id]));
    PositionReport {
        position,
        max_abs,
        mse,
        relative: mse.sqrt() / spread.max(f64::MIN_POSITIVE),
        argmax_equal: of_reference.first() == of_found.first(),
        overlap: common.count() as f64 / of_reference.len().max(1) as f64,
        gap: match (logit(0), logit(1)) {
            (Some(best), Some(second)) => best - second,
            _ => 0.0,
        },
    }
}

/// The most likely token: of equal ones the first, as greedy decoding takes it.
pub(crate) fn argmax(row: &[f32]) -> usize {
    top(row).first().copied().unwrap_or(0)
}

/// The places of the largest logits, largest first.
fn top(row: &[f32]) -> Vec<usize> {
    let mut best: Vec<usize> = Vec::with_capacity(TOP + 1);
    for (id, logit) in row.iter().enumerate() {
        let at = best.partition_point(|other| row[*other] >= *logit);
        if at < TOP {
            best.insert(at, id);
            best.truncate(TOP);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_rows_have_no_distance() {
        let row = [0.5, 2.0, -1.0, 3.0, 0.0, 1.0];
        let report = compare(4, &row, &row);
        assert_eq!((report.position, report.max_abs, report.mse), (4, 0.0, 0.0));
        assert_eq!(
            (report.argmax_equal, report.overlap, report.gap),
            (true, 1.0, 1.0)
        );
    }

    #[test]
    fn distances_are_those_of_the_definition() {
        let reference = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0];
        let found = [6.0, 1.0, 2.0, 3.0, 4.0, 5.0];
        let report = compare(0, &reference, &found);
        assert_eq!((report.max_abs, report.mse), (6.0, 6.0));
        assert!((report.relative - (6.0_f64 / (35.0 / 12.0)).sqrt()).abs() < 1e-12);
        // The reference's five are 1 to 5; token 0 takes the place of token 1.
        assert_eq!((report.argmax_equal, report.overlap), (false, 0.8));
    }

    #[test]
    fn what_is_no_number_is_not_passed_over() {
        for bad in [f32::NAN, f32::INFINITY] {
            let report = compare(0, &[1.0, 2.0, 0.0], &[1.0, bad, 0.0]);
            assert!(!report.is_finite(), "{bad}");
            assert!(report.is_off(&Thresholds::close()), "{bad}");
            assert!(report.is_off(&Thresholds::exact()), "{bad}");
        }
    }

    #[test]
    fn of_equal_logits_the_first_wins() {
        assert_eq!(argmax(&[1.0, 7.0, 7.0]), 1);
        assert_eq!(top(&[3.0; 9]), [0, 1, 2, 3, 4]);
        assert_eq!(top(&[]), [0; 0]);
    }
}
