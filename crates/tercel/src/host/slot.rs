//! One model of a host: what is known of it, and what may happen to it next.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::admission::Grant;
use super::error::{Failure, HostError};
use super::spec::ModelSpec;
use super::status::ModelStatus;
use crate::engine::Engine;
use crate::lifecycle::{Lifecycle, LoadReport, RequestLengths, State};

/// All models of a host.
#[derive(Default)]
pub(super) struct Models {
    pub(super) slots: BTreeMap<String, Slot>,
    /// Loads so far, of all models.
    epochs: u64,
    pub(super) is_closing: bool,
}

/// One model.
pub(super) struct Slot {
    pub(super) spec: ModelSpec,
    pub(super) life: Lifecycle,
    /// Which load this is; a lease of another one has no say.
    pub(super) epoch: u64,
    /// A thread loads it.
    pub(super) is_loading: bool,
    pub(super) loaded: Option<Loaded>,
    pub(super) failure: Option<Arc<Failure>>,
    /// Ends the load.
    pub(super) cancel: Arc<AtomicBool>,
    pub(super) thread: Option<JoinHandle<()>>,
    /// Leases that are out.
    pub(super) running: usize,
    /// Callers who will take one as soon as they can.
    pub(super) waiting: usize,
    /// It is to be unloaded once nothing runs.
    pub(super) is_draining: bool,
    /// It is to be restarted once nothing runs, for this reason.
    pub(super) unhealthy: Option<&'static str>,
    /// When its last lease came back.
    pub(super) idle_since: Duration,
    /// Requests that failed by a fault of the model since one succeeded.
    pub(super) faults: u32,
    /// Restarts since a request succeeded.
    pub(super) restarts_in_a_row: u32,
    pub(super) lengths: RequestLengths,
    pub(super) report: LoadReport,
    pub(super) loads: u64,
    pub(super) restarts: u64,
    pub(super) unloaded_by: Option<&'static str>,
}

/// A model in memory. The engine goes before what was set aside for it.
pub(super) struct Loaded {
    pub(super) engine: Engine,
    pub(super) bytes: u64,
    #[expect(dead_code, reason = "they are held for their drop")]
    pub(super) grants: Vec<Grant>,
}

/// What a caller can do about a model.
pub(super) enum Availability {
    /// Use it.
    Ready,
    /// Load it.
    Absent,
    /// Wait for what goes on.
    Busy,
    /// Nothing.
    Failed(Arc<Failure>),
}

impl Models {
    pub(super) fn get(&mut self, name: &str) -> Result<&mut Slot, HostError> {
        if self.is_closing {
            return Err(HostError::Closed);
        }
        if !self.slots.contains_key(name) {
            return Err(HostError::UnknownModel {
                name: name.to_owned(),
                known: self.slots.keys().cloned().collect(),
            });
        }
        self.slots.get_mut(name).ok_or(HostError::Closed)
    }

    /// The model, if its load is still this one.
    pub(super) fn at(&mut self, name: &str, epoch: u64) -> Option<&mut Slot> {
        self.slots.get_mut(name).filter(|slot| slot.epoch == epoch)
    }

    pub(super) fn next_epoch(&mut self) -> u64 {
        self.epochs += 1;
        self.epochs
    }
}

impl Slot {
    pub(super) fn new(spec: ModelSpec) -> Self {
        Self {
            spec,
            life: Lifecycle::new(),
            epoch: 0,
            is_loading: false,
            loaded: None,
            failure: None,
            cancel: Arc::default(),
            thread: None,
            running: 0,
            waiting: 0,
            is_draining: false,
            unhealthy: None,
            idle_since: Duration::ZERO,
            faults: 0,
            restarts_in_a_row: 0,
            lengths: RequestLengths::new(),
            report: LoadReport::default(),
            loads: 0,
            restarts: 0,
            unloaded_by: None,
        }
    }

    pub(super) fn availability(&self) -> Availability {
        match (&self.failure, self.life.state()) {
            (Some(failure), State::Failed) => Availability::Failed(Arc::clone(failure)),
            (_, state) if state.takes_requests() => {
                if self.is_draining || self.unhealthy.is_some() {
                    Availability::Busy
                } else {
                    Availability::Ready
                }
            }
            (_, State::Uninitialized) if !self.is_loading => Availability::Absent,
            _ => Availability::Busy,
        }
    }

    /// Whether it could leave the memory without anyone noticing.
    pub(super) fn is_idle(&self) -> bool {
        let is_ready = matches!(self.availability(), Availability::Ready);
        is_ready && self.running == 0 && self.waiting == 0
    }

    /// Takes a step that this module knows to be legal.
    pub(super) fn enter(&mut self, next: State) {
        let result = self.life.advance(next);
        debug_assert_eq!(result, Ok(()));
    }

    /// Follows a load to `state`.
    pub(super) fn reach(&mut self, state: State) {
        let result = self.life.reach(state);
        debug_assert_eq!(result, Ok(()));
    }

    /// Begins to unload, and gives what is to be dropped.
    pub(super) fn begin_unload(&mut self, reason: &'static str) -> Option<Loaded> {
        self.enter(State::Unloading);
        self.unloaded_by = Some(reason);
        self.unhealthy = None;
        self.is_draining = false;
        self.faults = 0;
        self.loaded.take()
    }

    pub(super) fn fail(&mut self, failure: Failure) {
        self.enter(State::Failed);
        self.failure = Some(Arc::new(failure));
    }

    /// When it has been idle for too long.
    pub(super) fn expires(&self, host_ttl: Option<Duration>) -> Option<Duration> {
        let ttl = self.spec.idle_ttl.unwrap_or(host_ttl)?;
        self.is_idle().then(|| self.idle_since.saturating_add(ttl))
    }

    /// Whether its load was given up.
    pub(super) fn is_cancelled(&self) -> bool {
        self.cancel.load(Ordering::Acquire)
    }

    pub(super) fn status(&self, name: &str) -> ModelStatus {
        ModelStatus {
            name: name.to_owned(),
            state: self.life.state(),
            is_loading: self.is_loading,
            running: self.running,
            footprint_bytes: self.loaded.as_ref().map_or(0, |loaded| loaded.bytes),
            loads: self.loads,
            restarts: self.restarts,
            faults: self.faults,
            unloaded_by: self.unloaded_by,
            error: self.failure.as_ref().map(ToString::to_string),
            load_report: self.report.clone(),
        }
    }
}
