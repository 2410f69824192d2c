//! The ledger through its public face.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Instant;

use proptest::prelude::*;

use super::*;

const BASELINE: u64 = 100;

fn options() -> LedgerOptions {
    LedgerOptions {
        baseline_bytes: Some(BASELINE),
        lent_bytes: Some(1 << 40),
        shrink_threshold_ratio: 0.25,
        shrink_cooldown: Duration::ZERO,
        on_limit: None,
    }
}

fn ledger() -> Ledger {
    Ledger::new(options())
}

fn active(ledger: &Ledger, policy: &Policy, bytes: u64) -> Ticket {
    ledger.ticket(policy.clone(), bytes, Kind::Active)
}

/// The kinds of all events so far.
fn kinds(events: &Events) -> Vec<EventKind> {
    std::iter::from_fn(|| events.try_next())
        .map(|event| event.kind)
        .collect()
}

/// Waits until so many tickets wait.
fn until_waiting(ledger: &Ledger, n: usize) {
    let started = Instant::now();
    while ledger.snapshot().waiting != n {
        assert!(started.elapsed() < PATIENCE, "{:?}", ledger.snapshot());
        thread::sleep(Duration::from_millis(1));
    }
}

/// More than any wait of these tests takes.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn options_are_those_of_the_documentation() {
    let options = LedgerOptions::default();
    assert_eq!(options.shrink_threshold_ratio, 0.25);
    assert_eq!(options.shrink_cooldown, Duration::from_secs(1));
}

#[test]
fn a_ticket_raises_the_limit_and_its_end_restores_the_baseline() {
    use EventKind::*;
    let ledger = ledger();
    let events = ledger.events(64);
    let sum = Policy::sum(Some(500));
    let mut ticket = active(&ledger, &sum, 50).named("chat");
    assert_eq!(ledger.snapshot().holders, []);
    assert_eq!(ticket.start(&Cancellation::new()), Ok(150));
    assert_eq!(ticket.start(&Cancellation::new()), Ok(150));
    let snapshot = ledger.snapshot();
    assert_eq!(snapshot.limit_bytes, Some(150));
    assert_eq!(snapshot.holders[0].name, "chat");
    assert_eq!(snapshot.holders[0].policy, "sum(500)");
    ticket.end();
    ticket.end();
    assert!(!ticket.is_started());
    assert_eq!(ledger.snapshot().limit_bytes, None);
    assert_eq!(
        kinds(&events),
        [
            BaselineCaptured,
            AdmissionGranted,
            TicketStarted,
            LimitComputed,
            LimitApplied,
            TicketStartIgnored,
            TicketEnded,
            LimitApplied,
            BaselineRestored,
            TicketEndIgnored,
        ]
    );
}

#[test]
fn reservations_count_but_do_not_raise_the_limit_alone() {
    let ledger = ledger();
    let sum = Policy::sum(Some(500));
    let events = ledger.events(64);
    let mut weights = ledger.ticket(sum.clone(), 200, Kind::Reservation);
    assert_eq!(weights.try_start().ok(), Some(BASELINE));
    assert_eq!(ledger.snapshot().limit_bytes, None);

    let mut kv = active(&ledger, &sum, 100);
    assert_eq!(kv.try_start().ok(), Some(400));
    let too_much = active(&ledger, &sum, 101).try_start();
    assert!(matches!(too_much, Err(AdmissionError::Refused { .. })));

    kv.end();
    assert_eq!(ledger.snapshot().limit_bytes, Some(BASELINE));
    let seen = kinds(&events);
    assert_eq!(seen.last(), Some(&EventKind::BaselineRestored), "{seen:?}");
    // The baseline is that of before the reservation until that ends too.
    assert_eq!(ledger.snapshot().baseline_bytes, Some(BASELINE));
    weights.end();
    assert_eq!(ledger.snapshot().baseline_bytes, None);
}

#[test]
fn the_limit_is_the_largest_of_the_groups() {
    let ledger = ledger();
    let mut tickets = Vec::new();
    for (policy, bytes, limit) in [
        (Policy::max(), 80, 100),
        (Policy::max(), 300, 300),
        (Policy::sum(None), 150, 300),
        (Policy::sum(None), 100, 350),
        (Policy::budget(200, None, "chat"), 20, 350),
        (Policy::budget(200, None, "chat"), 40, 360),
        // Of a group the latest policy decides.
        (Policy::budget(300, None, "chat"), 0, 460),
        (Policy::fixed(1000), 1, 1000),
    ] {
        let mut ticket = active(&ledger, &policy, bytes);
        assert_eq!(ticket.try_start().ok(), Some(limit), "{policy} {bytes}");
        tickets.push(ticket);
    }
}

#[test]
fn a_limit_shrinks_only_by_much_and_not_too_often() {
    let at = |ratio: f64, cooldown: Duration| {
        let ledger = Ledger::new(LedgerOptions {
            shrink_threshold_ratio: ratio,
            shrink_cooldown: cooldown,
            ..options()
        });
        let events = ledger.events(64);
        let sum = Policy::sum(None);
        let [mut large, mut small] = [200, 100].map(|bytes| active(&ledger, &sum, bytes));
        for ticket in [&mut large, &mut small] {
            ticket.try_start().expect("room");
        }
        assert_eq!(ledger.snapshot().limit_bytes, Some(400));
        // A quarter less is 300.
        small.end();
        let after_small = ledger.snapshot().limit_bytes;
        let held = kinds(&events).contains(&EventKind::LimitHeld);
        assert_eq!(held, after_small == Some(400));
        // Without work nothing is held up.
        large.end();
        let last = kinds(&events).last().copied();
        assert_eq!(last, Some(EventKind::BaselineRestored));
        after_small
    };
    assert_eq!(at(0.25, Duration::ZERO), Some(300));
    assert_eq!(at(0.26, Duration::ZERO), Some(400));
    assert_eq!(at(0.25, Duration::from_secs(3600)), Some(400));
}

#[test]
fn a_limit_that_cannot_be_put_into_force_leaves_the_old_one() {
    let ledger = Ledger::new(LedgerOptions {
        on_limit: Some(Box::new(|limit| match limit {
            0..=200 => Ok(()),
            _ => Err("no".to_owned()),
        })),
        ..options()
    });
    let events = ledger.events(64);
    let sum = Policy::sum(None);
    let [mut a, mut b] = [100, 100].map(|bytes| active(&ledger, &sum, bytes));
    assert_eq!(a.try_start().ok(), Some(200));
    assert_eq!(b.try_start().ok(), Some(200));
    assert!(kinds(&events).contains(&EventKind::LimitApplyFailed));
    assert_eq!(ledger.snapshot().limit_bytes, Some(200));
}

#[test]
fn a_load_that_does_not_fit_is_refused_with_the_table() {
    let ledger = Ledger::new(LedgerOptions {
        baseline_bytes: Some(50 << 20),
        ..options()
    });
    let policy = Policy::sum(Some(500 << 20));
    let first = Breakdown::new().with("weights", 200 << 20);
    let kept = ledger
        .try_admit(policy.clone(), first, "smollm2:135m")
        .expect("room");
    let needed = Breakdown::new()
        .with("weights", 250 << 20)
        .with("KV cache", 1 << 20);
    let events = ledger.events(8);
    let error = ledger
        .try_admit(policy.clone(), needed.clone(), "gemma3:270m")
        .expect_err("one too many");
    assert_eq!(error.kind(), "insufficient_memory");
    assert_eq!(
        error.to_string(),
        "too little memory: 251 MB are needed, 500 MB are allowed in all, 50 MB are held by the \
         process itself, 200 MB by smollm2:135m"
    );
    let table = error.table();
    for line in ["weights        250.0 MB", "smollm2:135m"] {
        assert!(table.contains(line), "{table}");
    }
    assert_eq!(kinds(&events), [EventKind::AdmissionRefused]);
    drop(kept);
    let ticket = ledger.try_admit(policy, needed, "gemma3:270m");
    assert_eq!(ticket.expect("room now").bytes(), 251 << 20);
}

#[test]
fn what_could_never_fit_does_not_wait() {
    let ledger = ledger();
    let sum = Policy::sum(Some(200));
    let mut held = active(&ledger, &sum, 50);
    held.try_start().expect("room");
    let mut ticket = active(&ledger, &sum, 101);
    let Err(AdmissionError::Refused { refusal, .. }) = ticket.start(&Cancellation::new()) else {
        panic!("101 over 100 never fit 200");
    };
    assert!(!refusal.could_ever_fit);
    assert_eq!((refusal.needed_bytes, refusal.cap_bytes), (101, Some(200)));
    assert_eq!(ledger.snapshot().waiting, 0);
}

#[test]
fn tickets_of_a_group_start_in_the_order_they_came() {
    let ledger = ledger();
    let sum = Policy::sum(Some(200));
    let mut held = active(&ledger, &sum, 60);
    held.try_start().expect("room");
    let (told, order) = channel();
    // The large one comes first; the small one behind it would fit, and waits all the same.
    let waiting: Vec<_> = [(90, "large"), (10, "small"), (90, "last")]
        .into_iter()
        .enumerate()
        .map(|(i, (bytes, name))| {
            let (ledger, sum, told) = (ledger.clone(), sum.clone(), told.clone());
            let thread = thread::spawn(move || {
                let mut ticket = active(&ledger, &sum, bytes);
                ticket.start(&Cancellation::new()).expect("its turn");
                told.send(name).expect("heard");
                ticket
            });
            (thread, i)
        })
        .map(|(thread, i)| {
            until_waiting(&ledger, i + 1);
            thread
        })
        .collect();
    // Other groups do not wait for this one; a newcomer of it does, even where it would fit.
    let mut other = active(&ledger, &Policy::sum(Some(201)), 1);
    other.try_start().expect("another group");
    let mut newcomer = active(&ledger, &sum, 1);
    assert!(newcomer.try_start().is_err());

    held.end();
    let mut waiting = waiting.into_iter();
    let first_two: Vec<_> = waiting.by_ref().take(2).collect();
    let mut started: Vec<_> = order.iter().take(2).collect();
    started.sort_unstable();
    assert_eq!(started, ["large", "small"]);
    until_waiting(&ledger, 1);
    for thread in first_two {
        drop(thread.join().expect("no panic"));
    }
    assert_eq!(order.recv_timeout(PATIENCE), Ok("last"));
    for thread in waiting {
        drop(thread.join().expect("no panic"));
    }
    assert_eq!(ledger.snapshot().waiting, 0);
}

#[test]
fn a_wait_ends_when_it_is_cancelled_and_those_behind_it_go_on() {
    let ledger = ledger();
    let sum = Policy::sum(Some(200));
    let mut held = active(&ledger, &sum, 60);
    held.try_start().expect("room");
    let events = ledger.events(64);
    let asked = Arc::new(AtomicU64::new(0));
    let question = Arc::clone(&asked);
    let rung = Cancellation::new();
    let polled = Cancellation::when(move || question.load(Ordering::SeqCst) == 1);
    for (cancel, stop) in [
        (rung.clone(), Box::new(|| rung.cancel()) as Box<dyn Fn()>),
        (polled, Box::new(|| asked.store(1, Ordering::SeqCst))),
    ] {
        let wait = |bytes, cancel: Cancellation| {
            let (ledger, sum) = (ledger.clone(), sum.clone());
            thread::spawn(move || active(&ledger, &sum, bytes).start(&cancel))
        };
        let large = wait(90, cancel);
        until_waiting(&ledger, 1);
        let small = wait(30, Cancellation::new());
        until_waiting(&ledger, 2);
        stop();
        let result = large.join().expect("no panic");
        assert_eq!(result, Err(AdmissionError::Cancelled));
        assert_eq!(small.join().expect("no panic"), Ok(190));
    }
    assert!(kinds(&events).contains(&EventKind::AdmissionCancelled));
    // One that is cancelled already does not wait, but takes what there is.
    assert_eq!(
        active(&ledger, &sum, 90).start(&rung),
        Err(AdmissionError::Cancelled)
    );
    assert!(active(&ledger, &sum, 10).start(&rung).is_ok());
}

#[test]
fn nobody_who_watches_holds_up_the_ledger() {
    let ledger = ledger();
    let (slow, gone) = (ledger.events(2), ledger.events(8));
    drop(gone);
    let mut ticket = active(&ledger, &Policy::max(), 1);
    for _ in 0..10 {
        ticket.try_start().expect("always");
        ticket.end();
    }
    let first: Vec<u64> = std::iter::from_fn(|| slow.try_next())
        .map(|event| event.sequence)
        .collect();
    assert_eq!(first, [1, 2]);
    assert!(slow.dropped() > 10);
    // A gap in the numbers shows that something is missing.
    ticket.try_start().expect("always");
    let next = slow.next_within(PATIENCE).expect("an event");
    assert!(next.sequence > 3);
    let json = serde_json::to_value(&next).expect("JSON");
    assert_eq!(json["kind"], "baseline_captured");
}

#[test]
fn threads_never_hold_more_than_the_cap_and_all_have_their_turn() {
    const CAP: u64 = 1000;
    let ledger = ledger();
    let held = AtomicU64::new(0);
    let rounds = AtomicU64::new(0);
    thread::scope(|scope| {
        for seed in 1..=8_u64 {
            let (ledger, held, rounds) = (&ledger, &held, &rounds);
            scope.spawn(move || {
                for round in 0..50 {
                    let bytes = 1 + (seed * 7919 + round * 104_729) % 900;
                    let mut ticket = active(ledger, &Policy::sum(Some(CAP)), bytes);
                    ticket.start(&Cancellation::new()).expect("its turn");
                    let now = held.fetch_add(bytes, Ordering::SeqCst) + bytes;
                    assert!(BASELINE + now <= CAP, "{now}");
                    thread::yield_now();
                    held.fetch_sub(bytes, Ordering::SeqCst);
                    drop(ticket);
                    rounds.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
    assert_eq!(rounds.load(Ordering::SeqCst), 400);
    let snapshot = ledger.snapshot();
    assert_eq!((snapshot.waiting, snapshot.limit_bytes), (0, None));
}

/// What a random run does.
#[derive(Clone, Debug)]
enum Step {
    Start {
        policy: usize,
        bytes: u64,
        kind: Kind,
    },
    End(usize),
}

fn policies() -> [Policy; 5] {
    [
        Policy::sum(Some(700)),
        Policy::sum(None),
        Policy::max(),
        Policy::fixed(333),
        Policy::budget(50, Some(800), "chat"),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..5_usize, 0..600_u64, any::<bool>()).prop_map(|(policy, bytes, active)| {
            let kind = if active { Kind::Active } else { Kind::Reservation };
            Step::Start { policy, bytes, kind }
        }),
        2 => any::<prop::sample::Index>().prop_map(|at| Step::End(at.index(16))),
    ]
}

proptest! {
    /// The books agree with those of a model that knows nothing of queues and hysteresis.
    #[test]
    fn limits_follow_from_the_tickets(steps in prop::collection::vec(step(), 1..60)) {
        let ledger = Ledger::new(LedgerOptions { shrink_threshold_ratio: 0.0, ..options() });
        let lent = options().lent_bytes;
        let mut tickets: Vec<(usize, Ticket)> = Vec::new();
        for step in steps {
            match step {
                Step::Start { policy: at, bytes, kind } => {
                    let policy = policies()[at].clone();
                    let same = tickets.iter().filter(|(other, _)| *other == at);
                    let sizes: Vec<u64> = same.map(|(_, ticket)| ticket.bytes()).collect();
                    let fits = policy.admits(BASELINE, lent, &sizes, bytes);
                    let mut ticket = ledger.ticket(policy, bytes, kind);
                    prop_assert_eq!(ticket.try_start().is_ok(), fits);
                    if fits {
                        tickets.push((at, ticket));
                    }
                }
                Step::End(at) if at < tickets.len() => drop(tickets.remove(at)),
                Step::End(_) => {}
            }
            let works = tickets.iter().any(|(_, ticket)| ticket.entry.kind == Kind::Active);
            let limits = policies().into_iter().enumerate().filter_map(|(at, policy)| {
                let same = tickets.iter().filter(|(other, _)| *other == at);
                let sizes: Vec<u64> = same.map(|(_, ticket)| ticket.bytes()).collect();
                (!sizes.is_empty()).then(|| policy.limit(BASELINE, lent, &sizes))
            });
            let want = limits.max().filter(|_| works).unwrap_or(BASELINE);
            let snapshot = ledger.snapshot();
            prop_assert_eq!(snapshot.limit_bytes.unwrap_or(BASELINE), want);
            prop_assert_eq!(snapshot.holders.len(), tickets.len());
            prop_assert_eq!(snapshot.baseline_bytes.is_some(), !tickets.is_empty());
        }
    }
}
