//! What can go wrong between a model's name and a lease.

use std::sync::Arc;
use std::time::Duration;

use crate::error::Error;
use crate::lifecycle::{State, WarmUpError};

/// Why a host cannot give a model.
///
/// [`HostError::kind`] is a stable code in snake case, [`HostError::hint`] the way out where one
/// is known.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// The host has no model of this name.
    #[error("no model `{name}` here{}", known_names(known))]
    UnknownModel {
        /// What was asked for.
        name: String,
        /// The names it has.
        known: Vec<String>,
    },
    /// The name is taken.
    #[error("a model `{name}` is here already")]
    AlreadyRegistered {
        /// The name.
        name: String,
    },
    /// The load failed. Everyone who waited for it gets this, and so does everyone who asks
    /// later, until [`Host::reset`](super::Host::reset).
    #[error("`{name}` cannot be used: {failure}")]
    Failed {
        /// The model.
        name: String,
        /// The reason that all share.
        failure: Arc<Failure>,
    },
    /// The model takes no requests yet, or no more.
    #[error("`{name}` is not ready, it is {state}{}", waited_for(*waited))]
    NotReady {
        /// The model.
        name: String,
        /// Where it stands.
        state: State,
        /// How long the caller waited.
        waited: Duration,
    },
    /// The model was unloaded while the caller waited for its load.
    #[error("`{name}` was unloaded before it was ready")]
    Unloaded {
        /// The model.
        name: String,
    },
    /// The model cannot be unloaded: requests still run after the time that was given to them.
    #[error("`{name}` is in use: {running} requests run")]
    InUse {
        /// The model.
        name: String,
        /// How many leases are out.
        running: usize,
    },
    /// The caller stopped waiting.
    #[error("the wait for `{name}` was cancelled")]
    Cancelled {
        /// The model.
        name: String,
    },
    /// The host has been dropped.
    #[error("the host is closed")]
    Closed,
    /// A parameter of the host is out of range.
    #[error("`{field}` is {value}, must be {range}")]
    InvalidParameter {
        /// Its name.
        field: &'static str,
        /// What was given.
        value: String,
        /// What is accepted.
        range: &'static str,
    },
}

/// Why a model failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// It did not load.
    #[error(transparent)]
    Load(#[from] Error),
    /// It loaded, but is not ready.
    #[error(transparent)]
    WarmUp(#[from] WarmUpError),
    /// It was loaded again and again, and no request succeeded.
    #[error("it was restarted {restarts} times ({reason}) and no request succeeded in between")]
    Restarts {
        /// How often.
        restarts: u32,
        /// Why the last time.
        reason: &'static str,
    },
}

impl Failure {
    /// A stable code in snake case.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Load(error) => error.kind(),
            Self::WarmUp(error) => error.kind(),
            Self::Restarts { .. } => "unhealthy",
        }
    }
}

impl HostError {
    /// A stable code in snake case. That of a failed load is the code of its reason.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::UnknownModel { .. } => "model_not_found",
            Self::AlreadyRegistered { .. } => "model_already_started",
            Self::Failed { failure, .. } => failure.kind(),
            Self::NotReady { .. } | Self::Unloaded { .. } => "model_not_ready",
            Self::InUse { .. } => "model_in_use",
            Self::Cancelled { .. } => "cancelled",
            Self::Closed => "engine_closed",
            Self::InvalidParameter { .. } => "invalid_parameter",
        }
    }

    /// The way out, in one line, where one is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Failed { failure, .. } => {
                let first = match &**failure {
                    Failure::Load(error) | Failure::WarmUp(WarmUpError::Engine(error)) => {
                        error.hint()
                    }
                    _ => None,
                };
                let again = "the error is kept until the model is reset";
                Some(first.map_or_else(|| again.to_owned(), |hint| format!("{hint}; {again}")))
            }
            Self::NotReady { .. } => Some("ask again, or wait longer".to_owned()),
            Self::InUse { .. } => {
                Some("cancel its requests, or give them more time (`drain_timeout`)".to_owned())
            }
            _ => None,
        }
    }
}

fn known_names(known: &[String]) -> String {
    if known.is_empty() {
        ", nor any other".to_owned()
    } else {
        format!(" (there are: {})", known.join(", "))
    }
}

fn waited_for(waited: Duration) -> String {
    if waited.is_zero() {
        String::new()
    } else {
        format!(" after {} ms", waited.as_millis())
    }
}
