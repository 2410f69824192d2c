//! Responses: the newer protocol for conversations. Nothing is kept, so each request brings the
//! whole conversation.

mod encoder;
mod event;
mod items;
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
use crate::stream::Encoder;
use crate::work::{Piece, begin};
use encoder::ResponseEncoder;
use object::ResponseObject;
use request::ResponseRequest;

/// Replies to a conversation.
#[utoipa::path(
    post,
    path = "/v1/responses",
    tag = "openai",
    request_body = ResponseRequest,
    responses(
        (
            status = 200,
            description = "The response; with `stream`, events with a name and a number each",
            content((ResponseObject = "application/json"), (String = "text/event-stream")),
        ),
        (status = 400, description = "The request is wrong", body = ErrorBody),
        Refusals,
    )
)]
pub(super) async fn create(
    State(app): State<Shared>,
    caller: Caller,
    Json(request): Json<ResponseRequest>,
) -> Result<Response, ApiError> {
    let asked = request.check(&app.config.limits)?;
    let running = begin(&app, &caller, asked.ask).await;
    let mut running = running.map_err(|error| in_word(error, "max_output_tokens"))?;
    let head = Head::new("resp_", std::slice::from_ref(&running));
    let response = ResponseObject::new(head, asked.echo);
    let mut encoder = ResponseEncoder::new(response, asked.logprobs);
    if asked.stream {
        return Ok(super::stream(vec![running], encoder));
    }
    // The encoder puts the response together; its events are for streams alone.
    let mut events = Vec::new();
    while let Some(piece) = running.next().await {
        events.clear();
        match piece? {
            Piece::Done(finished) => {
                encoder.done(0, &finished, &mut events);
                return Ok(super::reply(encoder.response(), &[*finished]));
            }
            piece => encoder.piece(0, piece, &mut events),
        }
    }
    Err(ApiError::from(tercel::Error::EngineClosed))
}
