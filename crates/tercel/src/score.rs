//! The log-probability of one token under one row of logits.

use crate::TokenId;
use crate::sampler::InvalidLogits;

/// `ln softmax(logits)[token]`, computed in `f64`.
pub(crate) fn log_probability(logits: &[f32], token: TokenId) -> Result<f64, InvalidLogits> {
    LogSoftmax::of(logits)?.log_probability(token)
}

/// `ln softmax` of one row of logits, computed in `f64`.
pub(crate) struct LogSoftmax<'a> {
    logits: &'a [f32],
    highest: f64,
    /// The logarithm of the sum of `exp(logit - highest)`.
    log_total: f64,
}

impl<'a> LogSoftmax<'a> {
    pub(crate) fn of(logits: &'a [f32]) -> Result<Self, InvalidLogits> {
        let highest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let total: f64 = logits
            .iter()
            .map(|&logit| (f64::from(logit) - highest).exp())
            .sum();
        // A NaN or an infinity anywhere in the row ends up here.
        if !total.is_finite() {
            return Err(InvalidLogits);
        }
        Ok(Self {
            logits,
            highest,
            log_total: total.ln(),
        })
    }

    pub(crate) fn log_probability(&self, token: TokenId) -> Result<f64, InvalidLogits> {
        let chosen = self.logits.get(token as usize).ok_or(InvalidLogits)?;
        Ok(f64::from(*chosen) - self.highest - self.log_total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_of_a_row_sum_to_one() {
        let logits: Vec<f32> = (0..1000)
            .map(|i| ((i * 7919) % 613) as f32 / 20.0)
            .collect();
        let sum: f64 = (0..1000_u32)
            .map(|token| log_probability(&logits, token).expect("finite").exp())
            .sum();
        assert!((sum - 1.0).abs() < 1e-12);
    }

    #[test]
    fn values_are_those_of_the_definition() {
        let even = log_probability(&[3.0; 4], 2).expect("finite");
        assert!((even - 0.25_f64.ln()).abs() < 1e-15);
        let far = log_probability(&[0.0, -800.0], 1).expect("finite");
        assert!((far + 800.0).abs() < 1e-9);
    }

    #[test]
    fn rows_that_are_not_numbers_are_errors() {
        for bad in [f32::NAN, f32::INFINITY] {
            assert_eq!(log_probability(&[0.0, bad], 0), Err(InvalidLogits));
        }
        assert_eq!(log_probability(&[0.0], 1), Err(InvalidLogits));
        assert_eq!(log_probability(&[f32::NEG_INFINITY], 0), Err(InvalidLogits));
    }
}
