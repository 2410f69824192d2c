//! How the server is: for load balancers, supervisors and Prometheus.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::Shared;
use crate::{metrics, ready};

pub(crate) fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(healthz))
        .routes(routes!(health))
        .routes(routes!(readyz))
        .routes(routes!(readiness))
        .routes(routes!(page))
}

/// That the server runs.
#[derive(Serialize, ToSchema)]
struct Alive {
    ok: bool,
    /// Since it started.
    uptime_seconds: f64,
}

/// Whether the server can answer.
#[derive(Serialize, ToSchema)]
struct Ready {
    ready: bool,
    /// Why not: `draining`, `model_unloaded`, `model_loading`, `warmup_not_done`, `model_error`,
    /// `insufficient_kv_cache` or `smoke_failed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// What a model that is broken said.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
}

/// Whether the server runs; asks no model.
#[utoipa::path(
    get, path = "/healthz", tag = "health",
    responses((status = 200, description = "It runs", body = Alive))
)]
async fn healthz(State(app): State<Shared>) -> Json<Alive> {
    let uptime_seconds = app.started.elapsed().as_secs_f64();
    Json(Alive {
        ok: true,
        uptime_seconds,
    })
}

/// As `/healthz`.
#[utoipa::path(
    get, path = "/health", tag = "health",
    responses((status = 200, description = "It runs", body = Alive))
)]
async fn health(state: State<Shared>) -> Json<Alive> {
    healthz(state).await
}

/// Whether every model that is to be in memory answers. Each says a token at most every 30 s.
#[utoipa::path(
    get, path = "/readyz", tag = "health",
    responses(
        (status = 200, description = "It can answer", body = Ready),
        (status = 500, description = "A model is broken", body = Ready),
        (status = 503, description = "Not yet, or no more", body = Ready),
    )
)]
async fn readyz(State(app): State<Shared>) -> (StatusCode, Json<Ready>) {
    let (status, reason, last_error) = match ready::check(&app).await {
        Ok(()) => (StatusCode::OK, None, None),
        Err(unready) => (unready.status, Some(unready.reason), unready.last_error),
    };
    let ready = Ready {
        ready: reason.is_none(),
        reason,
        last_error,
    };
    (status, Json(ready))
}

/// As `/readyz`.
#[utoipa::path(
    get, path = "/ready", tag = "health",
    responses(
        (status = 200, description = "It can answer", body = Ready),
        (status = 500, description = "A model is broken", body = Ready),
        (status = 503, description = "Not yet, or no more", body = Ready),
    )
)]
async fn readiness(state: State<Shared>) -> (StatusCode, Json<Ready>) {
    readyz(state).await
}

/// Counters and times, as Prometheus reads them.
#[utoipa::path(
    get, path = "/metrics", tag = "health",
    responses(
        (status = 200, description = "Prometheus' text format", body = String, content_type = "text/plain"),
        (status = 401, description = "No key, or a wrong one", body = crate::error::ErrorBody),
        (status = 429, description = "Too many requests", body = crate::error::ErrorBody),
    )
)]
async fn page(State(app): State<Shared>) -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, metrics::CONTENT_TYPE)],
        app.metrics.render(&app),
    )
}
