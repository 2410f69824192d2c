//! Wherever the arena (weights, KV pages, states, workspace) is refused its memory: an error that
//! says so, nothing lost, and the next load works.
//!
//! The arena asks for zeroed bytes, aligned to 8, and 64 more than it needs, to align them itself.
//! That tells it from zeroed vectors of floats and of numbers up to 32 bits; vectors of larger
//! numbers that begin as zeros look the same, but cannot be refused without an abort, so that this
//! test would not pass if a load made one.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod families;

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread::sleep;
use std::time::{Duration, Instant};

use families::Family;
use tercel::{Engine, EngineBuilder, KvType, Request};

/// How many refusals are tried at least, over all models.
const REFUSALS: usize = 500;

#[test]
fn a_refused_allocation_is_an_error_and_the_next_load_works() {
    let plain: fn(EngineBuilder) -> EngineBuilder = |builder| builder;
    let mut refusals = 0;
    for (name, settings) in [
        ("llama", plain),
        ("llama-head64", |builder| builder.quantize("q8_0")),
        ("gemma3", |builder| builder.kv_type(KvType::Q8_0)),
        ("mistral-window", plain),
        ("qwen3_5", plain),
        ("qwen3_5-mlx-4bit", |builder| builder.threads(1)),
        ("qwen3_moe", plain),
        ("qwen3_moe-mlx-4bit", plain),
    ] {
        let family = Family::open(name);
        let n = refuse_each(name, || settings(family.builder().threads(2)), &family);
        println!("{name}: {n}");
        refusals += n;
    }
    assert!(refusals >= REFUSALS, "{refusals}");
}

/// Loads a model again and again, with the first, the second, and at last every allocation of the
/// arena refused, and asks one that loads; gives how many allocations there are.
fn refuse_each(name: &str, builder: impl Fn() -> EngineBuilder, family: &Family) -> usize {
    let load = || builder().load();
    // The first time, what stays for ever is made: tables, buffers of the standard library. One of
    // those is made by a thread that waits for a channel, which a load does only now and then.
    let (_open, empty) = channel::<()>();
    assert!(empty.recv_timeout(Duration::from_millis(1)).is_err());
    let want = replies(family, &load().unwrap());
    assert_eq!(replies(family, &load().unwrap()), want, "{name}");
    let before = settled();
    for n in 0.. {
        refuse_after(n);
        let loaded = load();
        let Some(bytes) = refused() else {
            // All of the arena is there now: replies ask for no more.
            refuse_after(0);
            assert_eq!(replies(family, &loaded.unwrap()), want, "{name}");
            assert_eq!(refused(), None, "{name}: the arena grew");
            refuse_after(NONE);
            return n;
        };
        let error = loaded.expect_err(name);
        assert_eq!(error.kind(), "out_of_memory", "{name}, {n}: {error}");
        let message = error.to_string();
        let parts = ["weights", "the KV cache", "the workspace"];
        assert!(
            message.contains(&format!("{bytes} bytes for"))
                && parts.iter().any(|part| message.contains(part)),
            "{name}, {n}, {bytes} bytes: {message}"
        );
        drop((error, message));
        let held = held_beyond(before);
        assert_eq!(held, 0, "{name}: bytes left after refusal {n}");
        assert_eq!(replies(family, &load().unwrap()), want, "{name}, {n}");
    }
    unreachable!()
}

/// The bytes in use, once they have not changed for a while: the thread that builds a tokenizer ends
/// by itself, after a load that was refused and shortly after one that was not.
fn settled() -> isize {
    let mut bytes = LIVE.load(Ordering::SeqCst);
    let mut since = Instant::now();
    while since.elapsed() < Duration::from_millis(10) {
        sleep(Duration::from_millis(1));
        let now = LIVE.load(Ordering::SeqCst);
        if now != bytes {
            (bytes, since) = (now, Instant::now());
        }
    }
    bytes
}

/// The bytes in use beyond these, with time for that thread to end.
fn held_beyond(before: isize) -> isize {
    let start = Instant::now();
    loop {
        let held = LIVE.load(Ordering::SeqCst) - before;
        if held == 0 || start.elapsed() > Duration::from_secs(10) {
            return held;
        }
        sleep(Duration::from_millis(1));
    }
}

/// Two prompts that begin alike, and what comes after them.
fn replies(family: &Family, engine: &Engine) -> Vec<u32> {
    let reply = |n| {
        let request = Request::tokens(family.tokens(1, n))
            .temperature(0.0)
            .max_new_tokens(8)
            .ignore_eos(true);
        engine.generate(request).unwrap().tokens
    };
    [reply(40), reply(45)].concat()
}

#[global_allocator]
static ALLOCATOR: Refusing = Refusing;

/// What the arena adds to its bytes.
const PADDING: usize = 64;
/// No allocation, or none left to refuse.
const NONE: usize = usize::MAX;

/// Bytes in use.
static LIVE: AtomicIsize = AtomicIsize::new(0);
/// How many allocations of the arena pass before one is refused.
static PASSING: AtomicUsize = AtomicUsize::new(NONE);
/// The bytes of the one that was refused.
static REFUSED: AtomicUsize = AtomicUsize::new(NONE);

/// Has one allocation of the arena refused, after `n` that are not; none, with [`NONE`].
fn refuse_after(n: usize) {
    REFUSED.store(NONE, Ordering::SeqCst);
    PASSING.store(n, Ordering::SeqCst);
}

/// The bytes that were refused.
fn refused() -> Option<usize> {
    let bytes = REFUSED.load(Ordering::SeqCst);
    (bytes != NONE).then_some(bytes)
}

/// The system's allocator, which may refuse one allocation of the arena.
struct Refusing;

impl Refusing {
    fn is_refused(layout: Layout) -> bool {
        if layout.align() != 8 || layout.size() <= PADDING {
            return false;
        }
        let left = PASSING.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| match left {
            NONE => None,
            0 => Some(NONE),
            left => Some(left - 1),
        });
        if left != Ok(0) {
            return false;
        }
        REFUSED.store(layout.size() - PADDING, Ordering::SeqCst);
        true
    }
}

// SAFETY: every call goes unchanged to the system's allocator, or is refused, and the counters are
// atomics, which neither allocate nor panic.
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
