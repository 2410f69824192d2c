//! The heart of a host: who may load, use and unload a model, and when.
//!
//! One lock over all models, never held while a model is loaded, warmed up or dropped. Whoever
//! waits does so on one condition, which every change of a model signals.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tercel_nn::Workers;

use super::admission::{Admission, Denied, Grant};
use super::clock::Clock;
use super::error::{Failure, HostError};
use super::lease::Lease;
use super::slot::{Availability, Loaded, Models, Slot};
use super::spec::{LoadJob, Loading, ModelSpec};
use super::status::HealthFault;
use crate::error::Error;
use crate::files::MemoryUse;
use crate::lifecycle::{LoadReport, State, WarmUp, WarmUpError};
use crate::reply::Reply;
use crate::{machine, memory};

/// What the parts of a host share.
pub(super) struct Shared {
    models: Mutex<Models>,
    /// Any change of a model.
    changed: Condvar,
    /// Something may be idle at another time than before.
    idle: Condvar,
    settings: Settings,
    admissions: Vec<Box<dyn Admission>>,
    workers: OnceLock<Option<Workers>>,
    clock: Box<dyn Clock>,
}

/// What holds for all models of a host.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) idle_ttl: Option<Duration>,
    pub(super) ready_timeout: Option<Duration>,
    pub(super) drain_timeout: Duration,
    pub(super) restart_after: u32,
    pub(super) max_restarts: u32,
}

/// A load that a thread is to do.
struct Task {
    name: String,
    epoch: u64,
    spec: ModelSpec,
    warm_up: WarmUp,
    cancel: Arc<AtomicBool>,
    /// What is to leave the memory first.
    old: Option<Loaded>,
    /// Why there is to be no load after that.
    give_up: Option<Failure>,
}

/// What a load gave.
struct Outcome {
    loaded: Loaded,
    report: LoadReport,
}

impl Shared {
    pub(super) fn new(
        settings: Settings,
        admissions: Vec<Box<dyn Admission>>,
        clock: Box<dyn Clock>,
    ) -> Self {
        Self {
            models: Mutex::default(),
            changed: Condvar::new(),
            idle: Condvar::new(),
            settings,
            admissions,
            clock,
            workers: OnceLock::new(),
        }
    }

    /// Threads for all models, which compute in turn; without them each has its own.
    fn workers(&self) -> Option<Workers> {
        let start = || Workers::new(machine::physical_cores()).ok();
        self.workers.get_or_init(start).clone()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Models> {
        // Nothing panics while it holds the lock; the state is whole even if something did.
        self.models.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Wakes all who wait.
    pub(super) fn notify(&self) {
        self.changed.notify_all();
        self.idle.notify_all();
    }

    /// The model, once it is ready; loads it where nobody does.
    pub(super) fn lease(
        self: &Arc<Self>,
        name: &str,
        timeout: Option<Duration>,
        cancelled: Option<&AtomicBool>,
    ) -> Result<Lease, HostError> {
        let started = Instant::now();
        let mut waited_for = None;
        let mut models = self.lock();
        loop {
            if cancelled.is_some_and(|flag| flag.load(Ordering::Acquire)) {
                let name = name.to_owned();
                return Err(HostError::Cancelled { name });
            }
            let slot = models.get(name)?;
            match slot.availability() {
                Availability::Ready => return self.hand_out(name, slot),
                Availability::Failed(failure) => {
                    let name = name.to_owned();
                    return Err(HostError::Failed { name, failure });
                }
                Availability::Absent if waited_for == Some(slot.epoch) && slot.is_cancelled() => {
                    let name = name.to_owned();
                    return Err(HostError::Unloaded { name });
                }
                Availability::Absent => self.begin_load(&mut models, name, None, None),
                Availability::Busy => {}
            }
            let slot = models.get(name)?;
            if slot.is_loading {
                waited_for = Some(slot.epoch);
            }
            let waited = started.elapsed();
            if timeout.is_some_and(|timeout| waited >= timeout) {
                return Err(HostError::NotReady {
                    name: name.to_owned(),
                    state: slot.life.state(),
                    waited: timeout.unwrap_or(waited),
                });
            }
            slot.waiting += 1;
            models = self.wait(models, timeout.map(|timeout| timeout - waited));
            if let Some(slot) = models.slots.get_mut(name) {
                slot.waiting = slot.waiting.saturating_sub(1);
            }
        }
    }

    /// Takes a model out of the memory once nothing runs on it, or ends its load. Does nothing
    /// where it is not in memory.
    pub(super) fn unload(&self, name: &str) -> Result<(), HostError> {
        let started = Instant::now();
        let mut models = self.lock();
        loop {
            let slot = models.get(name)?;
            let state = slot.life.state();
            if slot.is_loading {
                slot.cancel.store(true, Ordering::Release);
            } else if state.takes_requests() && slot.running == 0 {
                slot.is_draining = false;
                drop(models);
                if self.take_down(name, "asked", |slot| slot.running == 0) {
                    return Ok(());
                }
                // Somebody has taken it just now.
                models = self.lock();
                continue;
            } else if state.takes_requests() {
                slot.is_draining = true;
                if started.elapsed() >= self.settings.drain_timeout {
                    slot.is_draining = false;
                    let (name, running) = (name.to_owned(), slot.running);
                    drop(models);
                    self.notify();
                    return Err(HostError::InUse { name, running });
                }
            } else if state != State::Unloading {
                return Ok(());
            }
            let left = self
                .settings
                .drain_timeout
                .saturating_sub(started.elapsed());
            // A load ends within one step once it is cancelled, however long that takes.
            let left = (!slot.is_loading).then_some(left);
            models = self.wait(models, left);
        }
    }

    /// Unloads what has been idle for too long, and gives the names.
    pub(super) fn sweep(&self) -> Vec<String> {
        let ttl = self.settings.idle_ttl;
        let now = self.clock.now();
        let is_over = |slot: &Slot| slot.expires(ttl).is_some_and(|at| at <= now);
        let mut names: Vec<String> = {
            let models = self.lock();
            let over = models.slots.iter().filter(|(_, slot)| is_over(slot));
            over.map(|(name, _)| name.clone()).collect()
        };
        names.retain(|name| self.take_down(name, "idle", is_over));
        names
    }

    /// Sweeps whenever something has been idle for too long, until the host is closed.
    pub(super) fn watch(&self) {
        let mut models = self.lock();
        while !models.is_closing {
            let slots = models.slots.values();
            let next = slots
                .filter_map(|slot| slot.expires(self.settings.idle_ttl))
                .min();
            let now = self.clock.now();
            models = match next {
                Some(at) if at <= now => {
                    drop(models);
                    self.sweep();
                    self.lock()
                }
                Some(at) => {
                    let waited = self.idle.wait_timeout(models, at - now);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self
                    .idle
                    .wait(models)
                    .unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// A lease more of the same load.
    pub(super) fn retain(&self, name: &str, epoch: u64) {
        if let Some(slot) = self.lock().at(name, epoch) {
            slot.running += 1;
        }
    }

    /// A lease less.
    pub(super) fn release(self: &Arc<Self>, name: &str, epoch: u64) {
        let mut models = self.lock();
        let Some(slot) = models.at(name, epoch) else {
            return;
        };
        slot.running = slot.running.saturating_sub(1);
        if slot.running == 0 {
            slot.enter(State::Ready);
            slot.idle_since = self.clock.now();
            self.restart_if_unhealthy(&mut models, name);
        }
        drop(models);
        self.notify();
    }

    /// Learns from the end of a request.
    pub(super) fn record(&self, name: &str, epoch: u64, result: Result<&Reply, &Error>) {
        let mut models = self.lock();
        let Some(slot) = models.at(name, epoch) else {
            return;
        };
        match result {
            Ok(reply) => {
                slot.faults = 0;
                slot.restarts_in_a_row = 0;
                slot.lengths.record(reply.usage.prompt_tokens);
            }
            Err(error) => {
                let (fault, at_once) = match error.kind() {
                    "internal" | "engine_closed" => (HealthFault::RuntimeFault, true),
                    "out_of_memory" => (HealthFault::OutOfMemory, false),
                    "inference_failed" | "invalid_logits" => {
                        (HealthFault::GenerationFailures, false)
                    }
                    // What was asked is at fault, not the model.
                    _ => return,
                };
                slot.faults += 1;
                if at_once || slot.faults >= self.settings.restart_after {
                    slot.unhealthy = Some(fault.name());
                }
            }
        }
    }

    /// Restarts a model, once nothing runs on it.
    pub(super) fn report(
        self: &Arc<Self>,
        name: &str,
        fault: HealthFault,
    ) -> Result<(), HostError> {
        let mut models = self.lock();
        let slot = models.get(name)?;
        if slot.life.state().takes_requests() {
            slot.unhealthy = Some(fault.name());
            if slot.running == 0 {
                self.restart_if_unhealthy(&mut models, name);
            }
        }
        drop(models);
        self.notify();
        Ok(())
    }

    /// Ends all loads, takes everything out of the memory, and gives the threads to wait for.
    pub(super) fn close(&self) -> Vec<JoinHandle<()>> {
        let mut models = self.lock();
        models.is_closing = true;
        let slots: BTreeMap<String, Slot> = std::mem::take(&mut models.slots);
        drop(models);
        self.notify();
        let ended = slots.into_values().map(|slot| {
            slot.cancel.store(true, Ordering::Release);
            slot.thread
        });
        ended.flatten().collect()
    }

    /// Waits for a change.
    pub(super) fn wait<'a>(
        &self,
        models: MutexGuard<'a, Models>,
        timeout: Option<Duration>,
    ) -> MutexGuard<'a, Models> {
        match timeout {
            None => self
                .changed
                .wait(models)
                .unwrap_or_else(PoisonError::into_inner),
            Some(timeout) => {
                let waited = self.changed.wait_timeout(models, timeout);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        }
    }

    fn hand_out(self: &Arc<Self>, name: &str, slot: &mut Slot) -> Result<Lease, HostError> {
        let engine = slot.loaded.as_ref().map(|loaded| loaded.engine.clone());
        let engine = engine.ok_or(HostError::Closed)?;
        if slot.running == 0 {
            slot.enter(State::Serving);
        }
        slot.running += 1;
        Ok(Lease::new(
            Arc::clone(self),
            name.into(),
            slot.epoch,
            engine,
        ))
    }

    /// Begins a load on a thread of its own: it goes on when those who wait for it leave.
    fn begin_load(
        self: &Arc<Self>,
        models: &mut Models,
        name: &str,
        old: Option<Loaded>,
        give_up: Option<Failure>,
    ) {
        let epoch = models.next_epoch();
        let Some(slot) = models.slots.get_mut(name) else {
            return;
        };
        slot.epoch = epoch;
        slot.is_loading = true;
        slot.cancel = Arc::default();
        slot.report = LoadReport::default();
        let usual = slot.lengths.usual(slot.spec.warm_up_percent).ok().flatten();
        let warm_up = slot.spec.warm_up.clone();
        let task = Task {
            name: name.to_owned(),
            epoch,
            spec: slot.spec.clone(),
            warm_up: usual.map_or(warm_up.clone(), |usual| warm_up.context_tokens(usual)),
            cancel: Arc::clone(&slot.cancel),
            old,
            give_up,
        };
        let shared = Arc::clone(self);
        let thread = thread::Builder::new()
            .name("tercel-load".to_owned())
            .spawn(move || shared.work(task));
        match thread {
            Ok(thread) => slot.thread = Some(thread),
            Err(error) => {
                slot.is_loading = false;
                let message = format!("no thread: {error}");
                slot.fail(Error::Internal { message }.into());
            }
        }
        self.changed.notify_all();
    }

    fn work(self: &Arc<Self>, task: Task) {
        let Task {
            name,
            epoch,
            spec,
            warm_up,
            cancel,
            old,
            give_up,
        } = task;
        if let Some(old) = old {
            drop(old);
            self.update(&name, epoch, |slot| slot.enter(State::Uninitialized));
        }
        let outcome = match give_up {
            Some(failure) => Err(failure),
            None => {
                let load = || self.load(&name, epoch, &spec, &warm_up, &cancel);
                catch_unwind(AssertUnwindSafe(load)).unwrap_or_else(|_| {
                    let message = "the load panicked".to_owned();
                    Err(Error::Internal { message }.into())
                })
            }
        };
        self.finish(&name, epoch, outcome);
        memory::give_back();
    }

    fn load(
        self: &Arc<Self>,
        name: &str,
        epoch: u64,
        spec: &ModelSpec,
        warm_up: &WarmUp,
        cancel: &Arc<AtomicBool>,
    ) -> Result<Outcome, Failure> {
        let started = Instant::now();
        let admitted: Arc<Mutex<(u64, Vec<Grant>)>> = Arc::default();
        let (this, model, into) = (Arc::clone(self), name.to_owned(), Arc::clone(&admitted));
        let room = move |needed: &MemoryUse| {
            let grants = this.make_room(&model, needed)?;
            *into.lock().unwrap_or_else(PoisonError::into_inner) =
                (needed.total_bytes as u64, grants);
            Ok(())
        };
        let (this, model) = (Arc::clone(self), name.to_owned());
        let job = LoadJob {
            cancel: Arc::clone(cancel),
            on_state: Box::new(move |state| this.update(&model, epoch, |slot| slot.reach(state))),
            room: Box::new(room),
            workers: self.workers(),
        };
        let Loading { engine, ready } = (spec.load)(job)?;
        self.update(name, epoch, |slot| slot.reach(State::BuffersAllocated));
        let mut report = engine.info().load_report.clone();
        let is_cancelled = || cancel.load(Ordering::Acquire);
        let result = warm_up.run_unless(&engine, &is_cancelled);
        if is_cancelled() {
            return Err(WarmUpError::Cancelled.into());
        }
        result?;
        report.end_phase(State::WarmupRun, started.elapsed().as_secs_f64() * 1e3);
        self.update(name, epoch, |slot| slot.reach(State::WarmupRun));
        // Nothing can fail from here on, and who waits should find it told.
        ready();
        let (bytes, grants) =
            std::mem::take(&mut *admitted.lock().unwrap_or_else(PoisonError::into_inner));
        let loaded = Loaded {
            engine,
            bytes,
            grants,
        };
        Ok(Outcome { loaded, report })
    }

    /// Ends a load. Whoever waited learns of it, all of the same end.
    fn finish(&self, name: &str, epoch: u64, outcome: Result<Outcome, Failure>) {
        let mut models = self.lock();
        let now = self.clock.now();
        let Some(slot) = models.at(name, epoch) else {
            // The host is gone. What was loaded goes when the lock is free again.
            drop(models);
            return;
        };
        if slot.is_cancelled() {
            slot.begin_unload("cancelled");
            drop(models);
            drop(outcome);
            self.update(name, epoch, |slot| {
                slot.enter(State::Uninitialized);
                slot.is_loading = false;
            });
            return;
        }
        slot.is_loading = false;
        match outcome {
            Ok(Outcome { loaded, report }) => {
                slot.reach(State::Ready);
                slot.loaded = Some(loaded);
                slot.report = report;
                slot.idle_since = now;
                slot.loads += 1;
            }
            Err(failure) => slot.fail(failure),
        }
        drop(models);
        self.notify();
    }

    /// Room for a model: idle ones leave, those used least recently first, until it is admitted.
    fn make_room(&self, name: &str, needed: &MemoryUse) -> Result<Vec<Grant>, Error> {
        loop {
            let denied = match self.admit(name, needed) {
                Ok(grants) => return Ok(grants),
                Err(denied) => denied,
            };
            if !self.evict(name) {
                let available_bytes = denied.available_bytes;
                return Err(Error::InsufficientMemory {
                    needed: needed.clone(),
                    available_bytes,
                });
            }
        }
    }

    fn admit(&self, name: &str, needed: &MemoryUse) -> Result<Vec<Grant>, Denied> {
        if let Some(available_bytes) = machine::available_bytes()
            && needed.total_bytes as u64 > available_bytes
        {
            return Err(Denied { available_bytes });
        }
        let admissions = self.admissions.iter();
        admissions
            .map(|admission| admission.admit(name, needed))
            .collect()
    }

    /// Unloads the idle model that was used least recently.
    fn evict(&self, except: &str) -> bool {
        loop {
            let models = self.lock();
            let idle = models.slots.iter().filter(|(_, slot)| slot.is_idle());
            let victim = idle
                .filter(|(name, _)| *name != except)
                .min_by_key(|(_, slot)| slot.idle_since)
                .map(|(name, _)| name.clone());
            drop(models);
            match victim {
                None => return false,
                // Somebody may have taken it just now.
                Some(name) if self.take_down(&name, "evicted", Slot::is_idle) => return true,
                Some(_) => {}
            }
        }
    }

    /// Takes a model out of the memory, if it is there and `may_go` still holds.
    fn take_down(&self, name: &str, reason: &'static str, may_go: impl Fn(&Slot) -> bool) -> bool {
        let mut models = self.lock();
        let Some(slot) = models.slots.get_mut(name) else {
            return false;
        };
        if slot.life.state() != State::Ready || !may_go(slot) {
            return false;
        }
        let epoch = slot.epoch;
        let loaded = slot.begin_unload(reason);
        drop(models);
        drop(loaded);
        memory::give_back();
        self.update(name, epoch, |slot| slot.enter(State::Uninitialized));
        true
    }

    fn restart_if_unhealthy(self: &Arc<Self>, models: &mut Models, name: &str) {
        let Some(slot) = models.slots.get_mut(name) else {
            return;
        };
        let Some(reason) = slot.unhealthy else {
            return;
        };
        let old = slot.begin_unload(reason);
        let restarts = slot.restarts_in_a_row;
        let give_up = (restarts >= self.settings.max_restarts)
            .then_some(Failure::Restarts { restarts, reason });
        if give_up.is_none() {
            slot.restarts += 1;
            slot.restarts_in_a_row += 1;
        }
        self.begin_load(models, name, old, give_up);
    }

    fn update(&self, name: &str, epoch: u64, change: impl FnOnce(&mut Slot)) {
        let mut models = self.lock();
        if let Some(slot) = models.at(name, epoch) {
            change(slot);
        }
        drop(models);
        self.notify();
    }
}
