//! A vector for a text: the model's hidden states, pooled.

use crate::sampler::InvalidLogits;

/// How the hidden states of a text become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Pooling {
    /// Their mean over all tokens.
    Mean,
    /// That of the last token, which has seen all others.
    Last,
}

impl Pooling {
    /// The name in settings, JSON and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Last => "last",
        }
    }
}

/// Hidden states on their way to one vector.
pub(crate) struct Pooled {
    pub(crate) pooling: Pooling,
    /// Their sum, or the last of them; empty before the first, then `(hidden_size)`.
    sum: Vec<f64>,
}

impl Pooled {
    pub(crate) fn new(pooling: Pooling) -> Self {
        let sum = Vec::new();
        Self { pooling, sum }
    }

    /// Takes the hidden state of the next token.
    pub(crate) fn push(&mut self, hidden: &[f32]) {
        if self.sum.is_empty() || self.pooling == Pooling::Last {
            self.sum.clear();
            self.sum.extend(hidden.iter().copied().map(f64::from));
            return;
        }
        for (sum, value) in self.sum.iter_mut().zip(hidden) {
            *sum += f64::from(*value);
        }
    }

    /// The vector, of length 1; a mean and a sum have one direction.
    pub(crate) fn finish(self) -> Result<Vec<f32>, InvalidLogits> {
        let length = self.sum.iter().map(|it| it * it).sum::<f64>().sqrt();
        if !length.is_finite() {
            return Err(InvalidLogits);
        }
        let scale = if length > 0.0 { length } else { 1.0 };
        Ok(self.sum.iter().map(|it| (it / scale) as f32).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_have_length_one_and_the_direction_of_the_mean_or_the_last() {
        let rows = [[3.0, 0.0], [0.0, 4.0], [3.0, 4.0]];
        let cases = [(Pooling::Mean, [0.6, 0.8]), (Pooling::Last, [0.6, 0.8])];
        for (pooling, want) in cases {
            let mut pooled = Pooled::new(pooling);
            rows.iter().for_each(|row| pooled.push(row));
            assert_eq!(pooled.finish(), Ok(want.to_vec()), "{pooling:?}");
        }
        let mut last = Pooled::new(Pooling::Last);
        rows[..2].iter().for_each(|row| last.push(row));
        assert_eq!(last.finish(), Ok(vec![0.0, 1.0]));
    }

    #[test]
    fn what_is_no_number_is_an_error_and_nothing_stays_nothing() {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut pooled = Pooled::new(Pooling::Mean);
            pooled.push(&[0.0, bad]);
            assert_eq!(pooled.finish(), Err(InvalidLogits));
        }
        let mut pooled = Pooled::new(Pooling::Mean);
        pooled.push(&[0.0, 0.0]);
        assert_eq!(pooled.finish(), Ok(vec![0.0, 0.0]));
    }
}
