//! The channel of one reply in every order of events. `cargo xtask loom` runs them.
//!
//! A thread that waits for a call that never comes fails a model.

use loom::thread;

use super::tests::{delta, open, wait_for_room};
use super::*;
use crate::reply::StopReason;

/// What a reader saw until the end: the deltas, and how it ended.
#[derive(Debug, PartialEq)]
struct Seen {
    deltas: Vec<usize>,
    /// The reason, or the kind of an error.
    end: Result<StopReason, &'static str>,
}

/// Reads all events with `next`, which must end, and end once.
fn read(mut next: impl FnMut() -> Option<Result<Event, Error>>) -> Seen {
    let (mut deltas, mut ends) = (Vec::new(), Vec::new());
    while let Some(event) = next() {
        match event {
            Ok(Event::Delta { token_index, .. }) => deltas.push(token_index),
            Ok(Event::Done(reply)) => ends.push(Ok(reply.stop_reason)),
            Ok(other) => panic!("{other:?}"),
            Err(error) => ends.push(Err(error.kind())),
        }
        assert!(ends.len() <= 1 && (ends.is_empty() || deltas.len() <= 3));
    }
    assert!(next().is_none(), "an event after the end");
    assert_eq!(ends.len(), 1, "{ends:?}");
    let end = ends.remove(0);
    Seen { deltas, end }
}

/// A task that is woken, and a thread that waits for that.
struct Task(Wake);

impl std::task::Wake for Task {
    fn wake(self: Arc<Self>) {
        self.0.call();
    }
}

/// [`read`] by a task.
fn read_as_a_task(receiver: &Receiver) -> Seen {
    let task = Arc::new(Task(Wake::default()));
    let waker = Waker::from(Arc::clone(&task));
    read(|| {
        loop {
            match receiver.poll_next(&Context::from_waker(&waker)) {
                Poll::Ready(event) => return event,
                Poll::Pending => task.0.wait(None),
            }
        }
    })
}

/// The engine's work: `n` deltas where there is room for them, and the end.
fn write(sender: Sender, n: usize) {
    let Some(mut draft) = sender.start() else {
        return;
    };
    for i in 0..n {
        if !wait_for_room(&sender) || sender.send(delta(i)).is_break() {
            return sender.finish(None, Ok(draft));
        }
    }
    draft.stop_reason = StopReason::Eos;
    sender.finish(Some(delta(n)), Ok(draft));
}

fn spawn_writer(sender: Sender, n: usize) -> thread::JoinHandle<()> {
    thread::spawn(move || write(sender, n))
}

fn spawn_cancel(cancel: CancelHandle) -> thread::JoinHandle<()> {
    thread::spawn(move || cancel.cancel())
}

fn whole(deltas: usize) -> Seen {
    Seen {
        deltas: (0..deltas).collect(),
        end: Ok(StopReason::Eos),
    }
}

/// What a cancelled reply may look like: as many deltas as there were, none lost in between.
fn assert_is_begun_or_whole(seen: &Seen, deltas: usize) {
    if *seen != whole(deltas) {
        assert_eq!(seen.end, Ok(StopReason::Cancelled));
        let sent = seen.deltas.len();
        assert!(sent <= deltas);
        assert!(seen.deltas.iter().copied().eq(0..sent), "{seen:?}");
    }
}

#[test]
fn a_reader_that_makes_room_wakes_the_producer() {
    loom::model(|| {
        let (sender, receiver) = open(1);
        let writer = spawn_writer(sender, 2);
        assert_eq!(read(|| receiver.next()), whole(3));
        writer.join().unwrap();
    });
}

#[test]
fn a_task_that_waits_is_woken() {
    loom::model(|| {
        let (sender, receiver) = open(1);
        let writer = spawn_writer(sender, 2);
        assert_eq!(read_as_a_task(&receiver), whole(3));
        writer.join().unwrap();
    });
}

#[test]
fn a_cancel_while_the_request_starts_and_runs_ends_it_once() {
    loom::model(|| {
        let (sender, receiver) = open(1);
        let cancel = spawn_cancel(receiver.cancel_handle());
        let writer = spawn_writer(sender, 1);
        assert_is_begun_or_whole(&read(|| receiver.next()), 2);
        cancel.join().unwrap();
        writer.join().unwrap();
    });
}

#[test]
fn a_cancel_wakes_a_task_and_ends_it_once() {
    loom::model(|| {
        let (sender, receiver) = open(1);
        let cancel = spawn_cancel(receiver.cancel_handle());
        let writer = spawn_writer(sender, 1);
        assert_is_begun_or_whole(&read_as_a_task(&receiver), 2);
        cancel.join().unwrap();
        writer.join().unwrap();
    });
}

#[test]
fn a_cancel_at_the_end_takes_nothing_away() {
    loom::model(|| {
        let (sender, receiver) = open(1);
        let mut draft = sender.start().unwrap();
        draft.stop_reason = StopReason::Eos;
        let cancel = spawn_cancel(receiver.cancel_handle());
        let writer = thread::spawn(move || sender.finish(Some(delta(0)), Ok(draft)));
        assert_eq!(read(|| receiver.next()), whole(1));
        cancel.join().unwrap();
        writer.join().unwrap();
    });
}

#[test]
fn a_reader_of_a_request_that_waits_is_freed_by_its_cancel() {
    for read_all in [|it: &Receiver| read(|| it.next()), read_as_a_task] {
        loom::model(move || {
            let (sender, receiver) = open(1);
            let cancel = spawn_cancel(receiver.cancel_handle());
            // The engine does nothing meanwhile.
            let seen = read_all(&receiver);
            assert_eq!((seen.deltas, seen.end), (vec![], Ok(StopReason::Cancelled)));
            assert!(sender.start().is_none());
            drop(sender);
            assert!(receiver.next().is_none());
            cancel.join().unwrap();
        });
    }
}

#[test]
fn a_request_that_fails_in_the_queue_while_it_is_cancelled_ends_once() {
    loom::model(|| {
        let (sender, receiver) = open(1);
        let cancel = spawn_cancel(receiver.cancel_handle());
        let engine = thread::spawn(move || sender.finish(None, Err(Error::EngineClosed)));
        let seen = read(|| receiver.next());
        assert!(seen.deltas.is_empty());
        let kind = Error::EngineClosed.kind();
        assert!([Ok(StopReason::Cancelled), Err(kind)].contains(&seen.end));
        cancel.join().unwrap();
        engine.join().unwrap();
    });
}

#[test]
fn a_producer_that_dies_frees_its_reader() {
    loom::model(|| {
        let (sender, receiver) = open(1);
        let writer = thread::spawn(move || {
            sender.start().unwrap();
            assert!(sender.send(delta(0)).is_continue());
        });
        let seen = read(|| receiver.next());
        assert_eq!((seen.deltas, seen.end), (vec![0], Err("internal")));
        writer.join().unwrap();
    });
}

#[test]
fn a_reader_that_leaves_frees_its_producer() {
    loom::model(|| {
        let (sender, receiver) = open(1);
        let writer = spawn_writer(sender, 2);
        drop(receiver);
        writer.join().unwrap();
    });
}

#[test]
fn without_room_for_deltas_the_end_passes() {
    loom::model(|| {
        let (sender, receiver) = open(0);
        let cancel = spawn_cancel(receiver.cancel_handle());
        let writer = spawn_writer(sender, 1);
        let seen = read(|| receiver.next());
        assert!(seen.deltas.is_empty());
        assert!(seen.end.is_ok());
        cancel.join().unwrap();
        writer.join().unwrap();
    });
}
