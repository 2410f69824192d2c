//! `/api/pull`: fetches a model and adds it, where the operator allows that.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tercel::Engine;
use tercel::source::{Control, ModelRef, SourceError, Store};
use utoipa::ToSchema;

use super::error::OllamaError;
use super::fetches::{Fetches, Teller};
use super::progress::{PullStatus, stream, vanished};
use crate::app::Shared;
use crate::body::Json;
use crate::config::ServedModel;
use crate::error::ApiError;

/// A question to `/api/pull`.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[schema(as = ollama::PullRequest)]
#[serde(deny_unknown_fields)]
pub(super) struct PullRequest {
    /// A name of the catalog, or `hf:org/repo[@revision][:file or quantization]`.
    model: Option<String>,
    /// The same, as older clients have it.
    name: Option<String>,
    /// By default true.
    stream: Option<bool>,
    /// Must not be true.
    insecure: Option<bool>,
}

/// Fetch a model and add it.
#[utoipa::path(
    post,
    path = "/api/pull",
    operation_id = "ollama_pull",
    tag = "ollama",
    request_body = PullRequest,
    responses(
        (status = 200, description = "It is there; unless `stream` is false, told in lines.", content(
            (PullStatus = "application/json"),
            (String = "application/x-ndjson"),
        )),
        (status = 400, description = "The request is wrong or not supported.", body = OllamaError),
        (status = 401, description = "The key is missing or unknown.", body = OllamaError),
        (status = 403, description = "Models are not fetched here.", body = OllamaError),
        (status = 404, description = "No such model.", body = OllamaError),
        (status = 409, description = "Another program fetches it.", body = OllamaError),
        (status = 413, description = "The body is too large.", body = OllamaError),
        (status = 415, description = "The body is not JSON.", body = OllamaError),
        (status = 429, description = "Too many requests.", body = OllamaError),
        (status = 500, description = "It cannot be kept.", body = OllamaError),
        (status = 502, description = "No source delivered it.", body = OllamaError),
        (status = 503, description = "There is no network, or the server stops.", body = OllamaError),
        (status = 507, description = "The disk is full.", body = OllamaError),
    ),
)]
pub(super) async fn pull(
    State(app): State<Shared>,
    Extension(fetches): Extension<Arc<Fetches>>,
    Json(request): Json<PullRequest>,
) -> Result<Response, ApiError> {
    if !app.config.allow_pull {
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "pull_not_allowed",
            "models are not fetched here; the operator can, with `tercel pull`",
        ));
    }
    if request.insecure == Some(true) {
        return Err(ApiError::unsupported(
            "insecure",
            "models are fetched over HTTPS alone",
        ));
    }
    let Some(asked) = request.model.or(request.name) else {
        let error = ApiError::bad_request("invalid_request", "missing field `model`");
        return Err(error.about("model"));
    };
    let name = asked.strip_suffix(":latest").unwrap_or(&asked).to_owned();
    let store = Store::open_default().map_err(|error| refusal(&error))?;
    let model = match app.models.find(Some(&name)) {
        // The operator's own word, be it a path.
        Ok(served) => store.parse(&served.source),
        Err(_) => resolve(&store, &name),
    };
    let model = model.map_err(|error| refusal(&error).about("model"))?;
    let digest = digest(&store, &model);
    let key = model.to_string();
    let mut receiver = fetches.join(&key, move |teller| {
        fetch(&app, &store, &model, name, teller)
    });
    if request.stream.unwrap_or(true) {
        return stream(receiver, digest).await;
    }
    let ended = receiver.wait_for(|state| state.ended.is_some()).await;
    match ended.map(|state| state.ended.clone()) {
        Ok(Some(Ok(()))) => Ok(axum::Json(PullStatus::new("success")).into_response()),
        Ok(Some(Err(error))) => Err(error),
        Ok(None) | Err(_) => Err(vanished()),
    }
}

/// The model of a name that a client gave: never a path, of which it must not even learn whether
/// it exists.
fn resolve(store: &Store, name: &str) -> Result<ModelRef, SourceError> {
    if let Some(entry) = store.catalog().resolve(name) {
        return Ok(ModelRef::Catalog(entry.name.clone()));
    }
    let prefixes = ["hf:", "hf.co/", "huggingface.co/"];
    let on_hub = prefixes.iter().find_map(|prefix| name.strip_prefix(prefix));
    match on_hub {
        Some(reference) => store.parse(&format!("hf:{reference}")),
        None if name.contains('/') => store.parse(&format!("hf:{name}")),
        None => {
            let entries = store.catalog().entries().iter();
            Err(SourceError::UnknownModel {
                name: name.to_owned(),
                suggestions: Vec::new(),
                available: entries.map(|entry| entry.name.clone()).collect(),
            })
        }
    }
}

/// What stands for the model's bytes.
fn digest(store: &Store, model: &ModelRef) -> String {
    let sha256 = match model {
        ModelRef::Catalog(name) => store.catalog().entry(name).and_then(|it| it.sha256.clone()),
        _ => None,
    };
    sha256.map_or_else(|| model.to_string(), |sha256| format!("sha256:{sha256}"))
}

/// Fetches a model and adds it under the name it was asked for.
fn fetch(
    app: &Shared,
    store: &Store,
    model: &ModelRef,
    name: String,
    teller: &Teller,
) -> Result<(), ApiError> {
    if let ModelRef::Catalog(name) = model
        && let Some(entry) = store.catalog().entry(name)
        && entry.is_unverified()
    {
        teller.note(format!(
            "{name} is unverified: nobody of the project has fetched it from its sources yet"
        ));
    }
    let mut sink = |progress| teller.tell(progress);
    let cancel = || teller.is_unwanted() || app.is_draining();
    let mut control = Control::new().on_progress(&mut sink).cancel_when(&cancel);
    store
        .fetch(model, &mut control)
        .map_err(|error| refusal(&error))?;
    let source = model.to_string();
    let of_builder = source.clone();
    let mut added = ServedModel::new(name, source, move || Engine::builder(&of_builder));
    added.preload = false;
    app.models.add(added)
}

fn refusal(error: &SourceError) -> ApiError {
    let status = match error {
        SourceError::UnknownModel { .. }
        | SourceError::PathNotFound { .. }
        | SourceError::NotFoundOnHub { .. } => StatusCode::NOT_FOUND,
        SourceError::InvalidReference { .. } | SourceError::NoModelInRepository { .. } => {
            StatusCode::BAD_REQUEST
        }
        SourceError::Gated { .. } => StatusCode::FORBIDDEN,
        SourceError::Busy { .. } => StatusCode::CONFLICT,
        SourceError::DownloadFailed { .. }
        | SourceError::AllSourcesFailed { .. }
        | SourceError::ChecksumMismatch { .. } => StatusCode::BAD_GATEWAY,
        SourceError::Offline { .. } | SourceError::Cancelled { .. } => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        SourceError::DiskFull { .. } => StatusCode::INSUFFICIENT_STORAGE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    ApiError::new(status, error.kind(), error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_names_models_and_no_paths() {
        let store = Store::at("nowhere");
        let kind = |name: &str| resolve(&store, name).map_err(|error| error.kind());
        let hub = |repo: &str, file: Option<&str>| {
            Ok(ModelRef::Hub {
                repo: repo.to_owned(),
                revision: None,
                file: file.map(str::to_owned),
            })
        };
        assert_eq!(
            kind("smollm2:135m"),
            Ok(ModelRef::Catalog("smollm2:135m".to_owned()))
        );
        assert_eq!(kind("hf:org/repo:Q8_0"), hub("org/repo", Some("Q8_0")));
        assert_eq!(kind("hf.co/org/repo"), hub("org/repo", None));
        assert_eq!(kind("org/repo"), hub("org/repo", None));
        for name in [
            "/etc/hostname",
            "../x",
            "./src/lib.rs",
            "~/x",
            "src\\lib.rs",
            "",
            "a/b/c",
        ] {
            assert!(
                !matches!(resolve(&store, name), Ok(ModelRef::Path(_))),
                "{name}"
            );
            assert!(kind(name).is_err(), "{name}");
        }
        // This file exists where tests run.
        assert_eq!(kind("Cargo.toml"), Err("model_not_found"));
    }

    #[test]
    fn failures_have_a_status() {
        let place = || "there".to_owned();
        for (error, status, code) in [
            (
                SourceError::NotFoundOnHub {
                    what: "file",
                    place: place(),
                },
                404,
                "model_not_found",
            ),
            (
                SourceError::DownloadFailed {
                    place: place(),
                    reason: place(),
                },
                502,
                "download_failed",
            ),
            (SourceError::Cancelled { model: place() }, 503, "cancelled"),
        ] {
            let error = refusal(&error);
            assert_eq!((error.status.as_u16(), error.code), (status, code));
        }
    }
}
