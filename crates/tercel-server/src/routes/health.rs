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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::Router;
    use axum::body::Body;
    use axum::extract::Request;
    use serde_json::{Value, json};
    use tower::ServiceExt;

    use super::*;
    use crate::app::App;
    use crate::config::{Config, ServedModel};
    use crate::log::testing::Lines;
    use crate::models::Models;

    /// A server whose only model cannot be loaded.
    fn app() -> (Shared, Router) {
        let broken = || tercel::Engine::builder("/nowhere/at/all.gguf");
        let config = Config {
            models: vec![ServedModel::new("broken", "nowhere", broken)],
            ..Config::default()
        };
        let models = Models::new(&config).expect("valid models");
        let log = Lines::default().log(&config.log);
        let app = Arc::new(App::new(config, models, log));
        let (router, _) = router().split_for_parts();
        (app.clone(), router.with_state(app))
    }

    async fn get(router: &Router, path: &str) -> (u16, String, String) {
        let request = Request::get(path).body(Body::empty()).expect("a request");
        let response = router.clone().oneshot(request).await.expect("it answers");
        let status = response.status().as_u16();
        let content_type = response.headers()[header::CONTENT_TYPE]
            .to_str()
            .expect("text");
        let content_type = content_type.to_owned();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20)
            .await
            .expect("a body");
        (
            status,
            content_type,
            String::from_utf8(body.to_vec()).expect("text"),
        )
    }

    fn json_of(text: &str) -> Value {
        serde_json::from_str(text).expect("an object")
    }

    #[tokio::test]
    async fn a_server_runs_whatever_its_models_do() {
        let (app, router) = app();
        for path in ["/healthz", "/health"] {
            let (status, _, body) = get(&router, path).await;
            let body = json_of(&body);
            assert_eq!((status, &body["ok"]), (200, &json!(true)));
            assert!(body["uptime_seconds"].as_f64() >= Some(0.0));
        }
        let status = app.models.status("broken").expect("known");
        assert!(
            !status.is_loading && status.loads == 0,
            "no model was touched"
        );
    }

    #[tokio::test]
    async fn readiness_is_told_with_its_reason() {
        let (app, router) = app();
        for path in ["/readyz", "/ready"] {
            let (status, _, body) = get(&router, path).await;
            let expected = json!({"ready": false, "reason": "model_unloaded"});
            assert_eq!((status, json_of(&body)), (503, expected));
        }
        app.models
            .lease("broken")
            .await
            .expect_err("it does not load");
        let (status, _, body) = get(&router, "/readyz").await;
        let body = json_of(&body);
        assert_eq!((status, &body["reason"]), (500, &json!("model_error")));
        assert!(body["last_error"].is_string());
        app.drain();
        let (status, _, body) = get(&router, "/readyz").await;
        assert_eq!(
            (status, json_of(&body)["reason"].clone()),
            (503, json!("draining"))
        );
    }

    #[tokio::test]
    async fn metrics_are_text() {
        let (_app, router) = app();
        let (status, content_type, body) = get(&router, "/metrics").await;
        assert_eq!((status, &*content_type), (200, metrics::CONTENT_TYPE));
        assert!(
            body.contains("\ntercel_model_loaded{model=\"broken\"} 0\n"),
            "{body}"
        );
    }
}
