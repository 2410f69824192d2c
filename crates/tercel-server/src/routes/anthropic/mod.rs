//! Anthropic's protocol: `/v1/messages` and the count of its tokens.

mod content;
mod error;
mod events;
mod reply;
mod request;
mod tools;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::error::AnthropicError;
use self::events::Events;
use self::reply::{MessageReply, TokenCount};
use self::request::{CountTokensRequest, MessagesRequest};
use super::backend::Backend;
use super::whole::Whole;
use crate::app::Shared;
use crate::body::Json;
use crate::error::ApiError;
use crate::gate::Caller;
use crate::guard;
use crate::stream::{Sse, respond};
use crate::work::begin;

/// The paths of Anthropic's protocol.
pub(crate) fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(messages))
        .routes(routes!(count_tokens))
}

/// Reply to a conversation.
#[utoipa::path(
    post,
    path = "/v1/messages",
    operation_id = "anthropic_messages",
    tag = "anthropic",
    request_body = MessagesRequest,
    responses(
        (status = 200, description = "The reply; with `stream`, as events.", content(
            (MessageReply = "application/json"),
            (String = "text/event-stream"),
        )),
        (status = 400, description = "The request is wrong or not supported.", body = AnthropicError),
        (status = 401, description = "The key is missing or unknown.", body = AnthropicError),
        (status = 403, description = "Not allowed.", body = AnthropicError),
        (status = 404, description = "No such model.", body = AnthropicError),
        (status = 413, description = "The body is too large.", body = AnthropicError),
        (status = 415, description = "The body is not JSON.", body = AnthropicError),
        (status = 429, description = "Too many requests.", body = AnthropicError),
        (status = 500, description = "The model failed.", body = AnthropicError),
        (status = 503, description = "The model is not ready.", body = AnthropicError),
    ),
)]
async fn messages(
    State(app): State<Shared>,
    caller: Caller,
    body: Result<Json<MessagesRequest>, ApiError>,
) -> Response {
    let reply = reply_to(&app, &caller, body).await;
    in_form(reply, &caller)
}

/// Count the tokens of a conversation.
#[utoipa::path(
    post,
    path = "/v1/messages/count_tokens",
    operation_id = "anthropic_count_tokens",
    tag = "anthropic",
    request_body = CountTokensRequest,
    responses(
        (status = 200, description = "The count.", body = TokenCount),
        (status = 400, description = "The request is wrong or not supported.", body = AnthropicError),
        (status = 401, description = "The key is missing or unknown.", body = AnthropicError),
        (status = 403, description = "Not allowed.", body = AnthropicError),
        (status = 404, description = "No such model.", body = AnthropicError),
        (status = 413, description = "The body is too large.", body = AnthropicError),
        (status = 415, description = "The body is not JSON.", body = AnthropicError),
        (status = 429, description = "Too many requests.", body = AnthropicError),
        (status = 500, description = "The model failed.", body = AnthropicError),
        (status = 503, description = "The model is not ready.", body = AnthropicError),
    ),
)]
async fn count_tokens(
    State(app): State<Shared>,
    caller: Caller,
    body: Result<Json<CountTokensRequest>, ApiError>,
) -> Response {
    let count = count(&app, body).await;
    in_form(
        count.map(|count| axum::Json(count).into_response()),
        &caller,
    )
}

async fn reply_to(
    app: &Shared,
    caller: &Caller,
    body: Result<Json<MessagesRequest>, ApiError>,
) -> Result<Response, ApiError> {
    let Json(request) = body?;
    let is_streamed = request.is_streamed();
    let running = begin(app, caller, request.into_ask()?).await?;
    let backend = Backend::of(&running);
    let id = format!("msg_{}", caller.request_id);
    if !is_streamed {
        let reply = MessageReply::whole(id, Whole::of(running).await?);
        return Ok(backend.on(axum::Json(reply).into_response()));
    }
    let empty = MessageReply::empty(id, running.model().to_owned(), running.prompt_tokens());
    let events = Events::new(caller.request_id.clone(), empty);
    let response = respond(Sse::CONTENT_TYPE, vec![running], events);
    Ok(backend.on(response))
}

async fn count(
    app: &Shared,
    body: Result<Json<CountTokensRequest>, ApiError>,
) -> Result<TokenCount, ApiError> {
    let Json(request) = body?;
    let mut ask = request.into_ask()?;
    let model = app.models.find(ask.model.as_deref())?.name.clone();
    guard::check_input(&app.config.guard, &mut ask)?;
    ask.check(&app.config.limits)?;
    let lease = app.models.lease(&model).await?;
    let request = ask.request(&app.config.limits);
    // A long text takes a while, in which others shall be served.
    let tokens = tokio::task::spawn_blocking(move || lease.tokens_of(&request)).await;
    let tokens = tokens.map_err(|_| ApiError::from(tercel::Error::EngineClosed))??;
    Ok(TokenCount {
        input_tokens: tokens.len(),
    })
}

/// The answer, or the error in Anthropic's form.
fn in_form(answer: Result<Response, ApiError>, caller: &Caller) -> Response {
    let id = &caller.request_id;
    let mut response = answer.unwrap_or_else(|error| error::respond(&error, id));
    error::name(&mut response, id);
    response
}
