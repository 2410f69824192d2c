//! Where requests wait for the engine's thread: bounded, the most urgent first, then in order.

use std::sync::{Arc, PoisonError};
use std::time::Instant;

use crate::error::Error;
use crate::job::{Job, Task};
use crate::sync::{Mutex, MutexGuard};
use crate::wake::Wake;

/// Waiting requests.
pub(crate) struct Queue {
    capacity: usize,
    wake: Arc<Wake>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: Vec<Waiting>,
    tasks: Vec<Task>,
    /// Requests so far.
    arrived: u64,
    closed: bool,
}

/// A request with its place in the order.
pub(crate) struct Waiting {
    arrival: u64,
    pub(crate) job: Job,
}

/// Why a request cannot wait.
pub(crate) enum Refused {
    Full { capacity: usize },
    Closed,
}

impl Queue {
    /// A queue for `capacity` requests.
    pub(crate) fn new(capacity: usize, wake: Arc<Wake>) -> Self {
        Self {
            capacity,
            wake,
            state: Mutex::default(),
        }
    }

    pub(crate) fn wake(&self) -> &Arc<Wake> {
        &self.wake
    }

    /// Lets a request wait.
    pub(crate) fn push(&self, job: Job) -> Result<(), Refused> {
        let mut state = self.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        if state.waiting.len() >= self.capacity {
            let capacity = self.capacity;
            return Err(Refused::Full { capacity });
        }
        let arrival = state.arrived;
        state.arrived += 1;
        state.waiting.push(Waiting { arrival, job });
        drop(state);
        self.wake.call();
        Ok(())
    }

    /// Has a task done between two passes; it goes before all requests.
    pub(crate) fn push_task(&self, task: Task) -> Result<(), Refused> {
        let mut state = self.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        state.tasks.push(task);
        drop(state);
        self.wake.call();
        Ok(())
    }

    /// The tasks to be done now.
    pub(crate) fn take_tasks(&self) -> Vec<Task> {
        std::mem::take(&mut self.lock().tasks)
    }

    /// Requests that wait.
    pub(crate) fn len(&self) -> usize {
        self.lock().waiting.len()
    }

    /// The request whose turn it is.
    pub(crate) fn pop(&self) -> Option<Waiting> {
        let mut state = self.lock();
        let turn = |it: &Waiting| (std::cmp::Reverse(it.job.priority()), it.arrival);
        let next = state.waiting.iter().enumerate();
        let next = next.min_by_key(|(_, it)| turn(it))?.0;
        Some(state.waiting.swap_remove(next))
    }

    /// Lets a request that was popped wait again, at its old place, even where another has come
    /// meanwhile: one more than the capacity may wait then.
    pub(crate) fn put_back(&self, waiting: Waiting) {
        self.lock().waiting.push(waiting);
    }

    /// Takes out the requests that `is_over` says are.
    pub(crate) fn take_out(&self, is_over: impl Fn(&Job) -> bool) -> Vec<Job> {
        let mut state = self.lock();
        let taken = state.waiting.extract_if(.., |it| is_over(&it.job));
        taken.map(|it| it.job).collect()
    }

    /// When the first of the waiting requests is too late.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let state = self.lock();
        state
            .waiting
            .iter()
            .filter_map(|it| it.job.deadline())
            .min()
    }

    /// Takes no more requests, and gives those that wait.
    pub(crate) fn close(&self) -> Vec<Job> {
        let mut state = self.lock();
        state.closed = true;
        // Who waits for a task learns it from its dropped channel.
        state.tasks.clear();
        let mut waiting = std::mem::take(&mut state.waiting);
        waiting.sort_by_key(|it| it.arrival);
        waiting.into_iter().map(|it| it.job).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Refused {
    /// The error of the caller; `closed` says why nobody listens any more.
    pub(crate) fn into_error(self, closed: impl FnOnce() -> Error) -> Error {
        match self {
            Self::Full { capacity } => Error::QueueFull { capacity },
            Self::Closed => closed(),
        }
    }
}

#[cfg(all(test, loom))]
mod models;
