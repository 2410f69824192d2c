//! The way of a request through the gate, and of its answer back.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::auth::{Need, authenticate};
use super::buckets::Client;
use super::hosts::{self, Origin};
use super::{Caller, Peer, address_of, shape};
use crate::app::{App, Shared};
use crate::error::ApiError;
use crate::ids::RequestId;

/// Lets a request in or says why not. Whatever comes of it carries the request's name, is safe for
/// browsers, has the form of its protocol, and is counted.
pub(crate) async fn admit(State(app): State<Shared>, request: Request, next: Next) -> Response {
    let id = RequestId::new();
    let path = request.uri().path().to_owned();
    let template = request.extensions().get::<MatchedPath>().cloned();
    let template = template.as_ref().map_or("other", MatchedPath::as_str);
    let origin = app.gate.hosts.check(request.uri(), request.headers());
    let (parts, body) = request.into_parts();
    let (body, admitted) = app.gate.bodies.admit(body, app.config.limits.read_timeout);
    let request = Request::from_parts(parts, body);
    let response = match &origin {
        Ok(origin) => answer(&app, &id, origin.as_ref(), request, next, template).await,
        Err(error) => Err(error.clone()),
    };
    let response = response.unwrap_or_else(|error| {
        if let Some(scope) = error.scope {
            app.metrics.rate_limited(scope);
        }
        error.into_response()
    });
    let mut response = shape::errors_of(&path, &id, response).await;
    app.metrics.answered(template, response.status().as_u16());
    let is_unauthorized = response.status() == StatusCode::UNAUTHORIZED;
    let is_cut = admitted.is_left() && (response.status().as_u16() >= 400);
    let headers = response.headers_mut();
    hosts::secure(headers);
    if let Ok(Some(origin)) = &origin {
        origin.allow(headers);
    }
    if is_cut {
        // The connection ends with an answer that did not wait for the body. A client that is not
        // told sends its next request into nothing.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if is_unauthorized {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Ok(id) = HeaderValue::from_str(id.as_str()) {
        // Anthropic's clients look for theirs.
        headers.insert("request-id", id.clone());
        headers.insert("x-request-id", id);
    }
    response
}

async fn answer(
    app: &Shared,
    id: &RequestId,
    origin: Option<&Origin>,
    request: Request,
    next: Next,
    template: &str,
) -> Result<Response, ApiError> {
    if let Some(may) = origin.and_then(|it| it.preflight(request.method(), request.headers())) {
        return Ok(may);
    }
    let need = Need::of(request.uri().path());
    if app.is_draining() && need != Need::Health {
        let message = "the server is stopping";
        let error = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "server_stopping", message);
        return Err(error.retry_after(Duration::from_secs(1)));
    }
    let limits = &app.config.limits;
    let address = address_of(request.extensions().get::<Peer>());
    let (mut request, identity) = authenticate(&app.gate, need, limits.body_bytes, request).await?;
    if matches!(need, Need::Key(_)) {
        let client = Client::new(identity.key_id.as_deref(), address);
        app.gate.buckets.take(&client, Instant::now())?;
    }
    request.extensions_mut().insert(Caller {
        request_id: id.clone(),
        key_id: identity.key_id,
        role: identity.role,
        address,
    });
    caught(app, id, template, next.run(request)).await
}

/// What a handler answers. A panic is a fault of ours and ends this request alone; what it says may
/// repeat what was asked, so it is not passed on.
async fn caught(
    app: &App,
    id: &RequestId,
    template: &str,
    handler: impl Future<Output = Response>,
) -> Result<Response, ApiError> {
    let mut handler = pin!(handler);
    let response = std::future::poll_fn(|context| {
        // After a panic the handler is only dropped.
        match catch_unwind(AssertUnwindSafe(|| handler.as_mut().poll(context))) {
            Ok(poll) => poll.map(Some),
            Err(_) => Poll::Ready(None),
        }
    })
    .await;
    response.ok_or_else(|| {
        app.log.event(json!({
            "event": "server.panicked",
            "request_id": id.as_str(),
            "path": template,
        }));
        let message = format!("something failed in the server (request {id})");
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    })
}

#[cfg(test)]
mod tests;
