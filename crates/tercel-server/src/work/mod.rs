//! From a checked question to a reply: the one way in which all protocols reach a model.

mod ask;
mod finished;
mod running;

use crate::error::ApiError;

pub(crate) use ask::{Ask, Input, ToolsAsked};
pub(crate) use finished::{Finished, TercelBlock};
pub(crate) use running::{Begun, CallPiece, Piece, Running, begin, begin_several, finish_all};

/// Runs what takes long, such as a template or a tokenizer over a long text, on a thread of its own:
/// those that move bytes have others to serve.
pub(crate) async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(ApiError::from(tercel::Error::EngineClosed)),
    }
}
