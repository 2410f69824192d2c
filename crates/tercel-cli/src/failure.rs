//! What ends a command before its end.

use std::io;

use tercel::Error;
use tercel::cores::CoresError;
use tercel::source::SourceError;
use tercel_eval::EvalError;
use tercel_quantize::ConvertError;
use tercel_server::{KeysError, ServerError};

/// Why a command did not run to its end.
#[derive(Debug)]
pub(crate) enum Failure {
    /// An error, told in one line.
    Error {
        /// A stable code in snake case.
        kind: &'static str,
        message: String,
        hint: Option<String>,
    },
    /// A command line that is wrong in a way that only the command can see.
    Usage(String),
    /// Ctrl-C.
    Interrupted,
    /// Ctrl-C during a reply, which said so itself.
    ReplyInterrupted,
    /// A report that was printed says what is wrong.
    Reported,
    /// Whoever read standard output wants no more.
    ClosedPipe,
}

impl Failure {
    pub(crate) fn new(kind: &'static str, message: impl Into<String>) -> Self {
        Self::Error {
            kind,
            message: message.into(),
            hint: None,
        }
    }

    /// Adds the way out, in place of another.
    pub(crate) fn with_hint(mut self, text: impl Into<String>) -> Self {
        if let Self::Error { hint, .. } = &mut self {
            *hint = Some(text.into());
        }
        self
    }

    /// Adds the way out where it is this parameter that is out of range.
    pub(crate) fn with_hint_for(self, field: &str, text: &str) -> Self {
        match &self {
            Self::Error { message, .. } if message.starts_with(&format!("`{field}` is ")) => {
                self.with_hint(text)
            }
            _ => self,
        }
    }

    /// The stable code of an error.
    pub(crate) fn kind(&self) -> Option<&'static str> {
        match self {
            Self::Error { kind, .. } => Some(kind),
            _ => None,
        }
    }

    /// A file that the user named cannot be read.
    pub(crate) fn unreadable(what: &str, path: &std::path::Path, reason: &io::Error) -> Self {
        let path = path.display();
        match reason.kind() {
            io::ErrorKind::NotFound => {
                Self::new("file_not_found", format!("no such {what}: {path}"))
            }
            _ => Self::new("unreadable", format!("cannot read {what} {path}: {reason}")),
        }
    }

    /// The exit code of the process.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::ClosedPipe => 0,
            Self::Error { .. } | Self::Reported => 1,
            Self::Usage(_) => 2,
            Self::Interrupted | Self::ReplyInterrupted => 130,
        }
    }

    fn told(kind: &'static str, message: String, hint: Option<String>) -> Self {
        // Nothing but Ctrl-C cancels a command.
        if kind == "cancelled" {
            return Self::Interrupted;
        }
        Self::Error {
            kind,
            message,
            hint,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::told(error.kind(), error.to_string(), error.hint())
    }
}

impl From<SourceError> for Failure {
    fn from(error: SourceError) -> Self {
        Self::told(error.kind(), error.to_string(), error.hint())
    }
}

impl From<ServerError> for Failure {
    fn from(error: ServerError) -> Self {
        let kind = match &error {
            ServerError::NoKeys { .. } => "no_keys",
            ServerError::Bind { .. } => "cannot_listen",
            ServerError::InvalidParameter { .. } => "invalid_parameter",
            ServerError::Models(error) => error.kind(),
            _ => "server_failed",
        };
        let hint = match &error {
            ServerError::NoKeys { .. } => Some(
                "give it keys (`--keys-file` or `--keys-from-env`), listen on 127.0.0.1, or say that \
                 you mean it with `--insecure`"
                    .to_owned(),
            ),
            _ => error.hint(),
        };
        Self::told(kind, error.to_string(), hint)
    }
}

impl From<KeysError> for Failure {
    fn from(error: KeysError) -> Self {
        Self::told("invalid_keys", error.to_string(), error.hint())
    }
}

impl From<CoresError> for Failure {
    fn from(error: CoresError) -> Self {
        Self::told(error.kind(), error.to_string(), error.hint())
    }
}

impl From<EvalError> for Failure {
    fn from(error: EvalError) -> Self {
        Self::told(error.kind(), error.to_string(), error.hint())
    }
}

impl From<ConvertError> for Failure {
    fn from(error: ConvertError) -> Self {
        Self::told(error.kind(), error.to_string(), error.hint())
    }
}

/// A write to standard output that failed.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::ClosedPipe,
            _ => Self::new(
                "output_failed",
                format!("cannot write to standard output: {error}"),
            ),
        }
    }
}
