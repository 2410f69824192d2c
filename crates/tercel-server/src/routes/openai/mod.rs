//! OpenAI's protocol: chats, completions, responses, embeddings and the list of models.

mod chat;
mod completions;
mod embeddings;
mod format;
mod head;
mod logprobs;
mod messages;
mod models;
mod prompts;
mod refusals;
mod responses;
mod sampling;
mod texts;
mod tools;
mod usage;

use axum::http::HeaderValue;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::backend::Backend;
use crate::app::Shared;
use crate::stream::{Encoder, Sse, respond};
use crate::work::{Finished, Running};

/// The paths of the protocol.
pub(crate) fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .merge(models::router())
        .routes(routes!(chat::create))
        .routes(routes!(completions::create))
        .routes(routes!(responses::create))
        .routes(routes!(embeddings::create))
}

/// A reply that is sent while it is made, with what computes it in its head.
fn stream(running: Vec<Running>, encoder: impl Encoder) -> Response {
    let backend = running.first().map(Backend::of);
    let response = respond(Sse::CONTENT_TYPE, running, encoder);
    match backend {
        Some(backend) => backend.on(response),
        None => response,
    }
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn all_paths_are_described_and_every_reference_leads_somewhere() {
        let (_, description) = router().split_for_parts();
        let paths: BTreeSet<&str> = description.paths.paths.keys().map(String::as_str).collect();
        let want = [
            "/v1/chat/completions",
            "/v1/completions",
            "/v1/embeddings",
            "/v1/models",
            "/v1/models/{id}",
            "/v1/responses",
        ];
        assert_eq!(paths, BTreeSet::from(want));
        let text = description.to_json().unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        for reference in text.split("\"$ref\":\"#").skip(1) {
            let pointer = reference.split('"').next().unwrap();
            assert!(value.pointer(pointer).is_some(), "{pointer}");
        }
        assert!(text.contains("\"$ref\":\"#/components/schemas/ErrorBody\""));
    }
}
