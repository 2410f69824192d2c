//! The models, for whoever runs the server. The gate lets only the role `admin` come here.

use axum::Json as JsonReply;
use axum::extract::{FromRequest, Request, State};
use http_body::Body;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tercel::host::{Host, HostError, ModelStatus};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::native::Refusals;
use crate::app::Shared;
use crate::body::Json;
use crate::error::ApiError;
use crate::gate::Caller;

pub(crate) fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(reload))
        .routes(routes!(list))
        .routes(routes!(load))
        .routes(routes!(unload))
        .routes(routes!(reset))
}

/// A model.
#[derive(Deserialize, ToSchema)]
#[schema(as = admin::Named)]
#[serde(deny_unknown_fields)]
struct Named {
    /// Its name.
    model: String,
}

/// A model, or the server's first.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = admin::PerhapsNamed)]
#[serde(deny_unknown_fields)]
struct PerhapsNamed {
    /// Its name, by default that of the server's first.
    model: Option<String>,
}

/// What was done.
#[derive(Serialize, ToSchema)]
#[schema(as = admin::Outcome)]
struct Outcome {
    /// `reloaded`, `loaded`, `unloaded` or `reset`.
    status: &'static str,
}

/// All models.
#[derive(Serialize, ToSchema)]
#[schema(as = admin::AdminModels)]
struct AdminModels {
    models: Vec<AdminModel>,
    memory: AdminMemory,
}

/// A model as it stands.
#[derive(Serialize, ToSchema)]
#[schema(as = admin::AdminModel)]
struct AdminModel {
    name: String,
    /// The model as the operator named it.
    source: String,
    /// `uninitialized`, a step of its load, `ready`, `serving`, `unloading` or `failed`.
    state: &'static str,
    is_loading: bool,
    /// Requests that run on it.
    running: usize,
    /// What it takes of the memory, 0 when it is not loaded.
    footprint_bytes: u64,
    /// How often it was loaded.
    loads: u64,
    /// How many of these loads were restarts of an unhealthy model.
    restarts: u64,
    /// Requests that failed by a fault of the model since one succeeded.
    faults: u32,
    /// How long its last load took.
    load_ms: f64,
    /// Why it left the memory the last time.
    unloaded_by: Option<&'static str>,
    /// Why it cannot be used, until it is reset.
    error: Option<String>,
}

/// What the models take of the memory, in units of 2^20 bytes.
#[derive(Serialize, ToSchema)]
#[schema(as = admin::AdminMemory)]
struct AdminMemory {
    footprint_mb: f64,
    /// What the whole process has, where the system tells.
    resident_mb: Option<f64>,
}

/// Unloads a model once its requests have ended, and loads it again.
#[utoipa::path(
    post,
    path = "/admin/reload",
    tag = "admin",
    operation_id = "admin_reload",
    request_body = Option<PerhapsNamed>,
    responses((status = 200, body = Outcome, description = "It is ready"), Refusals)
)]
async fn reload(
    State(app): State<Shared>,
    _: Caller,
    Optional(body): Optional<PerhapsNamed>,
) -> Result<JsonReply<Outcome>, ApiError> {
    on_host(&app, body.model.as_deref(), Host::reload).await?;
    Ok(done("reloaded"))
}

/// Lists the models with their states.
#[utoipa::path(
    get,
    path = "/admin/models",
    tag = "admin",
    operation_id = "admin_list",
    responses((status = 200, body = AdminModels, description = "All models"), Refusals)
)]
async fn list(State(app): State<Shared>, _: Caller) -> Result<JsonReply<AdminModels>, ApiError> {
    let served = app.models.all();
    let models = served.map(|model| {
        let status = app.models.status(&model.name)?;
        Ok(describe(status, &model.source))
    });
    let models = models.collect::<Result<_, ApiError>>()?;
    let memory = app.models.host().memory_footprint();
    Ok(JsonReply(AdminModels {
        models,
        memory: AdminMemory {
            footprint_mb: memory.footprint_mb,
            resident_mb: memory.resident_mb,
        },
    }))
}

/// Loads a model and waits until it is ready.
#[utoipa::path(
    post,
    path = "/admin/models/load",
    tag = "admin",
    operation_id = "admin_load",
    request_body = Named,
    responses((status = 200, body = Outcome, description = "It is ready"), Refusals)
)]
async fn load(
    State(app): State<Shared>,
    _: Caller,
    Json(body): Json<Named>,
) -> Result<JsonReply<Outcome>, ApiError> {
    let name = &app.models.find(Some(&body.model))?.name;
    app.models.lease(name).await?;
    Ok(done("loaded"))
}

/// Takes a model out of the memory; one that is in use stays.
#[utoipa::path(
    post,
    path = "/admin/models/unload",
    tag = "admin",
    operation_id = "admin_unload",
    request_body = Named,
    responses((status = 200, body = Outcome, description = "It is out of the memory"), Refusals)
)]
async fn unload(
    State(app): State<Shared>,
    _: Caller,
    Json(body): Json<Named>,
) -> Result<JsonReply<Outcome>, ApiError> {
    let unload = |host: &Host, name: &str| {
        // Told at once instead of after the time that requests are given to end, in which no
        // others would be let in.
        let running = host.status(name)?.running;
        if running > 0 {
            let name = name.to_owned();
            return Err(HostError::InUse { name, running });
        }
        host.unload(name)
    };
    on_host(&app, Some(&body.model), unload).await?;
    Ok(done("unloaded"))
}

/// Forgets the error of a model that failed, so that the next request loads it anew.
#[utoipa::path(
    post,
    path = "/admin/models/reset",
    tag = "admin",
    operation_id = "admin_reset",
    request_body = Named,
    responses((status = 200, body = Outcome, description = "It has no error now"), Refusals)
)]
async fn reset(
    State(app): State<Shared>,
    _: Caller,
    Json(body): Json<Named>,
) -> Result<JsonReply<Outcome>, ApiError> {
    on_host(&app, Some(&body.model), Host::reset).await?;
    Ok(done("reset"))
}

/// Does something with a model on a thread that may wait.
async fn on_host(
    app: &Shared,
    model: Option<&str>,
    work: impl FnOnce(&Host, &str) -> Result<(), HostError> + Send + 'static,
) -> Result<(), ApiError> {
    let name = app.models.find(model)?.name.clone();
    let host = app.models.host().clone();
    match tokio::task::spawn_blocking(move || work(&host, &name)).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(ApiError::from(HostError::Closed)),
    }
}

fn done(status: &'static str) -> JsonReply<Outcome> {
    JsonReply(Outcome { status })
}

fn describe(status: ModelStatus, source: &str) -> AdminModel {
    AdminModel {
        source: source.to_owned(),
        state: status.state.name(),
        is_loading: status.is_loading,
        running: status.running,
        footprint_bytes: status.footprint_bytes,
        loads: status.loads,
        restarts: status.restarts,
        faults: status.faults,
        load_ms: status.load_report.total_ms(),
        unloaded_by: status.unloaded_by,
        error: status.error,
        name: status.name,
    }
}

/// A JSON body that may be left out.
struct Optional<T>(T);

impl<T: Default + DeserializeOwned> FromRequest<Shared> for Optional<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Shared) -> Result<Self, ApiError> {
        if request.body().is_end_stream() {
            return Ok(Self(T::default()));
        }
        let Json(body) = Json::from_request(request, app).await?;
        Ok(Self(body))
    }
}
