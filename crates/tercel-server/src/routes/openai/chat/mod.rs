//! Chats.

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
use encoder::ChatEncoder;
pub(in crate::routes::openai) use object::Blocks;
use object::ChatCompletion;
use request::ChatRequest;

/// Replies to a conversation.
#[utoipa::path(
    post,
    path = "/v1/chat/completions",
    tag = "openai",
    request_body = ChatRequest,
    responses(
        (
            status = 200,
            description = "The reply; with `stream`, events with a chunk each, then `[DONE]`",
            content((ChatCompletion = "application/json"), (String = "text/event-stream")),
        ),
        (status = 400, description = "The request is wrong", body = ErrorBody),
        Refusals,
    )
)]
pub(super) async fn create(
    State(app): State<Shared>,
    caller: Caller,
    Json(request): Json<ChatRequest>,
) -> Result<Response, ApiError> {
    let asked = request.check(&app.config.limits)?;
    let running = begin_several(&app, &caller, &asked.ask, asked.choices).await;
    let running = running.map_err(|error| in_word(error, asked.length_word))?;
    let head = Head::new("chatcmpl-", &running);
    if asked.stream {
        let encoder = ChatEncoder::new(head, asked.choices, asked.include_usage);
        return Ok(super::stream(running, encoder));
    }
    let finished = finish_all(running).await?;
    let completion = ChatCompletion::new(head, asked.ask.logprobs.is_some(), &finished);
    Ok(super::reply(&completion, &finished))
}
