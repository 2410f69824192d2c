//! What computes a reply, named in the head of its response.

use axum::http::HeaderValue;
use axum::response::Response;

use crate::work::Running;

/// A backend, such as `cpu-avx2`.
pub(super) struct Backend(Option<HeaderValue>);

impl Backend {
    pub(super) fn of(running: &Running) -> Self {
        Self(HeaderValue::from_str(&running.engine().info().backend).ok())
    }

    /// The response with its name.
    pub(super) fn on(self, mut response: Response) -> Response {
        if let Some(name) = self.0 {
            response.headers_mut().insert("x-tercel-backend", name);
        }
        response
    }
}
