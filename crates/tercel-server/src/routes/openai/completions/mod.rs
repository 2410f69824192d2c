//! Completions: texts that are continued as they stand.

mod encoder;
mod object;
mod request;

use axum::extract::State;
use axum::response::Response;

use super::head::Head;
use super::refusals::Refusals;
use super::sampling::in_word;
use crate::app::Shared;
use crate::body::Json;
use crate::error::{ApiError, ErrorBody};
use crate::gate::Caller;
use crate::work::{begin_several, finish_all};
use encoder::TextEncoder;
use object::Completion;
use request::CompletionRequest;

/// Continues texts.
#[utoipa::path(
    post,
    path = "/v1/completions",
    tag = "openai",
    request_body = CompletionRequest,
    responses(
        (
            status = 200,
            description = "The texts; with `stream`, events with a chunk each, then `[DONE]`",
            content((Completion = "application/json"), (String = "text/event-stream")),
        ),
        (status = 400, description = "The request is wrong", body = ErrorBody),
        Refusals,
    )
)]
pub(super) async fn create(
    State(app): State<Shared>,
    caller: Caller,
    Json(request): Json<CompletionRequest>,
) -> Result<Response, ApiError> {
    let asked = request.check(&app.config.limits)?;
    let mut running = Vec::new();
    for ask in &asked.asks {
        let several = begin_several(&app, &caller, ask, asked.shape.choices).await;
        running.extend(several.map_err(|error| in_word(error, "max_tokens"))?);
    }
    let head = Head::new("cmpl-", &running);
    if asked.stream {
        let encoder = TextEncoder::new(head, running.len(), asked.shape, asked.include_usage);
        return Ok(super::stream(running, encoder));
    }
    let finished = finish_all(running).await?;
    Ok(super::reply(
        &Completion::new(head, &asked.shape, &finished),
        &finished,
    ))
}
