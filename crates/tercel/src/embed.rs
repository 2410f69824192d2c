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
mod tests;
