//! Paths of Ollama that are known and not served: a client is told so instead of a plain 404.

use axum::http::StatusCode;
use axum::routing::any;
use utoipa_axum::router::OpenApiRouter;

use crate::app::Shared;
use crate::error::ApiError;

/// What they would do.
const MISSING: [(&str, &str); 5] = [
    ("/api/create", "models are not created here"),
    ("/api/push", "models are not pushed from here"),
    ("/api/copy", "models are not copied here"),
    (
        "/api/delete",
        "models are not deleted here; the operator can, with `tercel rm`",
    ),
    ("/api/blobs/{digest}", "files are not taken in here"),
];

/// The paths. They are left out of the description, which has what there is.
pub(super) fn router() -> OpenApiRouter<Shared> {
    let paths = MISSING.into_iter();
    paths.fold(OpenApiRouter::new(), |router, (path, reason)| {
        router.route(
            path,
            any(move || async move {
                ApiError::new(StatusCode::BAD_REQUEST, "not_supported", reason)
            }),
        )
    })
}
