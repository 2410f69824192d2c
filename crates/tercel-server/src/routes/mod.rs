//! Where each path leads.

mod admin;
mod anthropic;
mod backend;
mod health;
mod native;
mod ollama;
mod openai;
mod page;
mod ranges;
mod tools;
mod whole;

use axum::Router;
use axum::middleware;
use axum::routing::get;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::app::Shared;
use crate::error::ApiError;
use crate::gate;

/// What the description of the API says of itself.
#[derive(OpenApi)]
#[openapi(info(
    title = "Tercel",
    description = "Language models on this machine: the protocols of OpenAI, Anthropic and Ollama, and Tercel's own."
))]
struct Described;

/// All paths, behind the gate.
pub(crate) fn router(app: &Shared) -> Router {
    let (router, description) = described().split_for_parts();
    let description = description.to_json().unwrap_or_default();
    let description = move || async move {
        (
            [(axum::http::header::CONTENT_TYPE, "application/json")],
            description,
        )
    };
    router
        .route("/openapi.json", get(description))
        .merge(page::router())
        .fallback(async || {
            ApiError::new(
                axum::http::StatusCode::NOT_FOUND,
                "not_found",
                "there is no such path",
            )
        })
        .method_not_allowed_fallback(async || {
            ApiError::new(
                axum::http::StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "this path does not take this method",
            )
        })
        .layer(middleware::from_fn_with_state(app.clone(), gate::admit))
        .with_state(app.clone())
}

/// The paths that programs use, with their description.
fn described() -> OpenApiRouter<Shared> {
    OpenApiRouter::with_openapi(Described::openapi())
        .merge(openai::router())
        .merge(anthropic::router())
        .merge(ollama::router())
        .merge(native::router())
        .merge(admin::router())
        .merge(health::router())
}
