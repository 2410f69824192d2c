//! Taking back the wish for a ticket.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use super::Shared;
use super::state::Wake;

/// How often a question is asked that nobody rings a bell for.
const POLL: Duration = Duration::from_millis(50);

/// Ends the waits for tickets that it was given to, now and later. Clones share it.
#[derive(Clone, Default)]
pub struct Cancellation {
    inner: Arc<Inner>,
    /// Asked again and again, where there is one.
    question: Option<Arc<dyn Fn() -> bool + Send + Sync>>,
}

#[derive(Default)]
struct Inner {
    cancelled: AtomicBool,
    /// Those who wait with it, and the ledgers they wait in.
    waits: Mutex<Vec<(Weak<Shared>, Weak<Wake>)>>,
}

impl Cancellation {
    /// One that nobody has cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// One that is also cancelled when `question` says so. It is asked twenty times a second while
    /// a ticket waits, with the ledger locked: it must not use the ledger.
    pub fn when(question: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self {
            question: Some(Arc::new(question)),
            ..Self::default()
        }
    }

    /// Cancels, and wakes all that wait.
    pub fn cancel(&self) {
        self.inner.cancelled.store(true, Ordering::SeqCst);
        let mut waits = self
            .inner
            .waits
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let to_wake = std::mem::take(&mut *waits);
        drop(waits);
        for (shared, wake) in to_wake {
            if let (Some(shared), Some(wake)) = (shared.upgrade(), wake.upgrade()) {
                // With the lock, no one is between looking at the flag and falling asleep.
                let state = shared.lock();
                wake.0.notify_all();
                drop(state);
            }
        }
    }

    /// Whether it is cancelled.
    pub fn is_cancelled(&self) -> bool {
        let asked = || self.question.as_ref().is_some_and(|question| question());
        self.inner.cancelled.load(Ordering::SeqCst) || asked()
    }

    /// Notes one who is about to wait. The ledger is locked.
    pub(super) fn wakes(&self, shared: &Arc<Shared>, wake: &Arc<Wake>) {
        let mut waits = self
            .inner
            .waits
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        waits.retain(|(_, wake)| wake.strong_count() > 0);
        waits.push((Arc::downgrade(shared), Arc::downgrade(wake)));
    }

    /// How long to wait before asking again; `None` where a bell rings.
    pub(super) fn poll_interval(&self) -> Option<Duration> {
        self.question.as_ref().map(|_| POLL)
    }
}

impl fmt::Debug for Cancellation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cancellation")
            .field("cancelled", &self.is_cancelled())
            .finish_non_exhaustive()
    }
}
