//! Whether the server can answer: the staged checks behind `/readyz`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use serde_json::json;
use tercel::host::{Lease, ModelStatus};
use tercel::lifecycle::State;
use tercel::{Activity, Event, Request};

use crate::app::Shared;

/// A model is tried at most so often.
const TRY_EVERY: Duration = Duration::from_secs(30);
/// What a try may take.
const TRY_WITHIN: Duration = Duration::from_millis(500);
/// Tokens of a try.
const TRY_TOKENS: usize = 1;

/// Why the server cannot answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unready {
    pub(crate) status: StatusCode,
    /// Stable, in snake case.
    pub(crate) reason: &'static str,
    /// What a model that is broken said.
    pub(crate) last_error: Option<String>,
}

impl Unready {
    fn new(reason: &'static str) -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            reason,
            last_error: None,
        }
    }
}

/// What earlier probes found.
pub(crate) struct Readiness {
    models: Mutex<BTreeMap<String, Health>>,
    /// What the last probe was told; `None` before the first.
    told: Mutex<Option<Result<(), &'static str>>>,
}

/// What is known of one model.
#[derive(Clone, Default)]
struct Health {
    /// When it gave a token the last time.
    alive: Option<Instant>,
    /// Held by the probe that tries it; the others wait for its answer.
    tried: Arc<tokio::sync::Mutex<Option<Tried>>>,
}

#[derive(Clone, Copy)]
struct Tried {
    at: Instant,
    gave_token: bool,
    /// Which of the model's loads it was.
    load: u64,
}

impl Readiness {
    pub(crate) fn new() -> Self {
        Self {
            models: Mutex::default(),
            told: Mutex::default(),
        }
    }

    /// A model gave a token.
    pub(crate) fn is_alive(&self, model: &str) {
        let now = Some(Instant::now());
        let mut models = lock(&self.models);
        match models.get_mut(model) {
            Some(health) => health.alive = now,
            None => models.entry(model.to_owned()).or_default().alive = now,
        }
    }

    fn of(&self, model: &str) -> Health {
        lock(&self.models)
            .entry(model.to_owned())
            .or_default()
            .clone()
    }
}

/// Whether the server can answer, with a line in the log where that has changed.
///
/// # Errors
/// Why it cannot: `draining`, `model_unloaded`, `model_loading`, `warmup_not_done`, `model_error`,
/// `insufficient_kv_cache` or `smoke_failed`.
pub(crate) async fn check(app: &Shared) -> Result<(), Unready> {
    let result = examine(app).await;
    let now = match &result {
        Ok(()) => Ok(()),
        Err(unready) => Err(unready.reason),
    };
    let before = lock(&app.ready.told).replace(now);
    if before != Some(now) {
        app.log.event(json!({
            "event": "server.readiness",
            "ready": now.is_ok(),
            "reason": now.err(),
        }));
    }
    result
}

/// Looks at every model that is to be in memory.
async fn examine(app: &Shared) -> Result<(), Unready> {
    if app.is_draining() {
        return Err(Unready::new("draining"));
    }
    for model in app.models.served().iter().filter(|model| model.preload) {
        let Ok(status) = app.models.status(&model.name) else {
            return Err(Unready::new("model_unloaded"));
        };
        if state(&status)? {
            try_model(app, &status).await?;
        }
    }
    Ok(())
}

/// Whether the model is in memory. One that left it by itself comes back when it is asked for, and
/// that is no fault.
fn state(status: &ModelStatus) -> Result<bool, Unready> {
    let reason = match status.state {
        State::Ready | State::Serving => return Ok(true),
        State::Failed => {
            return Err(Unready {
                status: StatusCode::INTERNAL_SERVER_ERROR,
                reason: "model_error",
                last_error: status.error.clone(),
            });
        }
        State::Uninitialized if status.is_loading => "model_loading",
        State::Uninitialized | State::Unloading
            if matches!(status.unloaded_by, Some("idle" | "evicted")) =>
        {
            return Ok(false);
        }
        State::Uninitialized | State::Unloading => "model_unloaded",
        State::BuffersAllocated | State::WarmupRun => "warmup_not_done",
        _ => "model_loading",
    };
    Err(Unready::new(reason))
}

/// Has the model say a token, unless it did lately.
async fn try_model(app: &Shared, status: &ModelStatus) -> Result<(), Unready> {
    let health = app.ready.of(&status.name);
    let every = match app.config.idle_ttl {
        // A try counts as use: it must not keep a model in memory that nobody else asks.
        Some(ttl) => TRY_EVERY.max(ttl.saturating_mul(2)),
        None => TRY_EVERY,
    };
    if health
        .alive
        .is_some_and(|alive| alive.elapsed() < TRY_EVERY)
    {
        return Ok(());
    }
    let mut tried = health.tried.lock_owned().await;
    let known = tried.filter(|tried| tried.load == status.loads && tried.at.elapsed() < every);
    let gave_token = match known {
        Some(known) => known.gave_token,
        None => {
            let Ok(lease) = app.models.host().get_within(&status.name, Duration::ZERO) else {
                return Err(Unready::new("model_unloaded"));
            };
            if !has_room(&lease.activity()) {
                return Err(Unready::new("insufficient_kv_cache"));
            }
            let (at, load) = (Instant::now(), status.loads);
            // On a task of its own, so that a probe that goes away neither ends the try nor has it
            // done again.
            let task = tokio::spawn(async move {
                let gave_token = gives_token(lease).await;
                *tried = Some(Tried {
                    at,
                    gave_token,
                    load,
                });
                gave_token
            });
            task.await.unwrap_or(false)
        }
    };
    if gave_token {
        Ok(())
    } else {
        Err(Unready::new("smoke_failed"))
    }
}

/// Whether a request could have a page of the KV cache. Where requests have them all, it will.
fn has_room(activity: &Activity) -> bool {
    let kv = &activity.kv;
    let is_idle = activity.running == 0;
    !(is_idle && kv.pages > 0 && kv.free_pages == 0 && kv.cached_pages == 0)
}

/// Whether a token comes in time. Whatever hangs is left behind, and cancelled.
async fn gives_token(lease: Lease) -> bool {
    // Ahead of all others: the queue is not what is tried.
    let request = Request::prompt("Hello")
        .max_new_tokens(TRY_TOKENS)
        .temperature(0.0)
        .priority(i32::MAX);
    let answer = async {
        let mut stream = lease.stream_async(request).ok()?;
        while let Some(event) = stream.next_event().await {
            if let Event::Done(reply) = event.ok()? {
                return Some(reply.usage.generated_tokens > 0);
            }
        }
        None
    };
    let answer = tokio::time::timeout(TRY_WITHIN, answer).await;
    matches!(answer, Ok(Some(true)))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
