//! How long requests usually are, and so how long a warm-up should be.

use std::collections::VecDeque;

use crate::error::Error;

/// The lengths of the latest requests, in tokens of their prompts. Bounded: the oldest of
/// [`RequestLengths::WINDOW`] makes way for the newest.
#[derive(Clone, Debug, Default)]
pub struct RequestLengths {
    window: VecDeque<usize>,
}

impl RequestLengths {
    /// How many requests are remembered.
    pub const WINDOW: usize = 5000;

    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a request.
    pub fn record(&mut self, prompt_tokens: usize) {
        if self.window.len() == Self::WINDOW {
            self.window.pop_front();
        }
        self.window.push_back(prompt_tokens);
    }

    /// How many requests are remembered now.
    pub fn len(&self) -> usize {
        self.window.len()
    }

    /// Whether no request was seen.
    pub fn is_empty(&self) -> bool {
        self.window.is_empty()
    }

    /// The length that `percent` of the requests do not exceed: 50 to 80, since a warm-up is for
    /// the usual request and not for the longest. By nearest rank, the index rounded half to even.
    /// Nothing where no request was seen.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] for a percentage out of range.
    pub fn usual(&self, percent: u8) -> Result<Option<usize>, Error> {
        if !(50..=80).contains(&percent) {
            let value = percent.to_string();
            return Err(Error::invalid_parameter("percent", value, "50 to 80"));
        }
        let mut sorted: Vec<usize> = self.window.iter().copied().collect();
        sorted.sort_unstable();
        let Some(last) = sorted.len().checked_sub(1) else {
            return Ok(None);
        };
        let rank = (last as f64 * f64::from(percent) / 100.0).round_ties_even();
        Ok(sorted.get(rank as usize).copied())
    }
}

impl Extend<usize> for RequestLengths {
    fn extend<T: IntoIterator<Item = usize>>(&mut self, lengths: T) {
        lengths.into_iter().for_each(|length| self.record(length));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usual(lengths: impl IntoIterator<Item = usize>, percent: u8) -> Option<usize> {
        let mut seen = RequestLengths::new();
        seen.extend(lengths);
        seen.usual(percent).expect("in range")
    }

    #[test]
    fn the_usual_length_is_a_percentile_by_nearest_rank() {
        assert_eq!(usual([], 50), None);
        assert_eq!(usual([7], 80), Some(7));
        // Half a step: index 0.5 rounds to 0, index 1.5 to 2.
        assert_eq!(usual([20, 10], 50), Some(10));
        assert_eq!(usual([40, 30, 20, 10], 50), Some(30));
        assert_eq!(usual(1..=101, 50), Some(51));
        assert_eq!(usual(1..=101, 80), Some(81));
        // One giant does not make the usual request long.
        assert_eq!(
            usual([10, 10, 10, 10, 10, 10, 10, 10, 10, 9000], 80),
            Some(10)
        );
    }

    #[test]
    fn only_percentages_of_usual_requests_are_taken() {
        for percent in [0, 49, 81, 100] {
            let error = RequestLengths::new()
                .usual(percent)
                .expect_err("out of range");
            assert!(error.to_string().contains("must be 50 to 80"), "{error}");
        }
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let mut seen = RequestLengths::new();
        seen.extend(std::iter::repeat_n(9, RequestLengths::WINDOW));
        seen.extend(std::iter::repeat_n(1, RequestLengths::WINDOW));
        assert_eq!(seen.len(), RequestLengths::WINDOW);
        assert_eq!(seen.usual(80).expect("in range"), Some(1));
    }
}
