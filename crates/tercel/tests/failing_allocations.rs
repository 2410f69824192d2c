//! Wherever the arena (weights, KV pages, states, workspace) is refused its memory: an error that
//! says so, nothing lost, and the next load works.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod families;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicIsize, Ordering};

use families::Family;
use tercel::{Engine, EngineBuilder, Error, Request};

/// How many refusals are tried at least, over all models.
const REFUSALS: usize = 500;

#[test]
fn a_refused_allocation_is_an_error_and_the_next_load_works() {
    let mut refusals = 0;
    for name in Family::names() {
        let family = Family::open(&name);
        refusals += refuse_each(&name, &family, || family.builder().threads(2));
    }
    println!("{refusals} allocations of the arena were refused");
    assert!(refusals >= REFUSALS, "{refusals}");
}

/// Loads a model and asks it twice, again and again, with the first, the second, and every
/// allocation refused; gives how many there are.
fn refuse_each(name: &str, family: &Family, builder: impl Fn() -> EngineBuilder) -> usize {
    // The first time, what stays for ever is made: tables, buffers of the standard library.
    let want = run(family, builder().load()).unwrap();
    assert_eq!(run(family, builder().load()).unwrap(), want, "{name}");
    let before = LIVE.load(Ordering::SeqCst);
    for n in 0.. {
        REFUSED.set(None);
        REFUSE_IN.set(Some(n));
        let result = run(family, builder().load());
        REFUSE_IN.set(None);
        let Some(bytes) = REFUSED.get() else {
            assert_eq!(result.unwrap(), want, "{name}: nothing was refused");
            return n;
        };
        let error = result.expect_err(name);
        assert_eq!(error.kind(), "out_of_memory", "{name}, {n}: {error}");
        let message = error.to_string();
        assert!(
            message.contains(&bytes.to_string()),
            "{name}, {n}, {bytes}: {message}"
        );
        drop((error, message));
        let held = LIVE.load(Ordering::SeqCst) - before;
        assert_eq!(held, 0, "{name}: bytes left after refusal {n}");
        assert_eq!(run(family, builder().load()).unwrap(), want, "{name}, {n}");
    }
    unreachable!()
}

/// The replies to two prompts that begin alike.
fn run(family: &Family, engine: Result<Engine, Error>) -> Result<Vec<u32>, Error> {
    let engine = engine?;
    let mut tokens = Vec::new();
    for n in [40, 45] {
        let request = Request::tokens(family.tokens(1, n))
            .temperature(0.0)
            .max_new_tokens(8)
            .ignore_eos(true);
        tokens.extend(engine.generate(request)?.tokens);
    }
    Ok(tokens)
}

#[global_allocator]
static ALLOCATOR: Refusing = Refusing;

/// Bytes in use, of all threads.
static LIVE: AtomicIsize = AtomicIsize::new(0);

thread_local! {
    /// How many allocations of the arena pass before one is refused.
    static REFUSE_IN: Cell<Option<usize>> = const { Cell::new(None) };
    /// The numbers' bytes of the one that was refused.
    static REFUSED: Cell<Option<usize>> = const { Cell::new(None) };
}

/// The system's allocator, which may refuse one allocation of the arena.
struct Refusing;

impl Refusing {
    fn is_refused(layout: Layout) -> bool {
        if layout.align() != 8 || layout.size() <= 64 {
            return false;
        }
        if std::env::var_os("TRACE").is_some()
            && let Some(n) = REFUSE_IN.get()
            && n == usize::MAX
        {
            REFUSE_IN.set(None);
            eprintln!(
                "ARENA {layout:?}\n{}",
                std::backtrace::Backtrace::force_capture()
            );
            REFUSE_IN.set(Some(n));
        }
        match REFUSE_IN.get() {
            Some(0) => {
                REFUSE_IN.set(None);
                REFUSED.set(Some(layout.size() - 64));
                true
            }
            left => {
                REFUSE_IN.set(left.map(|left| left - 1));
                false
            }
        }
    }
}

// SAFETY: every call goes unchanged to the system's allocator, or is refused, and the counters,
// an atomic and constant thread-local cells of plain integers, neither allocate nor panic.
unsafe impl GlobalAlloc for Refusing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if Self::is_refused(layout) {
            return null_mut();
        }
        LIVE.fetch_add(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}
