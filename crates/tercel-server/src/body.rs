//! A request's JSON body: its size, its nesting and its fields are checked before anything else.

use std::time::Duration;

use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use crate::app::Shared;
use crate::error::ApiError;
use crate::gate::{Crowded, Late};

/// Values of a body, all arrays and objects included: each takes up to a hundred bytes of memory, so
/// that a body of nothing but brackets and commas would become fifty times as large. A prompt may
/// be an array of tokens.
const MOST_VALUES: usize = 1 << 18;

/// The body as `T`; every way in which it can be wrong is a 4xx with the field's path.
#[derive(Clone, Debug)]
pub(crate) struct Json<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<Shared> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Shared) -> Result<Self, ApiError> {
        // Ollama's own server does not look, and its clients rely on that. What a page of another
        // site sends has an `Origin`, which the gate has refused by now.
        if !request.uri().path().starts_with("/api/") {
            check_content_type(request.headers())?;
        }
        check_content_encoding(request.headers())?;
        let limits = &app.config.limits;
        let body = read(request, limits.body_bytes).await?;
        check_object(&body)?;
        parse(&body, limits.nesting).map(Self)
    }
}

/// The whole body, at most `limit` bytes. One that the gate has read already (to check a
/// signature) is an extension-free `Full` body by then, so this reads it again for nothing.
pub(crate) async fn read(request: Request, limit: usize) -> Result<Bytes, ApiError> {
    let body = Limited::new(request.into_body(), limit);
    match body.collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "input_too_large",
            format!("the body is over {limit} bytes"),
        )),
        Err(error) if Late::caused(&*error) => Err(ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            "request_timeout",
            Late.to_string(),
        )),
        Err(error) if Crowded::caused(&*error) => Err(ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "server_busy",
            Crowded.to_string(),
        )
        .retry_after(Duration::from_secs(1))),
        Err(_) => Err(ApiError::bad_request(
            "incomplete_body",
            "the body ended before its announced length",
        )),
    }
}

fn check_content_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let value = headers.get(header::CONTENT_TYPE);
    let kind = value
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    // A page of another site can send a form or plain text without asking, but never JSON.
    if kind.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported_media_type",
        "the body must be JSON, with `Content-Type: application/json`",
    ))
}

/// What is compressed would be read as something else.
fn check_content_encoding(headers: &HeaderMap) -> Result<(), ApiError> {
    let encodings = headers.get_all(header::CONTENT_ENCODING).into_iter();
    let mut encodings = encodings.map(HeaderValue::as_bytes);
    if encodings.all(|encoding| encoding.eq_ignore_ascii_case(b"identity")) {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported_content_encoding",
        "the body must not be compressed",
    ))
}

/// A struct would be read from its fields in their order, too, which nobody means.
fn check_object(body: &[u8]) -> Result<(), ApiError> {
    if body.trim_ascii_start().starts_with(b"[") {
        let message = "the body must be a JSON object, not an array";
        return Err(ApiError::bad_request("invalid_request", message));
    }
    Ok(())
}

/// JSON of at most so many levels, as `T`.
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8], nesting: usize) -> Result<T, ApiError> {
    let invalid = |message: String| ApiError::bad_request("invalid_json", message);
    let text = std::str::from_utf8(body).map_err(|error| {
        invalid(format!(
            "the body is not UTF-8 from byte {}",
            error.valid_up_to()
        ))
    })?;
    let size = Size::of(text);
    if size.levels > nesting {
        return Err(invalid(format!(
            "the body nests deeper than {nesting} levels"
        )));
    }
    if size.values > MOST_VALUES {
        return Err(invalid(format!(
            "the body has more than {MOST_VALUES} values"
        )));
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.inner();
        if inner.is_data() {
            // The message may repeat what was sent; that goes back to its sender alone.
            let error = ApiError::bad_request("invalid_request", inner.to_string());
            if path == "." {
                error
            } else {
                error.about(path)
            }
        } else {
            invalid(format!("the body is not JSON: {inner}"))
        }
    })?;
    match deserializer.end() {
        Ok(()) => Ok(value),
        Err(error) => Err(invalid(format!("the body is not one JSON value: {error}"))),
    }
}

/// The size of a JSON text, without what is in its strings.
struct Size {
    /// Arrays and objects in each other.
    levels: usize,
    /// Values, at most.
    values: usize,
}

impl Size {
    fn of(text: &str) -> Self {
        let (mut depth, mut levels, mut values) = (0_usize, 0, 1);
        let mut bytes = text.bytes();
        while let Some(byte) = bytes.next() {
            match byte {
                b'"' => {
                    while let Some(byte) = bytes.next() {
                        match byte {
                            b'\\' => drop(bytes.next()),
                            b'"' => break,
                            _ => {}
                        }
                    }
                }
                b'[' | b'{' => {
                    depth += 1;
                    values += 1;
                    levels = levels.max(depth);
                }
                b',' => values += 1,
                b']' | b'}' => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
        Self { levels, values }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        prompt: String,
        #[serde(default)]
        stops: Vec<u8>,
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, code, param, part) in [
            ("{", "invalid_json", None, "EOF"),
            ("", "invalid_json", None, "EOF"),
            (
                r#"{"prompt": 3}"#,
                "invalid_request",
                Some("prompt"),
                "integer `3`",
            ),
            (
                r#"{"prompt": "a", "stops": [1, true]}"#,
                "invalid_request",
                Some("stops[1]"),
                "boolean",
            ),
            (
                r#"{"prompt": "a", "stops": [1.5]}"#,
                "invalid_request",
                Some("stops[0]"),
                "1.5",
            ),
            (
                r#"{"prompt": "a", "other": 1}"#,
                "invalid_request",
                Some("other"),
                "unknown field `other`",
            ),
            (r"{}", "invalid_request", None, "missing field `prompt`"),
            (r#"{"prompt": "a"} x"#, "invalid_json", None, "trailing"),
            (r#"[[[[1]]]]"#, "invalid_json", None, "deeper than 3"),
            (r#""a""#, "invalid_request", None, "string"),
        ] {
            let error = parse::<Sample>(body.as_bytes(), 3).unwrap_err();
            assert_eq!(error.status, StatusCode::BAD_REQUEST, "{body}");
            assert_eq!(
                (error.code, error.param.as_deref()),
                (code, param),
                "{body}"
            );
            assert!(error.message.contains(part), "{body}: {}", error.message);
        }
        let error = parse::<Sample>(b"{\"prompt\": \"\xff\"}", 3).unwrap_err();
        assert!(error.message.contains("byte 12"), "{}", error.message);
    }

    #[test]
    fn values_are_counted() {
        for (text, levels, values) in [
            ("1", 0, 1),
            ("[]", 1, 2),
            (r#"{"a": [1, 2], "b": ",,["}"#, 2, 5),
            ("[[],[]]", 2, 5),
        ] {
            let size = Size::of(text);
            assert_eq!((size.levels, size.values), (levels, values), "{text}");
        }
        let many = |n| format!(r#"{{"prompt": "a", "stops": [{}0]}}"#, "0,".repeat(n));
        let error = parse::<Sample>(many(MOST_VALUES).as_bytes(), 3).unwrap_err();
        assert!(error.message.contains("262144 values"), "{}", error.message);
        let sample: Sample = parse(many(MOST_VALUES - 4).as_bytes(), 3).unwrap();
        assert_eq!(sample.stops.len(), MOST_VALUES - 3);
    }

    #[test]
    fn a_body_is_an_object() {
        assert_eq!(check_object(b"{\"prompt\": []}"), Ok(()));
        for body in ["[]", " \n[\"a\", [1]]"] {
            let error = check_object(body.as_bytes()).unwrap_err();
            assert!(error.message.contains("not an array"), "{body}");
        }
    }

    #[test]
    fn a_body_is_not_compressed() {
        let check = |encoding: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_ENCODING, encoding.parse().unwrap());
            check_content_encoding(&headers).map_err(|error| error.status.as_u16())
        };
        assert_eq!(check("identity"), Ok(()));
        assert_eq!(check("gzip"), Err(415));
        assert!(check_content_encoding(&HeaderMap::new()).is_ok());
    }

    #[test]
    fn brackets_in_strings_do_not_nest() {
        let body = br#"{"prompt": "[[[[\"[[[{{"}"#;
        let sample: Sample = parse(body, 1).unwrap();
        assert_eq!(sample.prompt, r#"[[[["[[[{{"#);
    }
}
