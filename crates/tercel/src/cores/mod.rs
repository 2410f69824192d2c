//! Which processors this process computes on: sets of them, the system's mask, and what the machine
//! is made of.
//!
//! A processor is what the system schedules on: a core, or one of its hyper-threads. Results never
//! depend on the set.

mod affinity;
mod set;
mod topology;

pub use affinity::Affinity;
pub use set::CoreSet;
pub use topology::{Topology, online};

use thiserror::Error;

/// The processors that this process may use now, where the system tells.
pub fn of_process() -> Option<CoreSet> {
    affinity::allowed()
}

/// What is wrong with a set of cores.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CoresError {
    /// A text that is no list of cores.
    #[error("`{text}` is no list of cores: {reason}")]
    InvalidList {
        /// The text.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A core that the machine lacks, or that this process was kept from when it was started.
    #[error("core {core} is none of those that this process may use: {allowed}")]
    NotAllowed {
        /// The first such core.
        core: usize,
        /// Those that it may use.
        allowed: CoreSet,
    },
    /// The system cannot keep a process to some cores, or not in a way that Tercel knows.
    #[error("this system cannot keep a process to some of its cores")]
    Unsupported,
    /// The system refused.
    #[error("cannot keep the process to cores {cores}: {reason}")]
    Refused {
        /// What was asked for.
        cores: CoreSet,
        /// The system's reason.
        reason: String,
    },
}

impl CoresError {
    /// A stable code in snake case.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::InvalidList { .. } => "invalid_cores",
            Self::NotAllowed { .. } => "core_not_allowed",
            Self::Unsupported => "affinity_unsupported",
            Self::Refused { .. } => "affinity_refused",
        }
    }

    /// The way out, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::InvalidList { .. } => Some("write them as in 0-3,6".to_owned()),
            Self::NotAllowed { allowed, .. } => Some(format!(
                "choose among {allowed}, or start the process with more, as `taskset` does"
            )),
            Self::Unsupported => Some("leave the choice of cores out".to_owned()),
            Self::Refused { .. } => None,
        }
    }
}
