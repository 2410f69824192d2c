//! Errors as JSON: Tercel's stable code, and beside it the name that the SDKs give.

use serde::Serialize;
use serde_json::{Value, json};

use crate::error::Error;
use crate::host::{Failure, HostError};
use crate::source::SourceError;

/// An error of a call.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct JsonError {
    /// Stable, in snake case.
    code: &'static str,
    /// What the SDKs call it, where they have a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    sdk_error: Option<&'static str>,
    message: String,
    /// The parameter at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    param: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

impl JsonError {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            sdk_error: sdk_name(code),
            message: message.into(),
            param: None,
            hint: None,
        }
    }

    /// A parameter that cannot be used.
    pub(super) fn parameter(param: &str, problem: impl AsRef<str>) -> Self {
        let message = format!("`{param}` {}", problem.as_ref());
        Self::new("invalid_parameter", message).with_param(param)
    }

    pub(super) fn with_param(self, param: &str) -> Self {
        let param = Some(param.to_owned());
        Self { param, ..self }
    }

    pub(super) fn with_hint(self, hint: impl Into<Option<String>>) -> Self {
        let hint = hint.into();
        Self { hint, ..self }
    }

    /// As JSON.
    pub(super) fn into_value(self) -> Value {
        serde_json::to_value(&self).unwrap_or_else(|_| json!({"code": self.code}))
    }
}

impl From<Error> for JsonError {
    fn from(error: Error) -> Self {
        Self::from(&error)
    }
}

impl From<&Error> for JsonError {
    fn from(error: &Error) -> Self {
        let this = Self::new(error.kind(), error.to_string()).with_hint(error.hint());
        match error {
            Error::InvalidParameter { field, .. } => this.with_param(field),
            Error::ContextTooLong { .. } => this.with_param("max_context_size"),
            _ => this,
        }
    }
}

impl From<SourceError> for JsonError {
    fn from(error: SourceError) -> Self {
        Self::from(Error::from(error))
    }
}

impl From<HostError> for JsonError {
    fn from(error: HostError) -> Self {
        let this = Self::new(error.kind(), error.to_string()).with_hint(error.hint());
        match &error {
            // The model has not been started, whatever a load would have found.
            HostError::UnknownModel { .. } => Self {
                sdk_error: Some("unknownModel"),
                hint: Some("start it with `start_model`".to_owned()),
                ..this
            }
            .with_param("model_name"),
            HostError::Failed { failure, .. } => {
                let param = match &**failure {
                    Failure::Load(error) => Self::from(error).param,
                    _ => None,
                };
                Self { param, ..this }
                    .with_hint("call `reset_model`, or `stop_model` and start it again".to_owned())
            }
            _ => this,
        }
    }
}

/// What the SDKs call an error.
fn sdk_name(code: &str) -> Option<&'static str> {
    match code {
        "unknown_model_type" => Some("unknownModelType"),
        "missing_engines_path" => Some("missingEnginesPath"),
        "model_not_found" => Some("modelNotFound"),
        "model_load_failed" => Some("modelLoadFailed"),
        "inference_failed" | "invalid_logits" => Some("inferenceFailed"),
        _ => None,
    }
}
