//! What a client is told when something is wrong: one object on every route.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tercel::host::{Failure, HostError};
use tercel::{Error, GrammarError};
use utoipa::ToSchema;

/// Characters of a message, or of the name of a field.
const LONGEST: usize = 2000;

/// An error as it goes to the client: a status and OpenAI's object. Routes that speak another
/// protocol turn it into theirs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    /// Stable, in snake case.
    pub(crate) code: &'static str,
    pub(crate) message: String,
    /// The field it is about.
    pub(crate) param: Option<String>,
    /// Whose limit was reached: `client` or `global`.
    pub(crate) scope: Option<&'static str>,
    pub(crate) retry_after: Option<Duration>,
}

/// The body of every error.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    pub(crate) error: ErrorObject,
}

/// What is wrong, in OpenAI's form.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ErrorObject {
    /// One line for a person.
    pub(crate) message: String,
    /// The kind, as OpenAI's clients know it, such as `invalid_request_error`.
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    /// The field it is about.
    pub(crate) param: Option<String>,
    /// A stable code in snake case.
    pub(crate) code: &'static str,
    /// Whose limit was reached, `client` or `global`; with `rate_limited` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) scope: Option<&'static str>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        let mut message = message.into();
        // What it quotes of a request may be as long as a body.
        if let Some((end, _)) = message.char_indices().nth(LONGEST) {
            message.truncate(end);
            message.push_str("...");
        }
        Self {
            status,
            code,
            message,
            param: None,
            scope: None,
            retry_after: None,
        }
    }

    /// 400: the request itself is wrong.
    pub(crate) fn bad_request(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// 400: a field has a value that it may not have.
    pub(crate) fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::bad_request("invalid_parameter", message).about(param)
    }

    /// 400: the field means something that is not to be had here; it is never ignored.
    pub(crate) fn unsupported(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::bad_request("unsupported_parameter", message).about(param)
    }

    pub(crate) fn about(mut self, param: impl Into<String>) -> Self {
        let mut param = param.into();
        if let Some((end, _)) = param.char_indices().nth(LONGEST) {
            param.truncate(end);
        }
        self.param = Some(param);
        self
    }

    pub(crate) fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// OpenAI's name for this kind of error.
    pub(crate) fn kind(&self) -> &'static str {
        match self.status.as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            429 => "rate_limit_error",
            400..=499 => "invalid_request_error",
            _ => "server_error",
        }
    }

    pub(crate) fn body(&self) -> ErrorBody {
        ErrorBody {
            error: ErrorObject {
                message: self.message.clone(),
                kind: self.kind(),
                param: self.param.clone(),
                code: self.code,
                scope: self.scope,
            },
        }
    }

    /// This error with another protocol's body.
    pub(crate) fn respond_with(&self, body: impl Serialize) -> Response {
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        if let Some(after) = self.retry_after {
            // Whole seconds, and never 0: a client that obeys must not ask at once.
            let seconds = after.as_secs_f64().ceil().max(1.0);
            if let Ok(value) = HeaderValue::from_str(&format!("{seconds:.0}")) {
                headers.insert(header::RETRY_AFTER, value);
            }
        }
        response.extensions_mut().insert(Told);
        response
    }
}

/// Marks a response that has the object of an error already.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told;

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.respond_with(self.body())
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        Self::from(&error)
    }
}

impl From<&Error> for ApiError {
    fn from(error: &Error) -> Self {
        let mut message = error.to_string();
        let (status, param) = match error {
            Error::InvalidParameter { field, .. } => (StatusCode::BAD_REQUEST, Some(*field)),
            Error::EmptyPrompt
            | Error::EmptyMessages
            | Error::InvalidRole { .. }
            | Error::NoSuchTurn { .. }
            | Error::NoChatTemplate
            | Error::NoThinking
            | Error::Template(_)
            | Error::ContextOverflow { .. }
            | Error::ContextReserve { .. } => (StatusCode::BAD_REQUEST, None),
            Error::Grammar(error) if !matches!(error, GrammarError::Stuck { .. }) => {
                (StatusCode::BAD_REQUEST, None)
            }
            Error::QueueFull { .. } => (StatusCode::TOO_MANY_REQUESTS, None),
            Error::MemoryBudget { .. }
            | Error::InsufficientMemory { .. }
            | Error::Admission(_)
            | Error::EngineClosed
            | Error::Cancelled => (StatusCode::SERVICE_UNAVAILABLE, None),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, None),
        };
        // Hints name flags of the command, which a client cannot give; this one it can.
        if matches!(
            error,
            Error::ContextOverflow { .. } | Error::ContextReserve { .. }
        ) {
            message.push_str("; shorten the prompt, or set `context_overflow`");
        }
        let mut api = Self::new(status, error.kind(), message);
        api.param = param.map(str::to_owned);
        if matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
        ) {
            api.retry_after = Some(Duration::from_secs(1));
        }
        api
    }
}

impl From<HostError> for ApiError {
    fn from(error: HostError) -> Self {
        let message = error.to_string();
        match &error {
            HostError::UnknownModel { .. } => {
                Self::new(StatusCode::NOT_FOUND, "model_not_found", message).about("model")
            }
            HostError::Failed { failure, .. } => {
                let status = match &**failure {
                    Failure::Load(cause)
                        if Self::from(cause).status == StatusCode::SERVICE_UNAVAILABLE =>
                    {
                        StatusCode::SERVICE_UNAVAILABLE
                    }
                    _ => StatusCode::INTERNAL_SERVER_ERROR,
                };
                Self::new(status, error.kind(), message)
            }
            HostError::NotReady { .. } | HostError::Unloaded { .. } => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "model_not_ready", message)
                    .retry_after(Duration::from_secs(1))
            }
            HostError::InUse { .. } | HostError::AlreadyRegistered { .. } => {
                Self::new(StatusCode::CONFLICT, error.kind(), message)
            }
            HostError::Cancelled { .. } | HostError::Closed => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, error.kind(), message)
            }
            HostError::InvalidParameter { field, .. } => Self::invalid(*field, message),
            _ => Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.kind(), message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_message_quotes_is_bounded() {
        let error = ApiError::invalid("e".repeat(9000), "\u{e9}".repeat(9000));
        assert_eq!(error.message.chars().count(), LONGEST + 3);
        assert_eq!(error.param.map(|param| param.len()), Some(LONGEST));
        assert_eq!(ApiError::invalid("a", "b").message, "b");
    }
}
