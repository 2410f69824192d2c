//! How an engine ends its thread, and learns how it ended.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use tercel_nn::KvUsage;

use crate::error::Error;

/// Shared between an engine and its thread.
#[derive(Debug, Default)]
pub(crate) struct Control {
    stopping: AtomicBool,
    failure: OnceLock<String>,
    /// What is at work, and what it holds. Held as long as a copy takes.
    at_work: Mutex<(usize, KvUsage)>,
}

impl Control {
    /// Asks the thread to end after the pass it is in. It may have to be woken.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Notes how many requests are at work, and what they and the cache hold.
    pub(super) fn note(&self, running: usize, kv: KvUsage) {
        *self.at_work.lock().unwrap_or_else(PoisonError::into_inner) = (running, kv);
    }

    /// What [`note`](Self::note) said last.
    pub(crate) fn at_work(&self) -> (usize, KvUsage) {
        *self.at_work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes why the thread has ended by itself.
    pub(super) fn fail(&self, message: String) {
        let _ = self.failure.set(message);
    }

    /// The error of a request that the thread will not take any more.
    pub(crate) fn closed(&self) -> Error {
        match self.failure.get() {
            Some(message) => Error::Internal {
                message: message.clone(),
            },
            None => Error::EngineClosed,
        }
    }
}
