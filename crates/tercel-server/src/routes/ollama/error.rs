//! Errors in Ollama's form, whose clients take `error` for a text.

use serde::Serialize;
use utoipa::ToSchema;

use crate::error::ApiError;

/// The body of an error (the gate makes it of [`ApiError`]), and the last line of a stream that
/// failed.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = ollama::OllamaError)]
pub(super) struct OllamaError {
    /// One line for a person.
    error: String,
    /// The kind, such as `invalid_request_error`.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The field it is about.
    param: Option<String>,
    /// A stable code in snake case.
    code: &'static str,
    /// Whose limit was reached, `client` or `global`; with `rate_limited` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'static str>,
}

impl From<&ApiError> for OllamaError {
    fn from(error: &ApiError) -> Self {
        let object = error.body().error;
        Self {
            error: object.message,
            kind: object.kind,
            param: object.param,
            code: object.code,
            scope: object.scope,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_message_stands_where_clients_look_for_it() {
        let error = ApiError::invalid("options.top_k", "wrong");
        let error = serde_json::to_value(OllamaError::from(&error)).expect("JSON");
        let expected = json!({
            "error": "wrong",
            "type": "invalid_request_error",
            "param": "options.top_k",
            "code": "invalid_parameter",
        });
        assert_eq!(error, expected);
    }
}
