//! The pool on real threads; `models` tries every order of events.

use std::thread;
use std::time::Duration;

use super::*;

#[test]
fn every_item_is_computed_once() {
    for threads in 1..=4 {
        let mut pool = Pool::new(threads).unwrap();
        assert_eq!(pool.threads(), threads);
        for (round, items) in (0..1000).zip([0, 1, 2, 7, 100, 1001].into_iter().cycle()) {
            if round % 100 == 99 {
                thread::sleep(Duration::from_millis(5)); // long enough for workers to park
            }
            let hits: Vec<AtomicUsize> = (0..items).map(|_| AtomicUsize::new(0)).collect();
            pool.run(items, 1 + round % 3, |thread, range| {
                assert!(thread < threads);
                for hit in &hits[range] {
                    hit.fetch_add(1, Ordering::Relaxed);
                }
            });
            assert!(
                hits.iter().all(|hit| hit.load(Ordering::Relaxed) == 1),
                "{items} items"
            );
        }
    }
}

#[test]
fn a_thread_number_is_never_used_twice_at_once() {
    let mut pool = Pool::new(3).unwrap();
    let busy: [AtomicBool; 3] = Default::default();
    for _ in 0..200 {
        pool.run(64, 1, |thread, _| {
            assert!(!busy[thread].swap(true, Ordering::SeqCst));
            spin_loop();
            busy[thread].store(false, Ordering::SeqCst);
        });
    }
}

#[test]
fn little_work_stays_with_the_caller() {
    let mut pool = Pool::new(4).unwrap();
    let caller = thread::current().id();
    pool.run(10, 10, |thread, range| {
        assert_eq!((thread, range, thread::current().id()), (0, 0..10, caller));
    });
}

#[test]
fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
    let mut pool = Pool::new(2).unwrap();
    for culprit in [0, 50, 99] {
        let result = catch_unwind(AssertUnwindSafe(|| {
            pool.run(100, 1, |_, range| {
                assert!(!range.contains(&culprit), "on purpose");
            });
        }));
        assert!(result.is_err());
    }
    let count = AtomicUsize::new(0);
    pool.run(100, 1, |_, range| {
        count.fetch_add(range.len(), Ordering::Relaxed);
    });
    assert_eq!(count.load(Ordering::Relaxed), 100);
}
