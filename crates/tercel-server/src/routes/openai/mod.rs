//! OpenAI's protocol: chats, completions, responses, embeddings and the list of models.

mod chat;
mod completions;
mod embeddings;
mod head;
mod logprobs;
mod messages;
mod models;
mod prompts;
mod refusals;
mod responses;
mod sampling;
mod texts;
mod usage;

use axum::http::HeaderValue;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::Shared;
use crate::work::Finished;

/// The paths of the protocol.
pub(crate) fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .merge(models::router())
        .routes(routes!(chat::create))
        .routes(routes!(completions::create))
        .routes(routes!(responses::create))
        .routes(routes!(embeddings::create))
}

/// A reply that is sent whole, with what computed it in its head.
fn reply(value: &impl Serialize, finished: &[Finished]) -> Response {
    let mut response = axum::Json(value).into_response();
    let backend = finished.first().map(|first| &first.reply.backend);
    if let Some(Ok(backend)) = backend.map(|backend| HeaderValue::from_str(backend)) {
        response.headers_mut().insert("x-tercel-backend", backend);
    }
    response
}
