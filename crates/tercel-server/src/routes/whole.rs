//! A reply in one piece.

use tercel::TokenLogprob;

use crate::error::ApiError;
use crate::work::{Finished, Piece, Running};

/// What a stream would have given, joined: so both forms of a reply pass the same filters.
pub(super) struct Whole {
    /// Empty where the model did not think.
    pub(super) thinking: String,
    /// Empty where they were not asked for.
    pub(super) logprobs: Vec<TokenLogprob>,
    pub(super) finished: Finished,
}

impl Whole {
    /// Reads to the end.
    ///
    /// # Errors
    /// What ended the request.
    pub(super) async fn of(mut running: Running) -> Result<Self, ApiError> {
        let (mut thinking, mut logprobs) = (String::new(), Vec::new());
        while let Some(piece) = running.next().await {
            match piece? {
                Piece::Thinking(text) => thinking.push_str(&text),
                Piece::Logprobs(more) => logprobs.extend(more),
                // The end has all of it.
                Piece::Text(_) | Piece::Call(_) => {}
                Piece::Done(finished) => {
                    return Ok(Self {
                        thinking,
                        logprobs,
                        finished: *finished,
                    });
                }
            }
        }
        Err(ApiError::from(tercel::Error::EngineClosed))
    }
}
