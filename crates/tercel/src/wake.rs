//! Wakes the engine's thread when there may be something to do.

use std::sync::PoisonError;
use std::time::Instant;

use crate::sync::{Condvar, Mutex};

/// A flag that stays up until its one waiter has seen it, so that no call is lost.
#[derive(Debug, Default)]
pub(crate) struct Wake {
    called: Mutex<bool>,
    changed: Condvar,
}

impl Wake {
    /// Ends the current wait, or the next one.
    pub(crate) fn call(&self) {
        *self.called.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_one();
    }

    /// Waits for a call that came since the last wait, at most until `until`.
    pub(crate) fn wait(&self, until: Option<Instant>) {
        let mut called = self.called.lock().unwrap_or_else(PoisonError::into_inner);
        while !*called {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            called = match left {
                Some(left) if left.is_zero() => break,
                Some(left) => {
                    let waited = self.changed.wait_timeout(called, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self
                    .changed
                    .wait(called)
                    .unwrap_or_else(PoisonError::into_inner),
            };
        }
        *called = false;
    }
}
