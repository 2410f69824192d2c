//! The pool in every order of events. `cargo xtask loom` runs them.
//!
//! Threads that loom never lets run, or that wait for each other, fail a model; so does an access
//! to a cell that another thread may be using.

use std::panic::resume_unwind;

use super::*;

/// One cell per item, which only one call of a job may touch, and which the caller may read after.
struct Items(Vec<UnsafeCell<usize>>);

// SAFETY: loom fails the test when two threads touch a cell without order between them.
unsafe impl Sync for Items {}

impl Items {
    fn new(n: usize) -> Self {
        Self((0..n).map(|_| UnsafeCell::new(0)).collect())
    }

    fn hit(&self, range: Range<usize>) {
        for cell in &self.0[range] {
            // SAFETY: each item is in one range, and loom checks it.
            cell.with_mut(|cell| unsafe { *cell += 1 });
        }
    }

    fn hits(&self) -> Vec<usize> {
        // SAFETY: no job runs, and loom checks it.
        let hits = |cell: &UnsafeCell<usize>| cell.with(|cell| unsafe { *cell });
        self.0.iter().map(hits).collect()
    }
}

#[test]
fn every_item_is_computed_once_and_its_result_is_seen() {
    loom::model(|| {
        let mut pool = Pool::new(2).unwrap();
        let items = Items::new(3);
        for round in 1..=2 {
            pool.run(3, 1, |_, range| items.hit(range));
            assert_eq!(items.hits(), [round; 3]);
        }
    });
}

#[test]
fn two_workers_share_a_region() {
    let mut model = loom::model::Builder::new();
    // Orders of three threads are too many to try all.
    model.preemption_bound = Some(1);
    model.max_branches = 10_000;
    model.check(|| {
        let mut pool = Pool::new(3).unwrap();
        let items = Items::new(3);
        pool.run(3, 1, |_, range| items.hit(range));
        assert_eq!(items.hits(), [1; 3]);
    });
}

#[test]
fn a_thread_number_is_never_used_twice_at_once() {
    loom::model(|| {
        let mut pool = Pool::new(2).unwrap();
        let scratch = Items::new(2);
        pool.run(3, 1, |thread, _| scratch.hit(thread..thread + 1));
        assert_eq!(scratch.hits().iter().sum::<usize>(), 3);
    });
}

#[test]
fn a_worker_that_is_about_to_park_hears_of_a_region() {
    loom::model(|| {
        let mut pool = Pool::new(2).unwrap();
        for _ in 0..2 {
            // Neither piece ends before the other has begun, so the caller alone cannot do both.
            let begun = AtomicUsize::new(0);
            pool.run(2, 1, |_, _| {
                begun.fetch_add(1, Ordering::AcqRel);
                while begun.load(Ordering::Acquire) < 2 {
                    yield_now();
                }
            });
        }
    });
}

#[test]
fn a_pool_ends_whatever_its_workers_are_doing() {
    loom::model(|| drop(Pool::new(3).unwrap()));
}

#[test]
fn a_panic_ends_its_own_piece_only() {
    loom::model(|| {
        let mut pool = Pool::new(2).unwrap();
        let items = Items::new(2);
        let region = AssertUnwindSafe(|| {
            pool.run(2, 1, |_, range| {
                items.hit(range.clone());
                if range.contains(&0) {
                    resume_unwind(Box::new("on purpose"));
                }
            });
        });
        assert!(catch_unwind(region).is_err());
        // A thread that panicked takes no other piece; those begun have ended.
        assert_eq!(items.hits()[0], 1);
        let items = Items::new(2);
        pool.run(2, 1, |_, range| items.hit(range));
        assert_eq!(items.hits(), [1; 2]);
    });
}
