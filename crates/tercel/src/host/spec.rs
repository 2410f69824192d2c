//! How a model of a host is loaded.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tercel_nn::Workers;

use crate::builder::EngineBuilder;
use crate::engine::Engine;
use crate::error::Error;
use crate::lifecycle::{AskForRoom, LoadHooks, State, WarmUp};
use crate::source::{Phase, Progress};

/// A model of a host: how it is loaded, how often it may be, and when it may go.
#[derive(Clone)]
pub struct ModelSpec {
    pub(super) load: Arc<LoadFn>,
    pub(super) warm_up: WarmUp,
    pub(super) warm_up_percent: u8,
    /// `None`: the host's.
    pub(super) idle_ttl: Option<Option<Duration>>,
}

/// Loads a model, and says how it goes through the job.
pub(super) type LoadFn = dyn Fn(LoadJob) -> Result<Loading, Error> + Send + Sync;

/// What a load is given.
pub(super) struct LoadJob {
    pub(super) cancel: Arc<AtomicBool>,
    pub(super) on_state: Box<dyn FnMut(State) + Send>,
    pub(super) room: AskForRoom,
    /// Threads that the models of the host share.
    pub(super) workers: Option<Workers>,
}

/// An engine that is loaded but not warmed up, and who is to be told once it is ready.
pub(super) struct Loading {
    pub(super) engine: Engine,
    pub(super) ready: Box<dyn FnOnce() + Send>,
}

impl ModelSpec {
    /// A model that is loaded as `make` says, each time anew. The engine's own sinks hold, with
    /// one difference: `ready` is reported after the warm-up.
    pub fn new(make: impl Fn() -> EngineBuilder + Send + Sync + 'static) -> Self {
        Self::loaded_by(move |job| load(make(), job))
    }

    /// For tests: a model that is made, not loaded, with the shortest warm-up.
    #[cfg(test)]
    pub(crate) fn made_by(make: impl Fn() -> Engine + Send + Sync + 'static) -> Self {
        let load = move |_| {
            Ok(Loading {
                engine: make(),
                ready: Box::new(|| {}),
            })
        };
        Self::loaded_by(load).warm_up(WarmUp::new().context_tokens(0))
    }

    pub(super) fn loaded_by(
        load: impl Fn(LoadJob) -> Result<Loading, Error> + Send + Sync + 'static,
    ) -> Self {
        Self {
            load: Arc::new(load),
            warm_up: WarmUp::new(),
            warm_up_percent: 80,
            idle_ttl: None,
        }
    }

    /// How the model is warmed up, by default as [`WarmUp::new`] has it. Once requests were seen,
    /// the length of its prompt follows them.
    #[must_use]
    pub fn warm_up(mut self, warm_up: WarmUp) -> Self {
        self.warm_up = warm_up;
        self
    }

    /// Which of the requests seen is the usual one: the warm-up of a later load is as long as this
    /// percentage of them, 50 to 80, by default 80.
    #[must_use]
    pub fn warm_up_percent(mut self, percent: u8) -> Self {
        self.warm_up_percent = percent;
        self
    }

    /// How long the model stays in memory without a request; `None` is for ever. By default the
    /// host's.
    #[must_use]
    pub fn idle_ttl(mut self, ttl: Option<Duration>) -> Self {
        self.idle_ttl = Some(ttl);
        self
    }
}

impl fmt::Debug for ModelSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelSpec")
            .field("warm_up", &self.warm_up)
            .field("idle_ttl", &self.idle_ttl)
            .finish_non_exhaustive()
    }
}

fn load(mut builder: EngineBuilder, job: LoadJob) -> Result<Loading, Error> {
    let LoadJob {
        cancel,
        on_state,
        room,
        workers,
    } = job;
    if let Some(workers) = workers {
        builder.share(workers);
    }
    builder.hooks = LoadHooks { on_state, room };
    builder.is_hosted = true;
    let own = Arc::clone(&builder.cancel);
    builder.cancel = Arc::new(move || cancel.load(Ordering::Acquire) || own());
    // The last report is held back until the warm-up says that it is true.
    let held: Arc<Held> = Arc::default();
    let mut sink = std::mem::replace(&mut builder.on_progress, Box::new(|_| {}));
    let keep = Arc::clone(&held);
    builder.on_progress = Box::new(move |progress| {
        if progress.phase == Phase::Ready {
            let sink = std::mem::replace(&mut sink, Box::new(|_| {}));
            *lock(&keep) = Some((progress.clone(), sink));
        } else {
            sink(progress);
        }
    });
    let engine = builder.load()?;
    let ready = move || {
        let report = lock(&held).take();
        if let Some((progress, mut sink)) = report {
            sink(&progress);
        }
    };
    Ok(Loading {
        engine,
        ready: Box::new(ready),
    })
}

type Sink = Box<dyn FnMut(&Progress) + Send>;
type Held = Mutex<Option<(Progress, Sink)>>;

fn lock(held: &Held) -> MutexGuard<'_, Option<(Progress, Sink)>> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}
