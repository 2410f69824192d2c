//! Perplexity of a model on a text, chunk by chunk as llama.cpp's `llama-perplexity` computes it,
//! so that figures can be compared.

use std::ops::ControlFlow;
use std::path::PathBuf;

use serde::Serialize;
use tercel::{Engine, TokenId};

/// How to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PerplexityOptions {
    /// Tokens of a chunk: at least 4, at most the engine's context.
    pub context: usize,
    /// Stop after this many chunks.
    pub max_chunks: Option<usize>,
}

impl Default for PerplexityOptions {
    fn default() -> Self {
        Self {
            context: 512,
            max_chunks: None,
        }
    }
}

impl PerplexityOptions {
    /// Chunks of `tokens` tokens, by default 512.
    #[must_use]
    pub fn context(mut self, tokens: usize) -> Self {
        self.context = tokens;
        self
    }

    /// Stop after `chunks` chunks, by default never.
    #[must_use]
    pub fn max_chunks(mut self, chunks: usize) -> Self {
        self.max_chunks = Some(chunks);
        self
    }
}

/// Where a measurement stands after a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ChunkReport {
    /// Chunks done, from 1.
    pub chunk: usize,
    /// Chunks there are.
    pub chunks: usize,
    /// The perplexity over all chunks so far.
    pub ppl: f64,
}

/// A perplexity: the exponential of the mean negative log-probability of a token.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Perplexity {
    /// The perplexity.
    pub ppl: f64,
    /// Its standard error, by the spread of the tokens' log-probabilities.
    pub stderr: f64,
    /// Tokens that were scored.
    pub tokens_scored: usize,
    /// Chunks that were scored.
    pub chunks: usize,
}

/// Why a measurement failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// An option is out of range.
    #[error("`{field}` is {value}, must be {range}")]
    InvalidOption {
        /// Its name.
        field: &'static str,
        /// What was given.
        value: usize,
        /// What is accepted.
        range: String,
    },
    /// The text does not fill one chunk.
    #[error("the text has {tokens} tokens, a chunk takes {context}")]
    TextTooShort {
        /// Tokens of the text, the begin token included.
        tokens: usize,
        /// Tokens of a chunk.
        context: usize,
    },
    /// A file of reference logits cannot be used.
    #[error("{}: {problem}", path.display())]
    Reference {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] tercel::Error),
}

impl EvalError {
    /// A stable code in snake case.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::InvalidOption { .. } => "invalid_parameter",
            Self::TextTooShort { .. } => "text_too_short",
            Self::Reference { .. } => "invalid_reference",
            Self::Cancelled => "cancelled",
            Self::Engine(error) => error.kind(),
        }
    }

    /// The way out, in one line, where one is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::TextTooShort { tokens, .. } => Some(format!(
                "use a longer text, or a context of at most {tokens} tokens"
            )),
            Self::Engine(error) => error.hint(),
            _ => None,
        }
    }
}

/// Measures the perplexity of the engine's model on `text`.
///
/// The text is tokenized once, with a begin token at its front where the model wants one, and cut
/// into chunks of `context` tokens; what does not fill a chunk is left out. In each chunk the
/// first token gives way to the begin token, the first half is context, and every token after
/// position `context / 2` is scored. `on_chunk` hears of each chunk, and may stop the measurement.
///
/// # Errors
/// A context out of range, a text shorter than one chunk, a failure of the engine, or
/// [`EvalError::Cancelled`].
pub fn perplexity(
    engine: &Engine,
    text: &str,
    options: PerplexityOptions,
    mut on_chunk: impl FnMut(ChunkReport) -> ControlFlow<()>,
) -> Result<Perplexity, EvalError> {
    let PerplexityOptions {
        context,
        max_chunks,
    } = options;
    let most = engine.info().max_context;
    if !(SHORTEST..=most).contains(&context) {
        let range = format!("{SHORTEST} to the engine's context of {most}");
        return Err(EvalError::InvalidOption {
            field: "context",
            value: context,
            range,
        });
    }
    if max_chunks == Some(0) {
        let range = "at least 1".to_owned();
        return Err(EvalError::InvalidOption {
            field: "max_chunks",
            value: 0,
            range,
        });
    }
    let tokenizer = engine.tokenizer();
    let bos = tokenizer.bos().filter(|_| tokenizer.add_bos());
    let tokens: Vec<TokenId> = bos.into_iter().chain(tokenizer.encode(text)).collect();
    if tokens.len() < context {
        return Err(EvalError::TextTooShort {
            tokens: tokens.len(),
            context,
        });
    }

    let chunks = (tokens.len() / context).min(max_chunks.unwrap_or(usize::MAX));
    let mut scored = Scored::default();
    let mut chunk = Vec::with_capacity(context);
    for (i, text) in tokens.chunks_exact(context).take(chunks).enumerate() {
        chunk.clear();
        chunk.extend_from_slice(text);
        if let Some(bos) = bos {
            chunk[0] = bos;
        }
        scored.add(&engine.score(&chunk, context / 2)?);
        let report = ChunkReport {
            chunk: i + 1,
            chunks,
            ppl: scored.ppl(),
        };
        if on_chunk(report).is_break() {
            return Err(EvalError::Cancelled);
        }
    }
    Ok(Perplexity {
        ppl: scored.ppl(),
        stderr: scored.stderr(),
        tokens_scored: scored.count,
        chunks,
    })
}

/// The shortest chunk whose second half has something to score.
const SHORTEST: usize = 4;

/// Running sums over negative log-probabilities.
#[derive(Debug, Default)]
struct Scored {
    count: usize,
    sum: f64,
    sum_of_squares: f64,
}

impl Scored {
    fn add(&mut self, log_probabilities: &[f64]) {
        self.count += log_probabilities.len();
        self.sum -= log_probabilities.iter().sum::<f64>();
        self.sum_of_squares += log_probabilities
            .iter()
            .map(|score| score * score)
            .sum::<f64>();
    }

    fn ppl(&self) -> f64 {
        (self.sum / self.count as f64).exp()
    }

    /// The standard error of the mean, carried through the exponential to first order.
    fn stderr(&self) -> f64 {
        let count = self.count as f64;
        let mean = self.sum / count;
        let variance = self.sum_of_squares / count - mean * mean;
        if self.count < 2 || variance <= 0.0 {
            return 0.0;
        }
        (variance / (count - 1.0)).sqrt() * mean.exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_probabilities_have_their_inverse_as_perplexity_and_no_error() {
        let mut scored = Scored::default();
        scored.add(&[0.25_f64.ln(); 10]);
        scored.add(&[0.25_f64.ln(); 5]);
        assert!((scored.ppl() - 4.0).abs() < 1e-12);
        assert!(scored.stderr() < 1e-6);
    }

    #[test]
    fn the_standard_error_is_that_of_the_mean() {
        let values = [-1.0, -2.0, -3.0, -6.0];
        let mut scored = Scored::default();
        values.iter().for_each(|&value| scored.add(&[value]));
        // Mean 3, sample variance 14 / 3, variance of the mean 14 / 12.
        assert!((scored.ppl() - 3.0_f64.exp()).abs() < 1e-9);
        let expected = (14.0_f64 / 12.0).sqrt() * 3.0_f64.exp();
        assert!((scored.stderr() - expected).abs() < 1e-9);
    }

    #[test]
    fn errors_name_the_numbers_and_the_way_out() {
        let error = EvalError::TextTooShort {
            tokens: 100,
            context: 512,
        };
        assert_eq!(
            error.to_string(),
            "the text has 100 tokens, a chunk takes 512"
        );
        assert!(error.hint().expect("a hint").contains("at most 100"));
    }
}
