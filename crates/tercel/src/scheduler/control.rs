//! How an engine ends its thread, and learns how it ended.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::Error;

/// Shared between an engine and its thread.
#[derive(Debug, Default)]
pub(crate) struct Control {
    stopping: AtomicBool,
    failure: OnceLock<String>,
}

impl Control {
    /// Asks the thread to end after the pass it is in. It may have to be woken.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
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
