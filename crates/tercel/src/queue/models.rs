//! The queue and the engine's sleep in every order of events. `cargo xtask loom` runs them.
//!
//! A thread that waits for a call that never comes fails a model.

use std::sync::mpsc::sync_channel;

use loom::thread;

use super::*;
use crate::job::Score;
use crate::sync::{AtomicBool, Ordering};

/// A request with a number.
fn job(number: usize) -> Job {
    Job::Score(Score {
        tokens: Vec::new(),
        from: number,
        result: sync_channel(1).0,
    })
}

fn number(job: &Job) -> usize {
    match job {
        Job::Score(request) => request.from,
        Job::Generate(_) | Job::Embed(_) => usize::MAX,
    }
}

fn queue(capacity: usize) -> Arc<Queue> {
    Arc::new(Queue::new(capacity, Arc::default()))
}

/// Pushes a request from a thread of its own, which tells whether it was taken.
fn push(queue: &Arc<Queue>, n: usize) -> thread::JoinHandle<bool> {
    let queue = Arc::clone(queue);
    thread::spawn(move || queue.push(job(n)).is_ok())
}

#[test]
fn no_request_is_left_while_the_engine_sleeps() {
    loom::model(|| {
        let queue = queue(2);
        let pushers = [push(&queue, 0), push(&queue, 1)];
        let mut taken = Vec::new();
        while taken.len() < 2 {
            match queue.pop() {
                Some(waiting) => taken.push(number(&waiting.job)),
                None => queue.wake().wait(None),
            }
        }
        assert!(pushers.map(|it| it.join().unwrap()) == [true; 2]);
        taken.sort_unstable();
        assert_eq!(taken, [0, 1]);
    });
}

#[test]
fn a_request_is_refused_taken_or_handed_back_when_the_engine_stops() {
    loom::model(|| {
        let queue = queue(2);
        let pushers = [push(&queue, 0), push(&queue, 1)];
        let stopping = Arc::new(AtomicBool::new(false));
        let stopper = {
            let (queue, stopping) = (Arc::clone(&queue), Arc::clone(&stopping));
            thread::spawn(move || {
                stopping.store(true, Ordering::SeqCst);
                queue.wake().call();
            })
        };
        let mut seen = Vec::new();
        while !stopping.load(Ordering::SeqCst) {
            match queue.pop() {
                Some(waiting) => seen.push(number(&waiting.job)),
                None => queue.wake().wait(None),
            }
        }
        seen.extend(queue.close().iter().map(number));
        stopper.join().unwrap();
        let taken = pushers.map(|it| it.join().unwrap());
        for (n, taken) in taken.into_iter().enumerate() {
            let times = seen.iter().filter(|it| **it == n).count();
            assert_eq!(times, usize::from(taken), "request {n}");
        }
        assert_eq!(queue.len(), 0);
    });
}

#[test]
fn two_pushers_do_not_share_the_last_place() {
    loom::model(|| {
        let queue = queue(1);
        let pushers = [push(&queue, 0), push(&queue, 1)];
        assert!(queue.len() <= 1);
        let taken = pushers.map(|it| it.join().unwrap());
        assert_eq!(taken.iter().filter(|taken| **taken).count(), 1);
        assert_eq!(queue.len(), 1);
        assert!(matches!(queue.push(job(2)), Err(Refused::Full { .. })));
    });
}

#[test]
fn a_request_that_is_put_back_keeps_its_turn() {
    loom::model(|| {
        let queue = queue(1);
        assert!(queue.push(job(0)).is_ok());
        let pushers = [push(&queue, 1), push(&queue, 2)];
        let first = queue.pop().unwrap();
        assert_eq!(number(&first.job), 0);
        queue.put_back(first);
        let taken = pushers.map(|it| it.join().unwrap());
        // Its place may go to another, once.
        assert!(taken != [true; 2]);
        let handed_back: Vec<_> = queue.close().iter().map(number).collect();
        assert_eq!(handed_back[0], 0);
        let others = taken.iter().filter(|taken| **taken).count();
        assert_eq!(handed_back.len(), 1 + others);
    });
}

#[test]
fn a_task_is_done_or_dropped() {
    loom::model(|| {
        let queue = queue(1);
        let alive = Arc::new(());
        let asker = {
            let (queue, alive) = (Arc::clone(&queue), Arc::clone(&alive));
            let task = Box::new(move |_: &mut dyn crate::model::Model| drop(alive));
            thread::spawn(move || queue.push_task(task).is_ok())
        };
        let done = queue.take_tasks();
        drop(queue.close());
        let was_done = !done.is_empty();
        drop(done);
        let was_taken = asker.join().unwrap();
        assert!(was_taken || !was_done);
        assert_eq!(Arc::strong_count(&alive), 1, "nobody waits for an answer");
    });
}
