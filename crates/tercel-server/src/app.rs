//! What all requests share, and where each path leads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::config::Config;
use crate::gate::Gate;
use crate::log::Log;
use crate::metrics::Metrics;
use crate::models::Models;
use crate::ready::Readiness;

/// Handed to every handler.
pub(crate) type Shared = Arc<App>;

/// What all requests share.
pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) models: Models,
    pub(crate) gate: Gate,
    pub(crate) log: Log,
    pub(crate) metrics: Metrics,
    pub(crate) ready: Readiness,
    pub(crate) started: Instant,
    /// Set when the server is to stop: requests that run may end, new ones are refused.
    draining: AtomicBool,
}

impl App {
    pub(crate) fn new(config: Config, models: Models, log: Log) -> Self {
        Self {
            gate: Gate::new(&config),
            metrics: Metrics::new(),
            ready: Readiness::new(),
            started: Instant::now(),
            draining: AtomicBool::new(false),
            config,
            models,
            log,
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }
}
