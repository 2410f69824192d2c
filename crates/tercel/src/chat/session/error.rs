//! What can go wrong with a session file.

use std::io;
use std::path::PathBuf;

/// Why a conversation could not be saved or resumed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The file cannot be read.
    #[error("cannot read session {}: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        reason: io::Error,
    },
    /// The file cannot be written. What was there before is unchanged.
    #[error("cannot write session {}: {reason}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        reason: io::Error,
    },
    /// The file is something else.
    #[error("{} is no session of tercel", path.display())]
    NotASession {
        /// The file.
        path: PathBuf,
    },
    /// The file is of a later format.
    #[error("session {} has format {found}, this build reads {known}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The format of this build.
        known: u32,
    },
    /// The file is cut off or changed.
    #[error("session {} is damaged: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The conversation is longer than a session file may be.
    #[error("session {} would have {bytes} bytes of {what}, at most {most} are allowed", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Which part of it.
        what: &'static str,
        /// Its size.
        bytes: u64,
        /// The limit.
        most: u64,
    },
    /// The session belongs to another model, or to the same one loaded in another way.
    #[error("session {} is of another model: {saved}, loaded is {loaded}", path.display())]
    OtherModel {
        /// The file.
        path: PathBuf,
        /// The model that wrote it.
        saved: String,
        /// The model that is loaded.
        loaded: String,
    },
    /// The session was written with another chat template.
    #[error("session {} was written with another chat template", path.display())]
    OtherTemplate {
        /// The file.
        path: PathBuf,
    },
    /// The session was written by another build of Tercel, or on another kind of processor.
    #[error("session {} was written by build {saved}, this is {running}", path.display())]
    OtherBuild {
        /// The file.
        path: PathBuf,
        /// The build that wrote it.
        saved: String,
        /// This build.
        running: String,
    },
}

impl SessionError {
    /// A stable code in snake case.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Unreadable { reason, .. } if reason.kind() == io::ErrorKind::NotFound => {
                "session_not_found"
            }
            Self::Unreadable { .. } => "session_unreadable",
            Self::Unwritable { .. } => "session_unwritable",
            Self::NotASession { .. } | Self::Format { .. } | Self::Damaged { .. } => {
                "session_invalid"
            }
            Self::TooLarge { .. } => "session_too_large",
            Self::OtherModel { .. } | Self::OtherTemplate { .. } | Self::OtherBuild { .. } => {
                "session_mismatch"
            }
        }
    }

    /// The way out, in one line, where one is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::OtherModel { .. } | Self::OtherTemplate { .. } | Self::OtherBuild { .. } => Some(
                "`--session-transcript` goes on with the texts alone and computes the rest anew"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}
