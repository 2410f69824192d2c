//! The channel between the engine's thread and the reader of one request.
//!
//! It is lossless and bounded by agreement: the producer asks whether there is room before it
//! computes what it would send, and is woken when a reader that lagged has made some. Nothing it
//! does ever waits. A reader waits for events, unless its request was cancelled before its turn
//! came.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use crate::error::Error;
use crate::reply::{Event, Reply};
use crate::sync::{AtomicBool, Condvar, Mutex, MutexGuard, Ordering};
use crate::wake::Wake;

/// Opens a channel that holds `capacity` deltas; with 0, deltas are dropped and only the end
/// passes. `accepted` is when the request arrived; `draft` is the reply if it is cancelled before
/// it starts, and what the producer fills in otherwise.
pub(crate) fn pipe(
    capacity: usize,
    accepted: Instant,
    draft: Reply,
    producer: Arc<Wake>,
) -> (Sender, Receiver) {
    let prompt_tokens = draft.usage.prompt_tokens;
    let state = State {
        // A token may complete more than one event, and several tokens may come at once.
        events: VecDeque::with_capacity(2 * capacity),
        draft: Some(draft),
        finished: false,
        waker: None,
    };
    let shared = Arc::new(Shared {
        capacity,
        accepted,
        prompt_tokens,
        producer,
        cancelled: AtomicBool::new(false),
        state: Mutex::new(state),
        changed: Condvar::new(),
    });
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

/// Cancels one request, from any thread, as often as one likes: it ends within one token, or one
/// prefill chunk, with [`StopReason::Cancelled`](crate::StopReason::Cancelled).
#[derive(Clone)]
pub struct CancelHandle(Target);

/// What a handle cancels.
#[derive(Clone)]
enum Target {
    Request(Arc<Shared>),
    Series(Arc<Series>),
}

impl CancelHandle {
    /// Asks the request to end. Does nothing when it has ended.
    pub fn cancel(&self) {
        match &self.0 {
            Target::Request(request) => request.cancel(),
            Target::Series(series) => series.cancel(),
        }
    }
}

/// Requests one after the other that are cancelled as one.
#[derive(Debug)]
pub(crate) struct Series(StdMutex<(bool, CancelHandle)>);

impl Series {
    /// Begins with a request.
    pub(crate) fn new(first: CancelHandle) -> Arc<Self> {
        Arc::new(Self(StdMutex::new((false, first))))
    }

    /// Goes on with another request, which is cancelled at once if the series was.
    pub(crate) fn go_on(&self, next: CancelHandle) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.0 {
            next.cancel();
        }
        state.1 = next;
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    pub(crate) fn cancel_handle(self: &Arc<Self>) -> CancelHandle {
        CancelHandle(Target::Series(Arc::clone(self)))
    }

    fn cancel(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 = true;
        state.1.cancel();
    }
}

impl std::fmt::Debug for CancelHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CancelHandle").finish_non_exhaustive()
    }
}

/// The engine's end. Dropped before [`Sender::finish`], it reports an internal error.
pub(crate) struct Sender(Arc<Shared>);

impl Sender {
    /// Takes the draft of the reply and starts, or ends the request if it was cancelled.
    pub(crate) fn start(&self) -> Option<Reply> {
        let mut state = self.0.lock();
        if self.is_cancelled() {
            state.finished = true;
            return None;
        }
        state.draft.take()
    }

    /// When the request was accepted.
    pub(crate) fn accepted(&self) -> Instant {
        self.0.accepted
    }

    /// Whether the reader wants no more.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::Acquire)
    }

    pub(crate) fn cancel_handle(&self) -> CancelHandle {
        CancelHandle(Target::Request(Arc::clone(&self.0)))
    }

    /// Whether deltas are read.
    pub(crate) fn is_streaming(&self) -> bool {
        self.0.capacity > 0
    }

    /// Whether a reader that lags has room for more.
    pub(crate) fn has_room(&self) -> bool {
        self.0.capacity == 0 || self.0.lock().events.len() < self.0.capacity
    }

    /// Passes a delta on. Breaks when the request was cancelled.
    pub(crate) fn send(&self, delta: Event) -> ControlFlow<()> {
        if self.0.capacity > 0 {
            let mut state = self.0.lock();
            // A cancelled reader may still drain: what was generated is not lost.
            state.events.push_back(Ok(delta));
            self.0.tell_reader(state);
        }
        if self.is_cancelled() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    /// Ends the request, with a last delta where there is one. Never waits.
    pub(crate) fn finish(self, last: Option<Event>, result: Result<Reply, Error>) {
        let last = last.filter(|_| self.0.capacity > 0);
        self.0.finish(last, result);
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let message = "the engine stopped before the reply was complete".to_owned();
        self.0.finish(None, Err(Error::Internal { message }));
    }
}

/// The reader's end. Dropping it cancels the request.
pub(crate) struct Receiver(Arc<Shared>);

impl Receiver {
    /// The next event; `None` after the end.
    pub(crate) fn next(&self) -> Option<Result<Event, Error>> {
        let mut state = self.0.lock();
        loop {
            match self.0.take(&mut state) {
                Poll::Ready(event) => return event,
                Poll::Pending => state = self.0.wait(state),
            }
        }
    }

    /// As [`next`](Self::next), for a task that is woken instead of a thread that waits.
    pub(crate) fn poll_next(&self, context: &Context<'_>) -> Poll<Option<Result<Event, Error>>> {
        let mut state = self.0.lock();
        let event = self.0.take(&mut state);
        if event.is_pending() {
            state.waker = Some(context.waker().clone());
        }
        event
    }

    pub(crate) fn cancel_handle(&self) -> CancelHandle {
        CancelHandle(Target::Request(Arc::clone(&self.0)))
    }

    /// Tokens of the prompt.
    pub(crate) fn prompt_tokens(&self) -> usize {
        self.0.prompt_tokens
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

struct Shared {
    capacity: usize,
    accepted: Instant,
    prompt_tokens: usize,
    /// Wakes the engine's thread.
    producer: Arc<Wake>,
    cancelled: AtomicBool,
    state: Mutex<State>,
    /// Any change of the state; one reader waits on it.
    changed: Condvar,
}

struct State {
    events: VecDeque<Result<Event, Error>>,
    /// There until the request starts, or ends without starting.
    draft: Option<Reply>,
    finished: bool,
    /// The task that waits for an event.
    waker: Option<Waker>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock; the state is whole even if something did.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn cancel(&self) {
        // Under the lock, so that a waiter cannot miss it between its check and its wait.
        let state = self.lock();
        self.cancelled.store(true, Ordering::Release);
        self.tell_reader(state);
        self.producer.call();
    }

    /// Wakes the reader after a change of the state.
    fn tell_reader(&self, mut state: MutexGuard<'_, State>) {
        let waker = state.waker.take();
        drop(state);
        self.changed.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The next event, if there is one or none is to come.
    fn take(&self, state: &mut State) -> Poll<Option<Result<Event, Error>>> {
        if let Some(event) = state.events.pop_front() {
            if self.capacity > 0 && state.events.len() + 1 == self.capacity {
                self.producer.call();
            }
            return Poll::Ready(Some(event));
        }
        if self.cancelled.load(Ordering::Acquire)
            && let Some(mut reply) = state.draft.take()
        {
            state.finished = true;
            let waited = self.accepted.elapsed();
            reply.timings.set_start(waited);
            reply.timings.total_seconds = waited.as_secs_f64();
            return Poll::Ready(Some(Ok(Event::Done(reply))));
        }
        if state.finished {
            Poll::Ready(None)
        } else {
            Poll::Pending
        }
    }

    fn finish(&self, last: Option<Event>, result: Result<Reply, Error>) {
        let mut state = self.lock();
        if state.finished {
            return;
        }
        state.finished = true;
        // A request cancelled in the queue ends with its draft, not with an error.
        if !(state.draft.is_some() && self.cancelled.load(Ordering::Acquire)) {
            state.draft = None;
            state.events.extend(last.map(Ok));
            state.events.push_back(result.map(Event::Done));
        }
        self.tell_reader(state);
    }
}

#[cfg(all(test, loom))]
mod models;
#[cfg(test)]
mod tests;
