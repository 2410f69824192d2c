//! The list of models.

use axum::Json;
use axum::extract::{Path, State};
use axum::routing::get;
use serde::Serialize;
use utoipa::{OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::Shared;
use crate::config::ServedModel;
use crate::error::{ApiError, ErrorBody};

/// A model that answers here.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(super) struct Model {
    id: String,
    /// `model`.
    object: &'static str,
    /// When the server began to serve it, in Unix seconds.
    created: u64,
    owned_by: &'static str,
    /// What only this server tells.
    tercel: ModelBlock,
}

/// What only this server tells of a model.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(super) struct ModelBlock {
    /// Whether it is in memory.
    loaded: bool,
    /// Tokens that prompt and reply may have together; known once it has been loaded.
    context_length: Option<usize>,
}

/// All models.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(super) struct ModelList {
    /// `list`.
    object: &'static str,
    data: Vec<Model>,
}

/// Describes the path of one model, which the router takes in another form.
#[derive(OpenApi)]
#[openapi(paths(one))]
struct DescribedOne;

pub(super) fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::with_openapi(DescribedOne::openapi())
        .routes(routes!(list))
        // Names of models may have slashes, which not every client escapes.
        .route("/v1/models/{*id}", get(one))
}

/// The models that answer here.
#[utoipa::path(
    get,
    path = "/v1/models",
    tag = "openai",
    responses(
        (status = 200, description = "All models", body = ModelList),
        (status = 401, description = "No key, or one that is not known", body = ErrorBody),
        (status = 403, description = "The key, the host or the origin may not ask", body = ErrorBody),
        (status = 429, description = "Asked too often", body = ErrorBody),
    )
)]
async fn list(State(app): State<Shared>) -> Json<ModelList> {
    let data = app.models.all().map(|model| described(&app, model));
    Json(ModelList {
        object: "list",
        data: data.collect(),
    })
}

/// One model.
#[utoipa::path(
    get,
    path = "/v1/models/{id}",
    tag = "openai",
    params(("id" = String, Path, description = "The model's name")),
    responses(
        (status = 200, description = "The model", body = Model),
        (status = 400, description = "The name is not UTF-8", body = ErrorBody),
        (status = 401, description = "No key, or one that is not known", body = ErrorBody),
        (status = 403, description = "The key, the host or the origin may not ask", body = ErrorBody),
        (status = 404, description = "There is no such model", body = ErrorBody),
        (status = 429, description = "Asked too often", body = ErrorBody),
    )
)]
async fn one(
    State(app): State<Shared>,
    id: Result<Path<String>, axum::extract::rejection::PathRejection>,
) -> Result<Json<Model>, ApiError> {
    let Ok(Path(id)) = id else {
        return Err(ApiError::invalid("id", "the model's name is not UTF-8"));
    };
    let model = app.models.find(Some(&id))?;
    Ok(Json(described(&app, model)))
}

fn described(app: &Shared, model: &ServedModel) -> Model {
    Model {
        id: model.name.clone(),
        object: "model",
        created: app.models.created(),
        owned_by: "tercel",
        tercel: ModelBlock {
            loaded: app.models.host().is_loaded(&model.name),
            context_length: app.models.context(&model.name),
        },
    }
}
