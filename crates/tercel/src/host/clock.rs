//! The time by which models are idle.

use std::time::{Duration, Instant};

/// A clock that never goes back.
pub(super) trait Clock: Send + Sync {
    /// The time since some fixed point.
    fn now(&self) -> Duration;
}

/// The system's own.
pub(super) struct Monotonic(Instant);

impl Monotonic {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }
}

impl Clock for Monotonic {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}
