//! Errors as the clients of each protocol read them.
//!
//! The body is OpenAI's object everywhere. Anthropic's clients look for `"type": "error"` beside it.
//! Ollama's take `error` for a text (its JavaScript client shows an object as `[object Object]`), so
//! there the message stands in its place and the other fields beside it.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use http_body_util::{BodyExt, Limited};
use serde_json::{Map, Value, json};

use crate::error::{ApiError, Told};
use crate::ids::RequestId;

/// What of an error's body is read; none of ours is near it.
const MOST_BYTES: usize = 64 << 10;

/// A response in the form of the protocol of its path. Errors of the framework itself, which are
/// plain texts, become objects too. What is no error is passed on as it is.
pub(crate) async fn errors_of(path: &str, id: &RequestId, response: Response) -> Response {
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return response;
    }
    let is_told = response.extensions().get::<Told>().is_some();
    let is_anthropic = path == "/v1/messages" || path.starts_with("/v1/messages/");
    let is_ollama = path.starts_with("/api/");
    let content_type = response.headers().get(header::CONTENT_TYPE);
    let is_json = content_type.is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    // A JSON body that is no `ApiError` is a handler's own, such as that of `/readyz`.
    if (is_told && !is_anthropic && !is_ollama) || (!is_told && is_json) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let bytes = Limited::new(body, MOST_BYTES)
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes);
    let bytes = bytes.unwrap_or_default();
    let mut object = if is_told {
        match serde_json::from_slice(&bytes) {
            Ok(object) => object,
            Err(_) => return Response::from_parts(parts, Body::from(bytes)),
        }
    } else {
        let (code, fallback) = code_of(status);
        parts.extensions.insert(Told);
        object_of(
            status,
            code,
            std::str::from_utf8(&bytes).unwrap_or_default(),
            fallback,
        )
    };
    if is_anthropic {
        for_anthropic(status, id, &mut object);
    } else if is_ollama {
        for_ollama(&mut object);
    }
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    Response::from_parts(parts, Body::from(Value::Object(object).to_string()))
}

fn code_of(status: StatusCode) -> (&'static str, &'static str) {
    match status.as_u16() {
        404 => ("not_found", "there is no such path"),
        405 => ("method_not_allowed", "this path does not take this method"),
        413 => ("input_too_large", "the body is too large"),
        415 => ("unsupported_media_type", "the body must be JSON"),
        400..=499 => ("invalid_request", "the request is not as it must be"),
        _ => ("internal", "something failed in the server"),
    }
}

fn object_of(
    status: StatusCode,
    code: &'static str,
    text: &str,
    fallback: &str,
) -> Map<String, Value> {
    // What failed inside is for the log.
    let is_theirs = status.is_client_error() && !text.trim().is_empty();
    let message = if is_theirs { text.trim() } else { fallback };
    match json!(ApiError::new(status, code, message).body()) {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

fn for_anthropic(status: StatusCode, id: &RequestId, object: &mut Map<String, Value>) {
    // Anthropic's names, where they are not OpenAI's.
    let kind = match status.as_u16() {
        413 => Some("request_too_large"),
        503 => Some("overloaded_error"),
        500..=599 => Some("api_error"),
        _ => None,
    };
    if let (Some(kind), Some(Value::Object(error))) = (kind, object.get_mut("error")) {
        error.insert("type".into(), kind.into());
    }
    object.insert("type".into(), "error".into());
    object.insert("request_id".into(), id.as_str().into());
}

fn for_ollama(object: &mut Map<String, Value>) {
    let Some(Value::Object(error)) = object.get("error").cloned() else {
        return;
    };
    for (name, value) in error {
        let name = if name == "message" {
            "error".into()
        } else {
            name
        };
        object.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;

    use super::*;

    async fn shaped(path: &str, response: Response) -> (Response, Value) {
        let response = errors_of(path, &RequestId::new(), response).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        (Response::from_parts(parts, Body::empty()), value)
    }

    #[tokio::test]
    async fn each_protocols_clients_find_what_they_look_for() {
        let error = || ApiError::invalid("top_p", "`top_p` is 2").into_response();
        let openai = json!({"error": {
            "message": "`top_p` is 2", "type": "invalid_request_error", "param": "top_p",
            "code": "invalid_parameter",
        }});
        for path in [
            "/v1/chat/completions",
            "/generate",
            "/admin/reload",
            "/v1/messagesx",
        ] {
            assert_eq!(shaped(path, error()).await.1, openai, "{path}");
        }
        for path in ["/v1/messages", "/v1/messages/count_tokens"] {
            let (_, body) = shaped(path, error()).await;
            assert_eq!(body["type"], "error", "{path}");
            assert_eq!(body["error"], openai["error"], "{path}");
            assert!(body["request_id"].is_string(), "{path}");
        }
        assert_eq!(
            shaped("/api/chat", error()).await.1,
            json!({"error": "`top_p` is 2", "type": "invalid_request_error", "param": "top_p",
                "code": "invalid_parameter"})
        );
    }

    #[tokio::test]
    async fn anthropics_names_are_used_for_its_clients() {
        for (status, kind) in [
            (401, "authentication_error"),
            (413, "request_too_large"),
            (429, "rate_limit_error"),
            (500, "api_error"),
            (503, "overloaded_error"),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let error = ApiError::new(status, "code", "message").into_response();
            let (_, body) = shaped("/v1/messages", error).await;
            assert_eq!(body["error"]["type"], kind, "{status}");
        }
    }

    #[tokio::test]
    async fn errors_of_the_framework_become_objects() {
        let error = (
            StatusCode::BAD_REQUEST,
            "Failed to deserialize query string",
        )
            .into_response();
        let (response, body) = shaped("/v1/models", error).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        assert_eq!(response.headers()["content-type"], "application/json");
        assert_eq!(
            body["error"]["message"],
            "Failed to deserialize query string"
        );
        assert_eq!(body["error"]["code"], "invalid_request");
        let error = (StatusCode::INTERNAL_SERVER_ERROR, "at line 7").into_response();
        let (_, body) = shaped("/v1/models", error).await;
        assert_eq!(body["error"]["message"], "something failed in the server");
        let (_, body) = shaped("/api/tags", StatusCode::NOT_FOUND.into_response()).await;
        assert_eq!(body["error"], "there is no such path");
    }

    #[tokio::test]
    async fn what_is_no_error_or_a_handlers_own_is_left() {
        let own = json!({"ready": false, "reason": "loading"});
        let json = [(header::CONTENT_TYPE, "application/json")];
        let body = own.to_string();
        let unready = (StatusCode::SERVICE_UNAVAILABLE, json.clone(), body.clone());
        let unready = unready.into_response();
        assert_eq!(shaped("/readyz", unready).await.1, own);
        let fine = (json, body).into_response();
        assert_eq!(shaped("/v1/messages", fine).await.1, own);
        let theirs = json!({"error": "a text", "code": "x"});
        let error = ApiError::bad_request("x", "a text").respond_with(theirs.clone());
        assert_eq!(shaped("/api/chat", error).await.1, theirs);
    }
}
