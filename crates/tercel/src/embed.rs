//! A vector for a text: the model's hidden states, pooled.

use std::sync::Arc;

use crate::TokenId;
use crate::answer::{Awaited, answer};
use crate::engine::Engine;
use crate::error::Error;
use crate::job::{Embed, Job};
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

impl Engine {
    /// A vector for a text: the hidden states that the model makes predictions of, pooled, with a
    /// length of 1 and [`hidden_size`](crate::ModelSummary::hidden_size) numbers. It takes its turn
    /// like any request. No begin token is added: see [`Engine::raw_tokens`].
    ///
    /// # Errors
    /// [`Error::EmptyPrompt`] or [`Error::InvalidParameter`] for tokens the model does not have,
    /// [`Error::ContextOverflow`] for more than the context holds, [`Error::QueueFull`], or a failure
    /// of the computation.
    pub fn embed(&self, tokens: &[TokenId], pooling: Pooling) -> Result<Vec<f32>, Error> {
        let vector = self.begin_embedding(tokens.to_vec(), pooling)?.wait();
        vector.unwrap_or_else(|| Err(self.closed()))
    }

    /// [`Engine::embed`] for asynchronous code: dropping the future ends the work before its next
    /// pass.
    ///
    /// # Errors
    /// Those of [`Engine::embed`].
    pub async fn embed_async(
        &self,
        tokens: Vec<TokenId>,
        pooling: Pooling,
    ) -> Result<Vec<f32>, Error> {
        let vector = self.begin_embedding(tokens, pooling)?.await;
        vector.unwrap_or_else(|| Err(self.closed()))
    }

    /// Checks tokens and has a vector made of them.
    fn begin_embedding(
        &self,
        tokens: Vec<TokenId>,
        pooling: Pooling,
    ) -> Result<Awaited<Result<Vec<f32>, Error>>, Error> {
        let prompter = self.prompter();
        prompter.check(&tokens, "tokens")?;
        if tokens.len() > prompter.max_context {
            return Err(Error::ContextOverflow {
                prompt_tokens: tokens.len(),
                max_context: prompter.max_context,
            });
        }
        let (answer, awaited) = answer(Arc::clone(self.wake()));
        self.submit(Job::Embed(Embed {
            tokens,
            pooling,
            answer,
        }))?;
        Ok(awaited)
    }
}

/// Hidden states on their way to one vector.
pub(crate) struct Pooled {
    pooling: Pooling,
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
