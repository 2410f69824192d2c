//! The answer to one question to the engine's thread, for a thread or a task that waits for it.

use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::sync::{Condvar, Mutex, MutexGuard};
use crate::wake::Wake;

/// Opens the way of an answer; `producer` is woken when nobody waits for it any more.
pub(crate) fn answer<T>(producer: Arc<Wake>) -> (Answer<T>, Awaited<T>) {
    let shared = Arc::new(Shared {
        producer,
        state: Mutex::new(State {
            answer: None,
            is_over: false,
            is_abandoned: false,
            waker: None,
        }),
        changed: Condvar::new(),
    });
    (Answer(Arc::clone(&shared)), Awaited(shared))
}

/// The engine's end. Dropped before [`Answer::give`], it says that none is to come.
pub(crate) struct Answer<T>(Arc<Shared<T>>);

impl<T> Answer<T> {
    /// Whether nobody waits any more.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.0.lock().is_abandoned
    }

    /// Gives the answer. Never waits.
    pub(crate) fn give(self, answer: T) {
        self.0.lock().answer = Some(answer);
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.is_over = true;
        let waker = state.waker.take();
        drop(state);
        self.0.changed.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The end of who waits, as a thread or as a task. Dropping it takes the question back.
pub(crate) struct Awaited<T>(Arc<Shared<T>>);

impl<T> Awaited<T> {
    /// The answer; `None` where none is to come.
    pub(crate) fn wait(self) -> Option<T> {
        let mut state = self.0.lock();
        while !state.is_over {
            let waited = self.0.changed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
        state.answer.take()
    }
}

impl<T> Future for Awaited<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = self.0.lock();
        if state.is_over {
            return Poll::Ready(state.answer.take());
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

impl<T> Drop for Awaited<T> {
    fn drop(&mut self) {
        self.0.lock().is_abandoned = true;
        self.0.producer.call();
    }
}

struct Shared<T> {
    /// Wakes the engine's thread.
    producer: Arc<Wake>,
    state: Mutex<State<T>>,
    /// The answer is there, or none is to come; one thread waits on it.
    changed: Condvar,
}

struct State<T> {
    answer: Option<T>,
    is_over: bool,
    is_abandoned: bool,
    /// The task that waits.
    waker: Option<Waker>,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(all(test, loom))]
mod models;
#[cfg(test)]
mod tests {
    use std::task::Waker;
    use std::thread;

    use super::*;

    #[test]
    fn threads_and_tasks_get_the_answer_or_learn_that_there_is_none() {
        for given in [Some(7), None] {
            let (answer, awaited) = answer(Arc::default());
            let waiting = thread::spawn(|| awaited.wait());
            match given {
                Some(value) => answer.give(value),
                None => drop(answer),
            }
            assert_eq!(waiting.join().expect("no panic"), given);

            let (answer, mut awaited) = super::answer(Arc::default());
            let mut context = Context::from_waker(Waker::noop());
            assert_eq!(Pin::new(&mut awaited).poll(&mut context), Poll::Pending);
            match given {
                Some(value) => answer.give(value),
                None => drop(answer),
            }
            assert_eq!(
                Pin::new(&mut awaited).poll(&mut context),
                Poll::Ready(given)
            );
        }
    }

    #[test]
    fn a_question_is_taken_back_by_dropping_it() {
        let (answer, awaited) = answer::<u32>(Arc::default());
        assert!(!answer.is_abandoned());
        drop(awaited);
        assert!(answer.is_abandoned());
    }
}
