//! `response_format`: what an answer must be.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tercel::Grammar;
use utoipa::ToSchema;

use crate::error::ApiError;

/// The longest name of a schema.
const MOST_NAME: usize = 64;

/// What the answer must be; a thought before it is free.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[schema(as = openai::ResponseFormat)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum ResponseFormat {
    /// Any text.
    Text {},
    /// A JSON object.
    JsonObject {},
    /// JSON that a schema describes.
    JsonSchema { json_schema: NamedSchema },
}

/// The same in the words of `/v1/responses`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, ToSchema)]
#[schema(as = openai::TextFormat)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum TextFormat {
    /// Any text.
    Text {},
    /// A JSON object.
    JsonObject {},
    /// JSON that a schema describes.
    JsonSchema(NamedSchema),
}

/// A schema and its name.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, ToSchema)]
#[schema(as = openai::NamedSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NamedSchema {
    /// Letters, digits, `_` and `-`.
    #[schema(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9_-]+$")]
    name: String,
    /// Without effect.
    #[serde(rename = "description", skip_serializing_if = "Option::is_none")]
    _description: Option<String>,
    /// JSON Schema; left out, any JSON object. Keywords that cannot be kept to are refused.
    #[schema(value_type = Option<Object>)]
    schema: Option<Value>,
    /// The schema is kept to in any case.
    #[serde(rename = "strict", skip_serializing_if = "Option::is_none")]
    _strict: Option<bool>,
}

impl ResponseFormat {
    /// What the engine keeps to.
    ///
    /// # Errors
    /// A name that is none.
    pub(super) fn grammar(self) -> Result<Option<Grammar>, ApiError> {
        match self {
            Self::Text {} => Ok(None),
            Self::JsonObject {} => Ok(Some(Grammar::Json)),
            Self::JsonSchema { json_schema } => {
                json_schema.grammar("response_format.json_schema").map(Some)
            }
        }
    }
}

impl TextFormat {
    /// What the engine keeps to.
    ///
    /// # Errors
    /// A name that is none.
    pub(super) fn grammar(self) -> Result<Option<Grammar>, ApiError> {
        match self {
            Self::Text {} => Ok(None),
            Self::JsonObject {} => Ok(Some(Grammar::Json)),
            Self::JsonSchema(schema) => schema.grammar("text.format").map(Some),
        }
    }
}

impl NamedSchema {
    fn grammar(self, at: &str) -> Result<Grammar, ApiError> {
        let Self { name, schema, .. } = self;
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if name.is_empty() || name.len() > MOST_NAME || !name.bytes().all(is_part) {
            let field = format!("{at}.name");
            let message =
                format!("`{field}` must be 1 to {MOST_NAME} letters, digits, `_` and `-`");
            return Err(ApiError::invalid(field, message));
        }
        Ok(schema.map_or(Grammar::Json, Grammar::JsonSchema))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn grammar(format: Value) -> Result<Option<Grammar>, String> {
        let format: ResponseFormat =
            serde_json::from_value(format).map_err(|error| error.to_string())?;
        format.grammar().map_err(|error| error.message)
    }

    #[test]
    fn formats_become_grammars() {
        let schema = json!({"type": "object"});
        for (format, expected) in [
            (json!({"type": "text"}), None),
            (json!({"type": "json_object"}), Some(Grammar::Json)),
            (
                json!({"type": "json_schema", "json_schema": {"name": "a-1", "strict": true, "schema": schema}}),
                Some(Grammar::JsonSchema(schema.clone())),
            ),
            (
                json!({"type": "json_schema", "json_schema": {"name": "a"}}),
                Some(Grammar::Json),
            ),
        ] {
            assert_eq!(grammar(format.clone()), Ok(expected), "{format}");
        }
    }

    #[test]
    fn what_is_none_is_named() {
        for (format, part) in [
            (json!({"type": "xml"}), "xml"),
            (json!({}), "type"),
            (json!({"type": "json_schema"}), "json_schema"),
            (json!({"type": "json_object", "other": 1}), "other"),
            (
                json!({"type": "json_schema", "json_schema": {"name": "a b"}}),
                "json_schema.name",
            ),
            (
                json!({"type": "json_schema", "json_schema": {"name": "a", "other": 1}}),
                "other",
            ),
        ] {
            let error = grammar(format.clone()).unwrap_err();
            assert!(error.contains(part), "{format}: {error}");
        }
    }
}
