//! Fetches of models: one at a time of each, for as long as somebody waits for it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tercel::Progress;
use tokio::sync::watch;

use crate::error::ApiError;

/// Fetches that run, by what they fetch.
#[derive(Debug, Default)]
pub(super) struct Fetches(Arc<Running>);

#[derive(Debug, Default)]
struct Running(Mutex<HashMap<String, watch::Sender<State>>>);

/// Where a fetch stands.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    /// What the user should be told, in order.
    pub(super) notes: Vec<String>,
    pub(super) at: Option<Progress>,
    pub(super) ended: Option<Result<(), ApiError>>,
}

/// Notes that are kept of one fetch.
const MOST_NOTES: usize = 64;

impl Fetches {
    /// Joins the fetch of `key`, or starts it: `work` runs on a thread of its own, tells how it
    /// goes, and ends early once it is unwanted. Dropping the receiver is all it takes to leave.
    pub(super) fn join(
        &self,
        key: &str,
        work: impl FnOnce(&Teller) -> Result<(), ApiError> + Send + 'static,
    ) -> watch::Receiver<State> {
        let mut running = self.0.lock();
        if let Some(sender) = running.get(key) {
            return sender.subscribe();
        }
        let (sender, receiver) = watch::channel(State::default());
        running.insert(key.to_owned(), sender.clone());
        drop(running);
        let teller = Teller {
            key: key.to_owned(),
            sender,
            running: Arc::clone(&self.0),
            gave_up: AtomicBool::new(false),
        };
        tokio::task::spawn_blocking(move || {
            let ended = work(&teller);
            teller.sender.send_modify(|state| state.ended = Some(ended));
        });
        receiver
    }
}

impl Running {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, watch::Sender<State>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a fetch tells, and is told.
pub(super) struct Teller {
    key: String,
    sender: watch::Sender<State>,
    running: Arc<Running>,
    /// Whether nobody can join any more.
    gave_up: AtomicBool,
}

impl Teller {
    pub(super) fn tell(&self, progress: Progress) {
        self.sender.send_modify(|state| {
            if let Some(note) = &progress.note
                && state.notes.len() < MOST_NOTES
            {
                state.notes.push(note.clone());
            }
            state.at = Some(progress);
        });
    }

    /// Tells the user something.
    pub(super) fn note(&self, note: String) {
        self.sender.send_modify(|state| state.notes.push(note));
    }

    /// Whether nobody waits any more. Once it said so, it stays so: who asks then starts anew.
    pub(super) fn is_unwanted(&self) -> bool {
        if self.gave_up.load(Ordering::Acquire) {
            return true;
        }
        if self.sender.receiver_count() > 0 {
            return false;
        }
        // Under the lock, under which others join.
        let mut running = self.running.lock();
        let is_unwanted = self.sender.receiver_count() == 0;
        if is_unwanted {
            running.remove(&self.key);
            self.gave_up.store(true, Ordering::Release);
        }
        is_unwanted
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        if !self.gave_up.load(Ordering::Acquire) {
            self.running.lock().remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::thread;
    use std::time::Duration;

    use super::*;

    async fn ended(mut receiver: watch::Receiver<State>) -> Option<Result<(), ApiError>> {
        let state = receiver
            .wait_for(|state| state.ended.is_some())
            .await
            .ok()?;
        state.ended.clone()
    }

    fn until_unwanted(teller: &Teller) -> Result<(), ApiError> {
        while !teller.is_unwanted() {
            thread::sleep(Duration::from_millis(1));
        }
        Err(ApiError::bad_request("cancelled", "nobody waits"))
    }

    async fn emptied(fetches: &Fetches) {
        while !fetches.0.lock().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn two_who_ask_share_one_fetch() {
        let (fetches, starts) = (Fetches::default(), Arc::new(AtomicUsize::new(0)));
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let counted = Arc::clone(&starts);
        let first = fetches.join("a", move |teller| {
            counted.fetch_add(1, Ordering::Relaxed);
            teller.note("slow".to_owned());
            let _ = wait.recv();
            Ok(())
        });
        let second = fetches.join("a", |_| unreachable!("it runs"));
        let other = fetches.join("b", |_| Ok(()));
        assert_eq!(ended(other).await, Some(Ok(())));
        go.send(()).expect("it waits");
        let notes = second.clone();
        assert_eq!(
            (ended(first).await, ended(second).await),
            (Some(Ok(())), Some(Ok(())))
        );
        assert_eq!(notes.borrow().notes, ["slow"]);
        assert_eq!(starts.load(Ordering::Relaxed), 1);
        emptied(&fetches).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_fetch_ends_with_the_last_who_waits() {
        let fetches = Fetches::default();
        let first = fetches.join("a", until_unwanted);
        let second = fetches.join("a", |_| unreachable!("it runs"));
        drop(first);
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(second.borrow().ended.is_none(), "somebody waits");
        drop(second);
        emptied(&fetches).await;
        let again = fetches.join("a", |_| Ok(()));
        assert_eq!(ended(again).await, Some(Ok(())));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_failure_goes_to_all_and_is_not_kept() {
        let fetches = Fetches::default();
        let failed = fetches.join("a", |_| Err(ApiError::bad_request("gated", "no")));
        let error = ended(failed).await.expect("an end").unwrap_err();
        assert_eq!(error.code, "gated");
        emptied(&fetches).await;
        assert_eq!(ended(fetches.join("a", |_| Ok(()))).await, Some(Ok(())));
    }
}
