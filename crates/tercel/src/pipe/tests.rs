//! The channel's promises: lossless, bounded, never stuck.

use std::thread;
use std::time::Duration;

use super::*;
use crate::reply::{StopReason, Timings, Usage};
use crate::sampling::Settings;

fn reply(stop_reason: StopReason) -> Reply {
    Reply {
        text: String::new(),
        thinking: None,
        tool_calls: Vec::new(),
        tool_parse_error: None,
        tokens: Vec::new(),
        logprobs: Vec::new(),
        stop_reason,
        stop_sequence: None,
        usage: Usage::default(),
        context: None,
        outcome: None,
        timings: Timings::default(),
        settings: Settings::default(),
        backend: "test".into(),
        threads: 1,
    }
}

pub(super) fn open(capacity: usize) -> (Sender, Receiver) {
    pipe(
        capacity,
        Instant::now(),
        reply(StopReason::Cancelled),
        Arc::default(),
    )
}

pub(super) fn delta(token_index: usize) -> Event {
    Event::Delta {
        text: "x".into(),
        token_index,
    }
}

fn reason(event: Option<Result<Event, Error>>) -> StopReason {
    match event {
        Some(Ok(Event::Done(reply))) => reply.stop_reason,
        other => panic!("expected the end, got {other:?}"),
    }
}

/// Waits for room as the engine's thread does; whether anybody still reads.
pub(super) fn wait_for_room(sender: &Sender) -> bool {
    while !sender.has_room() && !sender.is_cancelled() {
        sender.0.producer.wait(None);
    }
    !sender.is_cancelled()
}

#[test]
fn a_slow_reader_paces_the_producer_and_loses_nothing() {
    let (sender, receiver) = open(4);
    let producer = thread::spawn(move || {
        sender.start().expect("not cancelled");
        for i in 0..100 {
            assert!(wait_for_room(&sender));
            assert!(sender.send(delta(i)).is_continue());
            let waiting = sender.0.lock().events.len();
            assert!(waiting <= 4, "{waiting} events wait");
        }
        sender.finish(Some(delta(100)), Ok(reply(StopReason::Eos)));
    });
    for i in 0..=100 {
        if i % 10 == 0 {
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(
            receiver.next().expect("an event").expect("no error"),
            delta(i)
        );
    }
    assert_eq!(reason(receiver.next()), StopReason::Eos);
    assert!(receiver.next().is_none());
    producer.join().expect("the producer ended");
}

#[test]
fn a_dropped_reader_frees_a_waiting_producer() {
    let (sender, receiver) = open(1);
    let producer = thread::spawn(move || {
        sender.start().expect("not cancelled");
        while wait_for_room(&sender) {
            let _ = sender.send(delta(0));
        }
        sender.finish(None, Ok(reply(StopReason::Cancelled)));
    });
    thread::sleep(Duration::from_millis(20));
    drop(receiver);
    producer.join().expect("the producer ended");
}

#[test]
fn a_task_is_woken_by_the_next_event() {
    struct Flag(AtomicBool);
    impl std::task::Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let flag = Arc::new(Flag(AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&flag));
    let context = Context::from_waker(&waker);
    let woken = || flag.0.swap(false, Ordering::SeqCst);
    let (sender, receiver) = open(2);
    sender.start().expect("not cancelled");
    assert!(receiver.poll_next(&context).is_pending());
    assert!(!woken());
    assert!(sender.send(delta(0)).is_continue());
    assert!(woken());
    assert!(
        matches!(receiver.poll_next(&context), Poll::Ready(Some(Ok(event))) if event == delta(0))
    );
    assert!(receiver.poll_next(&context).is_pending());
    sender.finish(None, Ok(reply(StopReason::Eos)));
    assert!(woken());
    assert!(matches!(
        receiver.poll_next(&context),
        Poll::Ready(Some(Ok(Event::Done(_))))
    ));
    assert!(matches!(receiver.poll_next(&context), Poll::Ready(None)));
}

#[test]
fn a_cancelled_reader_still_gets_what_was_generated_and_the_end() {
    let (sender, receiver) = open(2);
    let cancel = receiver.cancel_handle();
    let producer = thread::spawn(move || {
        sender.start().expect("not cancelled");
        let mut sent = 0;
        loop {
            let flow = sender.send(delta(sent));
            sent += 1;
            if flow.is_break() {
                break;
            }
        }
        sender.finish(Some(delta(sent)), Ok(reply(StopReason::Cancelled)));
        sent + 1
    });
    thread::sleep(Duration::from_millis(20));
    cancel.cancel();
    cancel.cancel();
    let sent = producer.join().expect("the producer ended");
    for i in 0..sent {
        assert_eq!(
            receiver.next().expect("an event").expect("no error"),
            delta(i)
        );
    }
    assert_eq!(reason(receiver.next()), StopReason::Cancelled);
    assert!(receiver.next().is_none());
}

#[test]
fn a_request_cancelled_before_its_turn_ends_at_once() {
    let (sender, receiver) = open(2);
    receiver.cancel_handle().cancel();
    assert_eq!(reason(receiver.next()), StopReason::Cancelled);
    assert!(receiver.next().is_none());
    assert!(sender.start().is_none());
    drop(sender);
    assert!(receiver.next().is_none());

    // The other order: the engine sees the cancellation first.
    let (sender, receiver) = open(2);
    receiver.cancel_handle().cancel();
    assert!(sender.start().is_none());
    drop(sender);
    assert_eq!(reason(receiver.next()), StopReason::Cancelled);
    assert!(receiver.next().is_none());
}

#[test]
fn a_producer_that_dies_is_an_error_and_not_a_hang() {
    let (sender, receiver) = open(2);
    let producer = thread::spawn(move || {
        sender.start().expect("not cancelled");
        let _ = sender.send(delta(0));
    });
    assert_eq!(
        receiver.next().expect("an event").expect("no error"),
        delta(0)
    );
    let error = receiver.next().expect("an event").expect_err("an error");
    assert_eq!(error.kind(), "internal");
    assert!(receiver.next().is_none());
    producer.join().expect("the producer ended");
}

#[test]
fn without_room_for_deltas_only_the_end_passes() {
    let (sender, receiver) = open(0);
    sender.start().expect("not cancelled");
    for i in 0..100 {
        assert!(sender.send(delta(i)).is_continue());
    }
    sender.finish(Some(delta(100)), Ok(reply(StopReason::MaxNewTokens)));
    assert_eq!(reason(receiver.next()), StopReason::MaxNewTokens);
}
