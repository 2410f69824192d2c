//! How likely the model held the tokens of a reply to be.

use serde::Serialize;
use tercel_text::Tokenizer;

use crate::TokenId;
use crate::sampler::{InvalidLogits, Sampler};
use crate::score::LogSoftmax;

/// The most alternatives of a token that a request may ask for.
pub(crate) const MAX_TOP: usize = 20;

/// How likely the model held one token of a reply to be, before bias, penalties and temperature.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct TokenLogprob {
    /// The token.
    pub token: TokenId,
    /// The bytes that it stands for: empty for a control token, perhaps a part of a character.
    pub bytes: Vec<u8>,
    /// The natural logarithm of its probability. A token that the model did not choose, put in to
    /// end a thought, has 0 here and no alternatives.
    pub logprob: f32,
    /// The most likely tokens at its place, the most likely first; it may be among them.
    pub top: Vec<TopLogprob>,
}

/// One of the most likely tokens at a place of a reply.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct TopLogprob {
    /// The token.
    pub token: TokenId,
    /// The bytes that it stands for.
    pub bytes: Vec<u8>,
    /// The natural logarithm of its probability.
    pub logprob: f32,
}

impl TokenLogprob {
    /// That of `token` under a row of logits, which may have more than the vocabulary's, with the
    /// `top` most likely tokens.
    pub(crate) fn of(
        token: TokenId,
        logits: &[f32],
        top: usize,
        sampler: &mut Sampler,
        tokenizer: &Tokenizer,
    ) -> Result<Self, InvalidLogits> {
        let distribution = LogSoftmax::of(logits)?;
        let own = &logits[..logits.len().min(tokenizer.vocab_size())];
        let top = sampler.most_likely(own, top).map(|token| {
            Ok(TopLogprob {
                token,
                bytes: tokenizer.piece(token).to_vec(),
                logprob: distribution.log_probability(token)? as f32,
            })
        });
        Ok(Self {
            token,
            bytes: tokenizer.piece(token).to_vec(),
            logprob: distribution.log_probability(token)? as f32,
            top: top.collect::<Result<_, _>>()?,
        })
    }

    /// That of a token which was put in.
    pub(crate) fn given(token: TokenId, tokenizer: &Tokenizer) -> Self {
        Self {
            token,
            bytes: tokenizer.piece(token).to_vec(),
            logprob: 0.0,
            top: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
