//! What is wrong with the user's configuration.

use std::io;
use std::path::PathBuf;

use crate::failure::Failure;

/// Why the configuration could not be read or changed. Each message names the file.
#[derive(Debug)]
#[non_exhaustive]
pub(crate) enum ConfigError {
    /// No variable names a place for it.
    NoPlace,
    Unreadable {
        file: PathBuf,
        reason: io::Error,
    },
    Unwritable {
        file: PathBuf,
        reason: io::Error,
    },
    TooLarge {
        file: PathBuf,
        most: u64,
    },
    /// It is no TOML.
    Syntax {
        file: PathBuf,
        line: usize,
        reason: String,
    },
    UnknownKey {
        file: PathBuf,
        line: usize,
        key: String,
        /// A key that was probably meant.
        near: Option<&'static str>,
    },
    InvalidValue {
        file: PathBuf,
        line: usize,
        key: &'static str,
        reason: String,
    },
    /// A table where a value should be, or the other way round.
    NoTable {
        file: PathBuf,
        line: usize,
        key: String,
    },
    /// A section for what can be no model, or for one that has a section already.
    InvalidModel {
        file: PathBuf,
        line: usize,
        model: String,
        reason: String,
    },
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let (message, hint) = error.told();
        let kind = match error {
            ConfigError::NoPlace => "no_config_directory",
            ConfigError::Unreadable { .. } => "unreadable",
            ConfigError::Unwritable { .. } => "unwritable",
            _ => "invalid_config",
        };
        Self::new(kind, message).with_hint(hint)
    }
}

impl ConfigError {
    /// The message and the way out.
    fn told(&self) -> (String, String) {
        match self {
            Self::NoPlace => (
                "there is no place for a configuration: no home directory is set".to_owned(),
                "set TERCEL_HOME to a directory of yours".to_owned(),
            ),
            Self::Unreadable { file, reason } => (
                format!("cannot read {}: {reason}", file.display()),
                "make it readable, or move it away".to_owned(),
            ),
            Self::Unwritable { file, reason } => (
                format!("cannot write {}: {reason}", file.display()),
                "make it and its directory writable, or set TERCEL_HOME to another".to_owned(),
            ),
            Self::TooLarge { file, most } => (
                format!("{} has more than {most} bytes", file.display()),
                "it is no configuration of Tercel's; move it away".to_owned(),
            ),
            Self::Syntax { file, line, reason } => (
                format!("{}, line {line}: {reason}", file.display()),
                "the file is TOML: lines such as `threads = 2`".to_owned(),
            ),
            Self::UnknownKey {
                file,
                line,
                key,
                near,
            } => (
                format!(
                    "{}, line {line}: there is no setting `{key}`",
                    file.display()
                ),
                match near {
                    Some(near) => format!("perhaps `{near}`? `tercel config show` lists all"),
                    None => "take the line out; `tercel config show` lists all settings".to_owned(),
                },
            ),
            Self::InvalidValue {
                file,
                line,
                key,
                reason,
            } => (
                format!("{}, line {line}: {reason}", file.display()),
                format!("change the line, or take it out for the default of {key}"),
            ),
            Self::NoTable { file, line, key } => (
                format!("{}, line {line}: `{key}` is no table", file.display()),
                "write what is for one model below a line such as [models.\"smollm2:135m\"]"
                    .to_owned(),
            ),
            Self::InvalidModel {
                file,
                line,
                model,
                reason,
            } => (
                format!("{}, line {line}: `{model}` {reason}", file.display()),
                "name models as `tercel list` does, as hf:org/repo, or by a whole path".to_owned(),
            ),
        }
    }
}
