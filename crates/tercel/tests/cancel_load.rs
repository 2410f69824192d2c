//! A load that is given up ends at once, wherever it is.
//!
//! `cargo xtask test` pulls the models and names their files in the environment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tercel::Engine;

const STEP: Duration = Duration::from_millis(20);
/// What a user takes for at once. Other tests take the processor away, so it is what half of the
/// attempts must keep to.
const AT_ONCE: Duration = Duration::from_millis(100);

fn file(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        let problem = "is not set: run the tests by `cargo xtask test`";
        unreachable!("{variable} {problem}")
    })
}

#[test]
fn a_cancelled_load_ends_at_once() {
    for variable in ["TERCEL_TEST_SMOLLM2", "TERCEL_TEST_GEMMA3"] {
        let mut waits = Vec::new();
        for attempt in 0..100 {
            let cancelled = Arc::new(AtomicBool::new(false));
            let flag = Arc::clone(&cancelled);
            let loading = thread::spawn(move || {
                let loaded = Engine::builder(file(variable))
                    .max_context(512)
                    .offline(true)
                    .cancel_when(move || flag.load(Ordering::Acquire))
                    .load();
                (loaded, Instant::now())
            });
            thread::sleep(STEP * attempt);
            cancelled.store(true, Ordering::Release);
            let asked = Instant::now();
            let (loaded, ended) = loading.join().expect("no panic");
            match loaded {
                Err(error) => {
                    assert_eq!(error.kind(), "cancelled", "{error}");
                    waits.push(ended.saturating_duration_since(asked));
                }
                // It was done before it was cancelled.
                Ok(_) => break,
            }
        }
        waits.sort();
        println!("{variable}: {waits:?}");
        assert!(waits[waits.len() / 2] < AT_ONCE, "{variable}: {waits:?}");
        assert!(
            waits[waits.len() - 1] < 5 * AT_ONCE,
            "{variable}: {waits:?}"
        );
    }
}
