//! A reply that is under way takes nothing from the heap but its text.
//!
//! What the engine's threads allocate for a short and for a long reply to the same prompt is
//! counted; the difference is that of the tokens in between. What the assembly of their text takes
//! is counted beside it, and the rest must not grow with the tokens.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod families;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use families::Family;
use tercel::{Engine, Reply, Request};
use tercel_text::{PromptEnd, ReplyStream};

/// Tokens of the two replies.
const SHORT: usize = 64;
const LONG: usize = 192;
/// Full attention, a window, both, quantized weights, recurrent layers, experts.
const FAMILIES: [&str; 6] = [
    "llama",
    "mistral-window",
    "gemma3",
    "qwen3-mlx-4bit",
    "qwen3_5",
    "qwen3_moe",
];
/// What does not recur: the text of the whole reply doubles its room now and then, and an unfinished
/// character may be left at the end. Less than a sixteenth of an allocation for each token.
const GROWTH: usize = 8;

#[test]
fn steady_decoding_allocates_nothing_but_text() {
    IS_ENGINE.set(false);
    for name in FAMILIES {
        let family = Family::open(name);
        let engine = family.builder().threads(2).load().unwrap();
        for crowd in [1, 4] {
            for (temperature, bias) in [(0.0, None), (0.8, None), (0.8, Some((3, 1.5)))] {
                let requests: Vec<_> = (0..crowd)
                    .map(|seed| {
                        Request::tokens(family.tokens(seed, 20))
                            .seed(seed)
                            .temperature(temperature)
                            .logit_bias(bias.into_iter().collect())
                            .ignore_eos(true)
                    })
                    .collect();
                let what =
                    format!("{name}, {crowd} at once, temperature {temperature}, bias {bias:?}");
                check(&engine, &requests, &what);
            }
        }
    }
}

fn check(engine: &Engine, requests: &[Request], what: &str) {
    // The first time, buffers find their size.
    replies(engine, requests, LONG);
    let (_, short) = replies(engine, requests, SHORT);
    let (replies, long) = replies(engine, requests, LONG);
    let text: usize = replies.iter().map(|reply| text(engine, reply)).sum();
    assert!(text > 0, "{what}: nothing was counted");
    let most = short + text + GROWTH * requests.len();
    assert!(
        long <= most,
        "{what}: {short} allocations for {SHORT} tokens, {long} for {LONG}, {text} of them for text"
    );
}

/// The replies to requests that are made at once, and what the engine allocated for them.
fn replies(engine: &Engine, requests: &[Request], tokens: usize) -> (Vec<Reply>, usize) {
    engine.clear_prefixes().unwrap();
    let before = BY_ENGINE.load(Ordering::SeqCst);
    let replies: Vec<Reply> = thread::scope(|scope| {
        let ask = |request: &Request| {
            let request = request.clone().max_new_tokens(tokens);
            scope.spawn(|| {
                IS_ENGINE.set(false);
                engine.generate(request).unwrap()
            })
        };
        let asked: Vec<_> = requests.iter().map(ask).collect();
        asked.into_iter().map(|it| it.join().unwrap()).collect()
    });
    for reply in &replies {
        assert_eq!(reply.tokens.len(), tokens);
    }
    (replies, BY_ENGINE.load(Ordering::SeqCst) - before)
}

/// What the assembly of a reply's text allocates for the tokens after the first `SHORT`.
fn text(engine: &Engine, reply: &Reply) -> usize {
    let mut stream = ReplyStream::new(engine.think_tags(), PromptEnd::Plain, &[]);
    let mut before = 0;
    for (i, token) in reply.tokens.iter().enumerate() {
        if i == SHORT {
            before = BY_TEST.get();
        }
        stream.push(engine.tokenizer(), *token);
    }
    BY_TEST.get() - before
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations by all threads that are not the test's.
static BY_ENGINE: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static IS_ENGINE: Cell<bool> = const { Cell::new(true) };
    static BY_TEST: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, with a count of what it is asked for.
struct Counting;

// SAFETY: every call goes unchanged to the system's allocator, and the counters, an atomic and
// constant thread-local cells of plain values, neither allocate nor panic.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if IS_ENGINE.get() {
            BY_ENGINE.fetch_add(1, Ordering::Relaxed);
        } else {
            BY_TEST.set(BY_TEST.get() + 1);
        }
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}
