//! `/api/tags`, `/api/ps` and `/api/version`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::OllamaError;
use super::files::{Files, Found, format, parameter_size};
use super::time::rfc3339;
use crate::app::Shared;
use crate::config::ServedModel;
use crate::error::ApiError;

/// What these routes remember between requests.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) files: Files,
}

/// What a model is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
#[schema(as = ollama::Details)]
pub(super) struct Details {
    /// Empty.
    parent_model: &'static str,
    /// `gguf` or `safetensors`; empty where the files are not on this machine.
    format: &'static str,
    /// Such as `llama`.
    family: String,
    families: Vec<String>,
    /// Such as `134.52M`.
    parameter_size: String,
    /// The type of most weights, such as `Q4_1`.
    quantization_level: String,
}

/// A model of `/api/tags`.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ollama::Tag)]
pub(super) struct Tag {
    name: String,
    model: String,
    modified_at: String,
    /// Bytes of its files; 0 where they are not on this machine.
    size: u64,
    /// SHA-256 of its file; empty where it is not known.
    digest: String,
    details: Details,
}

/// The models of the server.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ollama::Tags)]
pub(super) struct Tags {
    models: Vec<Tag>,
}

/// A model of `/api/ps`.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ollama::Process)]
pub(super) struct Process {
    name: String,
    model: String,
    /// Bytes that it takes of the memory.
    size: u64,
    digest: String,
    details: Details,
    /// When it leaves the memory at the latest, if nobody asks for it.
    expires_at: String,
    /// Bytes in the memory of a graphics card: none.
    size_vram: u64,
    /// Tokens of its context.
    #[serde(skip_serializing_if = "Option::is_none")]
    context_length: Option<usize>,
}

/// The models in memory.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ollama::Processes)]
pub(super) struct Processes {
    models: Vec<Process>,
}

/// The version of the server.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[schema(as = ollama::Version)]
pub(super) struct Version {
    version: &'static str,
}

/// List the models.
#[utoipa::path(
    get,
    path = "/api/tags",
    operation_id = "ollama_tags",
    tag = "ollama",
    responses(
        (status = 200, description = "The models.", body = Tags),
        (status = 401, description = "The key is missing or unknown.", body = OllamaError),
        (status = 403, description = "Not allowed.", body = OllamaError),
        (status = 429, description = "Too many requests.", body = OllamaError),
    ),
)]
pub(super) async fn tags(
    State(app): State<Shared>,
    Extension(known): Extension<Arc<Known>>,
) -> Result<axum::Json<Tags>, ApiError> {
    let models = blocking(move || {
        let served = app.models.all();
        let created = created(&app);
        served
            .map(|model| tag(model, known.files.find(&model.source).as_ref(), created))
            .collect()
    });
    Ok(axum::Json(Tags {
        models: models.await?,
    }))
}

/// List the models in memory.
#[utoipa::path(
    get,
    path = "/api/ps",
    operation_id = "ollama_ps",
    tag = "ollama",
    responses(
        (status = 200, description = "The models in memory.", body = Processes),
        (status = 401, description = "The key is missing or unknown.", body = OllamaError),
        (status = 403, description = "Not allowed.", body = OllamaError),
        (status = 429, description = "Too many requests.", body = OllamaError),
    ),
)]
pub(super) async fn ps(
    State(app): State<Shared>,
    Extension(known): Extension<Arc<Known>>,
) -> Result<axum::Json<Processes>, ApiError> {
    let models = blocking(move || {
        let loaded = app.models.host().list().into_iter();
        let loaded = loaded.filter(|status| status.state.takes_requests());
        let mut models = Vec::new();
        for status in loaded {
            let Ok(model) = app.models.find(Some(&status.name)) else {
                continue;
            };
            let tag = tag(
                model,
                known.files.find(&model.source).as_ref(),
                created(&app),
            );
            models.push(Process {
                name: tag.name,
                model: tag.model,
                size: status.footprint_bytes,
                digest: tag.digest,
                details: tag.details,
                expires_at: rfc3339(expiry(SystemTime::now(), app.config.idle_ttl)),
                size_vram: 0,
                context_length: app.models.context(&status.name),
            });
        }
        models
    });
    Ok(axum::Json(Processes {
        models: models.await?,
    }))
}

/// The version of the server.
#[utoipa::path(
    get,
    path = "/api/version",
    operation_id = "ollama_version",
    tag = "ollama",
    responses(
        (status = 200, description = "The version.", body = Version),
        (status = 401, description = "The key is missing or unknown.", body = OllamaError),
        (status = 403, description = "Not allowed.", body = OllamaError),
        (status = 429, description = "Too many requests.", body = OllamaError),
    ),
)]
pub(super) async fn version() -> axum::Json<Version> {
    axum::Json(Version {
        version: env!("CARGO_PKG_VERSION"),
    })
}

/// Reads files on a thread where that holds up nobody.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| {
        ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the look at the models failed",
        )
    })
}

/// When the server began, for models whose files tell no time.
pub(super) fn created(app: &Shared) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(app.models.created())
}

/// When a model that is used now leaves the memory; some 292 years are for ever.
fn expiry(now: SystemTime, idle_ttl: Option<Duration>) -> SystemTime {
    const FOREVER: Duration = Duration::from_nanos(i64::MAX.unsigned_abs());
    let forever = now.checked_add(FOREVER).unwrap_or(now);
    match idle_ttl {
        Some(ttl) if ttl < FOREVER => now.checked_add(ttl).unwrap_or(forever),
        _ => forever,
    }
}

fn tag(model: &ServedModel, found: Option<&Found>, created: SystemTime) -> Tag {
    let sha256 = found.and_then(|found| found.local.sha256.clone());
    Tag {
        name: model.name.clone(),
        model: model.name.clone(),
        modified_at: rfc3339(modified(found, created)),
        size: found.map_or(0, |found| found.local.size_bytes),
        digest: sha256.unwrap_or_default(),
        details: details(found),
    }
}

pub(super) fn modified(found: Option<&Found>, created: SystemTime) -> SystemTime {
    found.and_then(|found| found.modified).unwrap_or(created)
}

pub(super) fn details(found: Option<&Found>) -> Details {
    let Some(found) = found else {
        return Details::default();
    };
    let mut details = Details {
        format: format(found.local.kind),
        ..Details::default()
    };
    if let Some(inspection) = &found.inspection {
        let model = &inspection.model;
        details.family.clone_from(&model.architecture);
        details.families = vec![model.architecture.clone()];
        details.parameter_size = parameter_size(model.parameters);
        let most = inspection.tensor_types.first();
        details.quantization_level = most.map(|it| it.dtype.clone()).unwrap_or_default();
    }
    details
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_whose_files_are_not_here_is_listed_all_the_same() {
        let model = ServedModel::new("small", "some/where", || tercel::Engine::builder("x"));
        let tag = tag(&model, None, SystemTime::UNIX_EPOCH);
        assert_eq!((&*tag.name, tag.size, &*tag.digest), ("small", 0, ""));
        assert_eq!(tag.modified_at, "1970-01-01T00:00:00.000000000Z");
    }

    #[test]
    fn what_stays_for_ever_expires_in_centuries() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600);
        assert_eq!(rfc3339(expiry(now, None)).get(..4), Some("2318"));
        let soon = expiry(now, Some(Duration::from_secs(60)));
        assert_eq!(rfc3339(soon), "2026-01-01T00:01:00.000000000Z");
        assert_eq!(
            rfc3339(expiry(now, Some(Duration::MAX))).get(..4),
            Some("2318")
        );
    }
}
