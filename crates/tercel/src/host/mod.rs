//! Several models in one process: loaded when they are first asked for, warmed up, and unloaded
//! when they are idle or another one needs their memory.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use tercel::host::{Host, ModelSpec};
//! use tercel::{Engine, Request};
//!
//! let host = Host::builder()
//!     .model("chat", ModelSpec::new(|| Engine::builder("smollm2:135m").max_context(2048)))
//!     .model("text", ModelSpec::new(|| Engine::builder("gemma3:270m")))
//!     .idle_ttl(Duration::from_secs(300))
//!     .max_bytes(1 << 30)
//!     .build()?;
//!
//! let chat = host.get("chat")?; // loads it, once for all who ask meanwhile
//! println!("{}", chat.generate(Request::prompt("Once upon"))?.text);
//! drop(chat); // from now on it is idle
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What holds throughout:
//! - However many ask for a model at once, it is loaded once, on a thread of its own. One who stops
//!   waiting stops nothing for the others.
//! - If the load fails, all get the same reason, and so does everyone after them, until
//!   [`Host::reset`].
//! - A model is given out only after its warm-up: see [`crate::lifecycle`].
//! - A model on which something runs is never unloaded to make room, nor for being idle.

mod admission;
mod clock;
mod error;
mod generation_config;
mod lease;
mod shared;
mod slot;
mod spec;
mod status;
#[cfg(test)]
mod tests;
mod text_runner;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

pub use admission::{Admission, Denied, Grant};
use clock::{Clock, Monotonic};
pub use error::{Failure, HostError};
pub use generation_config::{GenerationConfig, GrammarType};
pub use lease::{Lease, LeaseAsyncStream, LeaseStream};
use shared::{Settings, Shared};
use slot::{Availability, Slot};
pub use spec::ModelSpec;
pub use status::{HealthFault, MemoryFootprint, ModelStatus};
pub use text_runner::{RunnerError, RunnerStats, TextRunner};

use crate::lifecycle::{LoadReport, RequestLengths, State};
use crate::memory::{Ledger, measure};

/// Models of one process, by name. Clones share them; it may be used from any thread.
///
/// When the last clone is dropped, loads that run are ended and all models leave the memory, but
/// for those that a [`Lease`] still holds.
#[derive(Clone)]
pub struct Host {
    inner: Arc<Inner>,
}

impl Host {
    /// Starts a host without models.
    pub fn builder() -> HostBuilder {
        HostBuilder {
            settings: Settings {
                idle_ttl: None,
                ready_timeout: None,
                drain_timeout: Duration::from_secs(30),
                restart_after: 3,
                max_restarts: 2,
            },
            admissions: vec![Box::new(Ledger::process().clone())],
            models: Vec::new(),
            clock: Box::new(Monotonic::start()),
            is_watched: true,
        }
    }

    /// Adds a model. It is not loaded before somebody asks for it.
    ///
    /// # Errors
    /// [`HostError::AlreadyRegistered`], or [`HostError::InvalidParameter`] for an empty name and
    /// for a percentage of [`ModelSpec::warm_up_percent`] out of range.
    pub fn register(&self, name: impl Into<String>, spec: ModelSpec) -> Result<(), HostError> {
        let name = name.into();
        let refuse = |field, value, range| {
            Err(HostError::InvalidParameter {
                field,
                value,
                range,
            })
        };
        if name.is_empty() {
            return refuse("name", "empty".to_owned(), "a text");
        }
        let percent = spec.warm_up_percent;
        if RequestLengths::new().usual(percent).is_err() {
            return refuse("warm_up_percent", percent.to_string(), "50 to 80");
        }
        let shared = &self.inner.shared;
        let expires = spec
            .idle_ttl
            .unwrap_or(shared.settings().idle_ttl)
            .is_some();
        let mut models = shared.lock();
        if models.slots.contains_key(&name) {
            return Err(HostError::AlreadyRegistered { name });
        }
        models.slots.insert(name, Slot::new(spec));
        drop(models);
        if expires {
            self.inner.watch();
        }
        Ok(())
    }

    /// Unloads a model and forgets it.
    ///
    /// # Errors
    /// Those of [`Host::unload`]; the model stays then.
    pub fn unregister(&self, name: &str) -> Result<(), HostError> {
        loop {
            self.unload(name)?;
            let shared = &self.inner.shared;
            let mut models = shared.lock();
            let slot = models.get(name)?;
            // Unless somebody has asked for it since.
            if matches!(
                slot.availability(),
                Availability::Absent | Availability::Failed(_)
            ) {
                models.slots.remove(name);
                drop(models);
                shared.notify();
                return Ok(());
            }
        }
    }

    /// The model, ready. Loads it where that has not been done; waits for as long as
    /// [`HostBuilder::ready_timeout`] allows, by default until the load ends.
    ///
    /// # Errors
    /// [`HostError::UnknownModel`]; [`HostError::Failed`] with the reason that all share;
    /// [`HostError::NotReady`] after the timeout; [`HostError::Unloaded`] when the load was ended
    /// by [`Host::unload`].
    pub fn get(&self, name: &str) -> Result<Lease, HostError> {
        let timeout = self.inner.shared.settings().ready_timeout;
        self.inner.shared.lease(name, timeout, None)
    }

    /// As [`Host::get`], but waits for at most `timeout`. With none, a model that is not ready is
    /// an error at once; its load has been started all the same.
    ///
    /// # Errors
    /// Those of [`Host::get`].
    pub fn get_within(&self, name: &str, timeout: Duration) -> Result<Lease, HostError> {
        self.inner.shared.lease(name, Some(timeout), None)
    }

    /// As [`Host::get`], but ends the wait when `cancel` says so. The load goes on for the others.
    ///
    /// # Errors
    /// Those of [`Host::get`], and [`HostError::Cancelled`].
    pub fn get_unless(&self, name: &str, cancel: &CancelWait) -> Result<Lease, HostError> {
        let timeout = self.inner.shared.settings().ready_timeout;
        self.inner.shared.lease(name, timeout, Some(&cancel.flag))
    }

    /// A handle for [`Host::get_unless`].
    pub fn cancel_wait(&self) -> CancelWait {
        CancelWait {
            flag: Arc::default(),
            host: Arc::downgrade(&self.inner.shared),
        }
    }

    /// Takes a model out of the memory; it stays known. Requests that run are waited for, up to
    /// [`HostBuilder::drain_timeout`], while no new ones are let in. A load that runs is ended.
    ///
    /// # Errors
    /// [`HostError::UnknownModel`]; [`HostError::InUse`] when requests still run after the time.
    pub fn unload(&self, name: &str) -> Result<(), HostError> {
        self.inner.shared.unload(name)
    }

    /// Unloads a model, forgets its error, and loads it again, warm-up included.
    ///
    /// # Errors
    /// Those of [`Host::unload`] and [`Host::get`].
    pub fn reload(&self, name: &str) -> Result<(), HostError> {
        self.unload(name)?;
        self.reset(name)?;
        self.get(name).map(drop)
    }

    /// Forgets the error of a model that failed: the next caller loads it anew. Does nothing to
    /// one that did not.
    ///
    /// # Errors
    /// [`HostError::UnknownModel`].
    pub fn reset(&self, name: &str) -> Result<(), HostError> {
        let shared = &self.inner.shared;
        let mut models = shared.lock();
        let slot = models.get(name)?;
        if slot.life.state() == State::Failed {
            slot.enter(State::Uninitialized);
            slot.failure = None;
            slot.restarts_in_a_row = 0;
        }
        drop(models);
        shared.notify();
        Ok(())
    }

    /// Says that a model must be loaded again, such as after a check of its answers. It is
    /// restarted once nothing runs on it; who asks for it meanwhile waits. Does nothing where it
    /// is not loaded.
    ///
    /// # Errors
    /// [`HostError::UnknownModel`].
    pub fn report(&self, name: &str, fault: HealthFault) -> Result<(), HostError> {
        self.inner.shared.report(name, fault)
    }

    /// Whether the model is loaded and takes requests.
    pub fn is_loaded(&self, name: &str) -> bool {
        self.status(name)
            .is_ok_and(|status| status.state.takes_requests())
    }

    /// What all models take of the memory: 0 when none is loaded.
    pub fn memory_footprint(&self) -> MemoryFootprint {
        let list = self.list();
        footprint(list.iter().map(|model| model.footprint_bytes).sum())
    }

    /// What one model takes of the memory: 0 when it is not loaded.
    ///
    /// # Errors
    /// [`HostError::UnknownModel`].
    pub fn memory_footprint_of(&self, name: &str) -> Result<MemoryFootprint, HostError> {
        Ok(footprint(self.status(name)?.footprint_bytes))
    }

    /// Every model with its state, by name.
    pub fn list(&self) -> Vec<ModelStatus> {
        let models = self.inner.shared.lock();
        let slots = models.slots.iter();
        slots.map(|(name, slot)| slot.status(name)).collect()
    }

    /// One model with its state.
    ///
    /// # Errors
    /// [`HostError::UnknownModel`].
    pub fn status(&self, name: &str) -> Result<ModelStatus, HostError> {
        Ok(self.inner.shared.lock().get(name)?.status(name))
    }

    /// What each phase of the model's last load took; empty before the first has ended.
    ///
    /// # Errors
    /// [`HostError::UnknownModel`].
    pub fn load_report(&self, name: &str) -> Result<LoadReport, HostError> {
        Ok(self.status(name)?.load_report)
    }

    /// Unloads what has been idle for too long, and gives the names. A host does so by itself;
    /// this is for a moment that is convenient.
    pub fn sweep(&self) -> Vec<String> {
        self.inner.shared.sweep()
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = self.list();
        let models = list.iter().map(|model| (&model.name, model.state));
        f.debug_map().entries(models).finish()
    }
}

/// Ends waits for models; see [`Host::get_unless`].
#[derive(Clone)]
pub struct CancelWait {
    flag: Arc<AtomicBool>,
    host: Weak<Shared>,
}

impl CancelWait {
    /// Ends every wait that was given this handle, and all that will be.
    pub fn cancel(&self) {
        self.flag.store(true, Ordering::Release);
        if let Some(host) = self.host.upgrade() {
            // Under the lock, so that nobody misses it between a look at the flag and the wait.
            drop(host.lock());
            host.notify();
        }
    }
}

impl fmt::Debug for CancelWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelWait")
            .field("is_cancelled", &self.flag)
            .finish_non_exhaustive()
    }
}

/// How a host is to be. Made by [`Host::builder`].
#[must_use = "nothing happens before `build`"]
pub struct HostBuilder {
    settings: Settings,
    admissions: Vec<Box<dyn Admission>>,
    models: Vec<(String, ModelSpec)>,
    clock: Box<dyn Clock>,
    is_watched: bool,
}

impl HostBuilder {
    /// Adds a model, as [`Host::register`] does.
    pub fn model(mut self, name: impl Into<String>, spec: ModelSpec) -> Self {
        self.models.push((name.into(), spec));
        self
    }

    /// How long a model stays in memory without a request, by default for ever.
    pub fn idle_ttl(mut self, ttl: Duration) -> Self {
        self.settings.idle_ttl = Some(ttl);
        self
    }

    /// What all models together may take of the memory, in bytes, by default what the machine has:
    /// engines outside the host count too, see [`Ledger::process`].
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.admissions
            .push(Box::new(admission::Budget::new(bytes)));
        self
    }

    /// Somebody who decides whether a model may be loaded, beside all others who do.
    pub fn admission(mut self, admission: impl Admission + 'static) -> Self {
        self.admissions.push(Box::new(admission));
        self
    }

    /// How long [`Host::get`] waits for a model, by default as long as its load takes.
    pub fn ready_timeout(mut self, timeout: Duration) -> Self {
        self.settings.ready_timeout = Some(timeout);
        self
    }

    /// How long [`Host::unload`] waits for requests that run, by default 30 seconds.
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.settings.drain_timeout = timeout;
        self
    }

    /// After how many failed requests in a row, at least 1, a model is restarted; by default 3.
    /// Only failures of the model count, and an engine that stopped is restarted at once.
    pub fn restart_after(mut self, failures: u32) -> Self {
        self.settings.restart_after = failures;
        self
    }

    /// How often in a row a model is restarted before it counts as failed, by default 2. A request
    /// that succeeds begins a new row.
    pub fn max_restarts(mut self, restarts: u32) -> Self {
        self.settings.max_restarts = restarts;
        self
    }

    /// Makes the host. No model is loaded yet.
    ///
    /// # Errors
    /// Those of [`Host::register`], and [`HostError::InvalidParameter`].
    pub fn build(self) -> Result<Host, HostError> {
        if self.settings.restart_after == 0 {
            return Err(HostError::InvalidParameter {
                field: "restart_after",
                value: "0".to_owned(),
                range: "at least 1",
            });
        }
        let shared = Shared::new(self.settings, self.admissions, self.clock);
        let watcher = if self.is_watched {
            Watcher::None
        } else {
            Watcher::Forbidden
        };
        let host = Host {
            inner: Arc::new(Inner {
                shared: Arc::new(shared),
                watcher: Mutex::new(watcher),
            }),
        };
        for (name, spec) in self.models {
            host.register(name, spec)?;
        }
        Ok(host)
    }

    /// For tests: time as they say, and no sweep but theirs.
    #[cfg(test)]
    fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Box::new(clock);
        self.is_watched = false;
        self
    }
}

impl fmt::Debug for HostBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostBuilder")
            .field("settings", &self.settings)
            .field("models", &self.models)
            .finish_non_exhaustive()
    }
}

/// What ends with the last clone of a host.
struct Inner {
    shared: Arc<Shared>,
    watcher: Mutex<Watcher>,
}

/// The thread that looks for idle models.
enum Watcher {
    /// Not needed yet.
    None,
    /// Not wanted.
    Forbidden,
    Running(JoinHandle<()>),
}

impl Inner {
    /// Starts the thread, once there is something to look for. Without a thread to be had, idle
    /// models stay until [`Host::sweep`].
    fn watch(&self) {
        let mut watcher = self.watcher.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*watcher, Watcher::None) {
            let shared = Arc::clone(&self.shared);
            let thread = thread::Builder::new().name("tercel-idle".to_owned());
            if let Ok(thread) = thread.spawn(move || shared.watch()) {
                *watcher = Watcher::Running(thread);
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let mut threads = self.shared.close();
        let watcher = self
            .watcher
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        if let Watcher::Running(thread) = std::mem::replace(watcher, Watcher::Forbidden) {
            threads.push(thread);
        }
        let own = thread::current().id();
        for thread in threads {
            // A sink of a load may hold the last clone.
            if thread.thread().id() != own {
                // A panic in there has been reported to whoever waited.
                let _ = thread.join();
            }
        }
    }
}

fn footprint(bytes: u64) -> MemoryFootprint {
    MemoryFootprint::new(bytes, measure().map(|memory| memory.rss_bytes))
}
