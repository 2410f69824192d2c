//! Ollama's protocol, but for what makes models: that is for the operator.

mod answer;
mod embed;
mod error;
mod fetches;
mod files;
mod keep_alive;
mod list;
mod missing;
mod options;
mod progress;
mod pull;
mod record;
mod request;
mod show;
mod time;

use std::sync::Arc;

use axum::Extension;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::fetches::Fetches;
use self::list::Known;
use crate::app::Shared;

/// The paths of Ollama's protocol.
pub(crate) fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(answer::chat))
        .routes(routes!(answer::generate))
        .routes(routes!(embed::embed))
        .routes(routes!(embed::embeddings))
        .routes(routes!(list::tags))
        .routes(routes!(list::ps))
        .routes(routes!(show::show))
        .routes(routes!(list::version))
        .routes(routes!(pull::pull))
        .merge(missing::router())
        .layer(Extension(Arc::new(Known::default())))
        .layer(Extension(Arc::new(Fetches::default())))
}
