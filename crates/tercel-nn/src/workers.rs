//! Threads that several models compute with, one at a time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tercel_kernels::Pool;

use crate::NnError;

/// A pool of compute threads that models share. A pass has all of them; models that want to compute
/// at the same time take turns, pass by pass. Clones are the same pool.
///
/// Without it each model has threads of its own, and where several are at work the system has to
/// divide the processors among them.
#[derive(Clone, Debug)]
pub struct Workers {
    pool: Arc<Mutex<Pool>>,
    threads: usize,
}

impl Workers {
    /// A pool of `threads` threads, the caller's own counted; at least one, at most 1024.
    ///
    /// # Errors
    /// [`NnError::Threads`] when the system gives none.
    pub fn new(threads: usize) -> Result<Self, NnError> {
        let pool = start(threads)?;
        Ok(Self {
            threads: pool.threads(),
            pool: Arc::new(Mutex::new(pool)),
        })
    }

    /// Threads, the caller's own counted.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Waits until no other model computes.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Pool> {
        // The pool itself outlives a panic of its jobs.
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn start(threads: usize) -> Result<Pool, NnError> {
    Pool::new(threads).map_err(|error| NnError::Threads {
        message: error.to_string(),
    })
}
