//! Errors in Anthropic's form.

use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::{ApiError, ErrorObject};
use crate::ids::RequestId;

/// The body of an error, and the data of the event `error`.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = anthropic::AnthropicError)]
pub(super) struct AnthropicError {
    /// `error`.
    #[serde(rename = "type")]
    kind: &'static str,
    error: ErrorObject,
    request_id: String,
}

impl AnthropicError {
    pub(super) fn new(error: &ApiError, request_id: &RequestId) -> Self {
        Self {
            kind: "error",
            error: ErrorObject {
                kind: word(error.status),
                ..error.body().error
            },
            request_id: request_id.to_string(),
        }
    }
}

/// The answer to a request that failed.
pub(super) fn respond(error: &ApiError, request_id: &RequestId) -> Response {
    error.respond_with(AnthropicError::new(error, request_id))
}

/// Names the request where Anthropic's clients look for it.
pub(super) fn name(response: &mut Response, request_id: &RequestId) {
    if let Ok(value) = HeaderValue::from_str(request_id.as_str()) {
        response.headers_mut().insert("request-id", value);
    }
}

/// Anthropic's word for a kind of error.
fn word(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        503 => "overloaded_error",
        _ => "api_error",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_error_has_anthropics_form_and_its_words() {
        let id = RequestId::new();
        let error = ApiError::invalid("top_k", "wrong");
        let body = serde_json::to_value(AnthropicError::new(&error, &id)).expect("JSON");
        let expected = json!({
            "type": "error",
            "error": {
                "message": "wrong",
                "type": "invalid_request_error",
                "param": "top_k",
                "code": "invalid_parameter",
            },
            "request_id": id.as_str(),
        });
        assert_eq!(body, expected);
        for (status, expected) in [
            (400, "invalid_request_error"),
            (401, "authentication_error"),
            (403, "permission_error"),
            (404, "not_found_error"),
            (409, "invalid_request_error"),
            (413, "request_too_large"),
            (429, "rate_limit_error"),
            (500, "api_error"),
            (503, "overloaded_error"),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(word(status), expected);
        }
    }
}
