//! One seed, one text: what else the engine does changes no reply, for every family of models.
//!
//! `TERCEL_TEST_REQUESTS` sets how many requests each family gets.

mod families;
#[path = "families/names.rs"]
mod names;

use std::fs;
use std::process::Command;
use std::thread;

use families::Family;
use tercel::{CacheMiss, Engine, EngineBuilder, PrefixCache, Request, Stream, Workers};

/// Requests at work together.
const CROWD: usize = 8;

/// The family that another process is to ask, a saved state for it, and what it says of itself.
const CHILD: &str = "TERCEL_TEST_RESTARTED";
const CHILD_STATE: &str = "TERCEL_TEST_RESTARTED_STATE";
const ANSWER: &str = "token ids: ";

fn requests(family: &Family) -> Vec<Request> {
    let n = std::env::var("TERCEL_TEST_REQUESTS");
    let n = n.map_or(16, |n| n.parse().expect("a number"));
    let shared = family.tokens(1, 200);
    (0..n)
        .map(|i| {
            // Beginnings of many lengths that others share, and an end that they do not. Some repeat
            // themselves, so that guesses are right.
            let seed = 10 + i as u64;
            let mut tokens = shared[..[0, 40, 64, 150, 200][i % 5]].to_vec();
            let own = family.tokens(seed, 1 + i * 7 % 60);
            tokens.extend(own.repeat(1 + i % 3));
            Request::tokens(tokens)
                .seed(seed)
                .temperature([0.0, 0.7, 1.2][i % 3])
                .max_new_tokens(8 + i * 5 % 25)
                .ignore_eos(true)
        })
        .collect()
}

/// The replies of requests that are made `at_once` at a time.
fn replies(engine: &Engine, requests: &[Request], at_once: usize) -> Vec<Vec<u32>> {
    let crowds = requests.chunks(at_once).flat_map(|crowd| {
        let start = |request: &Request| engine.stream(request.clone()).expect("accepted");
        let streams: Vec<Stream> = crowd.iter().map(start).collect();
        let wait = |stream: Stream| stream.wait().expect("a reply").tokens;
        streams.into_iter().map(wait).collect::<Vec<_>>()
    });
    crowds.collect()
}

#[test]
fn one_seed_one_text_alone_and_in_a_crowd() {
    for name in names::names() {
        let family = Family::open(&name);
        let requests = requests(&family);
        let without = PrefixCache {
            enabled: false,
            ..PrefixCache::default()
        };
        let plain =
            |builder: EngineBuilder| builder.prefix_cache(without.clone()).speculation(false);
        let load = |builder: EngineBuilder| builder.load().expect("a model");
        let builder = || family.builder().max_sequences(CROWD);
        let want = replies(
            &load(plain(builder().threads(1).prefill_chunk(512))),
            &requests,
            1,
        );
        let check = |engine: &Engine, at_once, what: &str| {
            let got = replies(engine, &requests, at_once);
            for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                assert_eq!(got, want, "{name}: {what}, request {i}");
            }
        };
        for (threads, chunk) in [(1, 1), (2, 16), (1, 64), (2, 512)] {
            let what = |how: &str| format!("{how}, {threads} threads, chunks of {chunk}");
            let engine = load(builder().threads(threads).prefill_chunk(chunk));
            check(&engine, CROWD, &what("in a crowd"));
            check(&engine, 3, &what("from the cache"));
            check(&engine, 1, &what("alone, from the cache"));
        }
        check(
            &load(plain(builder().threads(2).prefill_chunk(16))),
            CROWD,
            "plain, in a crowd",
        );
    }
}

#[test]
fn one_seed_one_text_before_and_after_a_restart() {
    // Full attention, a sliding window with full attention, and recurrent layers.
    for name in ["llama", "gemma3", "qwen3_5"] {
        let family = Family::open(name);
        let engine = family.builder().threads(1).load().expect("a model");
        let want = replies(&engine, &requests_of_a_restart(&family), 1);
        let shared = family.tokens(1, 512);
        engine
            .generate(Request::tokens(shared.clone()).max_new_tokens(1))
            .expect("a reply");
        let state = engine.export_state(&shared).expect("running");
        let place = tempfile::tempdir().expect("a folder");
        let file = place.path().join("state");
        fs::write(&file, state.expect("it is kept")).expect("written");
        let child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "child", "--nocapture", "--test-threads=1"])
            .env(CHILD, name)
            .env(CHILD_STATE, &file)
            .output()
            .expect("another process");
        let said = String::from_utf8_lossy(&child.stdout);
        let answer = said.lines().find_map(|line| line.split_once(ANSWER));
        let (_, answer) = answer.unwrap_or_else(|| panic!("{child:?}"));
        let got: Vec<Vec<u32>> = serde_json::from_str(answer).expect("token ids");
        assert_eq!(got, want, "{name}");
    }
}

/// Greedy and sampled ones, two of which go on from what is saved.
fn requests_of_a_restart(family: &Family) -> Vec<Request> {
    let saved = family.tokens(1, 512);
    let go_on = (0..2).map(|i| {
        let tokens = [saved.clone(), family.tokens(2 + i, 30)].concat();
        Request::tokens(tokens)
            .seed(i)
            .temperature([0.0, 0.9][i as usize])
            .max_new_tokens(20)
            .ignore_eos(true)
    });
    go_on.chain(requests(family).into_iter().take(3)).collect()
}

/// No test of its own: the process after a restart, which tells its replies. What was saved before
/// must be of use to them.
#[test]
fn child() {
    let Ok(name) = std::env::var(CHILD) else {
        return;
    };
    let family = Family::open(&name);
    let builder = family.builder().threads(2).prefill_chunk(16);
    let engine = builder.max_sequences(CROWD).load().expect("a model");
    let state = fs::read(std::env::var_os(CHILD_STATE).expect("set as well")).expect("a file");
    let taken = engine.import_state(&family.tokens(1, 512), &state);
    assert!(taken.expect("the same model") > 0);
    let replies = replies(&engine, &requests_of_a_restart(&family), CROWD);
    assert!(engine.kv_usage().expect("running").reused_tokens > 0);
    println!("\n{ANSWER}{}", serde_json::json!(replies));
}

#[test]
fn a_prompt_that_shares_its_beginning_computes_its_end_alone() {
    // Full attention, a sliding window, both, and recurrent layers.
    for name in ["llama", "mistral-window", "gemma3", "qwen3_5"] {
        let family = Family::open(name);
        let shared = family.tokens(1, 512);
        let request = |seed, n| {
            let tokens = [shared.clone(), family.tokens(seed, n)].concat();
            Request::tokens(tokens)
                .temperature(0.0)
                .max_new_tokens(20)
                .ignore_eos(true)
        };
        let cold = family.builder().load().expect("a model");
        let want = cold.generate(request(3, 40)).expect("a reply");
        assert_eq!(want.usage.cached_tokens, 0, "{name}");
        assert_eq!(want.usage.cache_miss, Some(CacheMiss::NotCached), "{name}");
        let engine = family.builder().load().expect("a model");
        engine.generate(request(2, 33)).expect("a reply");
        let before = engine.kv_usage().expect("running");
        let reply = engine.generate(request(3, 40)).expect("a reply");
        assert_eq!(reply.tokens, want.tokens, "{name}");
        assert_eq!(reply.usage.cached_tokens, 512, "{name}");
        assert_eq!(reply.usage.cache_miss, None, "{name}");
        let after = engine.kv_usage().expect("running");
        assert_eq!(after.reused_tokens - before.reused_tokens, 512, "{name}");
        let taken = after.allocated_pages - before.allocated_pages;
        let kinds = engine.info().memory.kv.len() as u64;
        // 60 tokens lie in two pages, of each kind of layers.
        assert_eq!(taken, 2 * kinds, "{name}: only its end takes pages");
        engine.clear_prefixes().expect("running");
        let reply = engine.generate(request(3, 40)).expect("a reply");
        assert_eq!(
            (reply.usage.cached_tokens, &reply.tokens),
            (0, &want.tokens),
            "{name}"
        );
    }
}

#[test]
fn cancelled_requests_leave_nothing_behind() {
    for name in ["llama", "gemma3", "qwen3_5"] {
        let family = Family::open(name);
        let engine = family
            .builder()
            .max_sequences(4)
            .queue_capacity(512)
            .prefill_chunk(32)
            .load()
            .expect("a model");
        let probe = || {
            Request::tokens(family.tokens(7, 90))
                .seed(1)
                .max_new_tokens(20)
                .ignore_eos(true)
        };
        let want = engine.generate(probe()).expect("a reply").tokens;
        engine.clear_prefixes().expect("running");
        let baseline = engine.kv_usage().expect("running");
        assert_eq!(baseline.free_pages, baseline.pages, "{name}");
        let mut state = 12345_u64;
        let mut random = |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % below
        };
        for round in 0..500 {
            let request = Request::tokens(family.tokens(random(5), 1 + random(400) as usize))
                .seed(round)
                .max_new_tokens(1 + random(200) as usize)
                .ignore_eos(true);
            let mut stream = engine.stream(request).expect("accepted");
            // In the queue, in the prompt, or in the reply; by a call or by leaving.
            for _ in 0..random(6).saturating_sub(2) {
                stream.next();
            }
            if random(2) == 0 {
                stream.cancel();
                assert!(stream.all(|event| event.is_ok()), "{name}");
            }
        }
        let reply = engine.generate(probe()).expect("a reply");
        assert_eq!(reply.tokens, want, "{name}");
        engine.clear_prefixes().expect("running");
        let usage = engine.kv_usage().expect("running");
        assert_eq!(
            (usage.sequences, usage.free_pages),
            (0, usage.pages),
            "{name}"
        );
        assert_eq!(usage.failures, 0, "{name}");
    }
}

#[test]
fn a_draft_model_changes_no_reply() {
    // A model that guesses for itself, one that knows nothing of the other, and windows that tokens
    // are taken back from.
    let pairs = [
        ("llama", "llama"),
        ("llama", "gemma3"),
        ("gemma3", "llama"),
        ("mistral-window", "mistral-window"),
    ];
    for (name, guesser) in pairs {
        let (family, guesser) = (Family::open(name), Family::open(guesser));
        let request = |i: usize| {
            Request::tokens(family.tokens(i as u64, 20 + 90 * i))
                .seed(i as u64)
                .temperature([0.0, 1.0][i % 2])
                .max_new_tokens(160)
                .ignore_eos(true)
        };
        let all: Vec<Request> = (0..6).map(request).collect();
        let builder = || family.builder().max_sequences(CROWD);
        let plain = builder().speculation(false).load().expect("a model");
        let want = replies(&plain, &all, 1);
        let engine = builder().draft(guesser.path()).load().expect("a model");
        assert!(engine.info().memory.draft_bytes > 0);
        let (mut drafted, mut accepted) = (0, 0);
        for (i, (request, want)) in all.iter().zip(&want).enumerate() {
            let reply = engine.generate(request.clone()).expect("a reply");
            assert_eq!(&reply.tokens, want, "{name}, request {i}");
            drafted += reply.usage.drafted_tokens;
            accepted += reply.usage.accepted_draft_tokens;
        }
        assert!(
            drafted > 0 && accepted <= drafted,
            "{name}: {accepted} of {drafted}"
        );
        thread::scope(|scope| {
            for (i, (request, want)) in all.iter().zip(&want).enumerate() {
                let engine = &engine;
                scope.spawn(move || {
                    let reply = engine.generate(request.clone()).expect("a reply");
                    assert_eq!(&reply.tokens, want, "{name}, request {i} of a crowd");
                });
            }
        });
    }
}

#[test]
fn a_draft_model_that_cannot_guess_is_refused() {
    let (llama, hybrid) = (Family::open("llama"), Family::open("qwen3_5"));
    let refused = |builder: EngineBuilder| builder.load().expect_err("refused").to_string();
    let error = refused(llama.builder().draft(hybrid.path()));
    assert!(error.contains("without recurrent layers"), "{error}");
    let error = refused(hybrid.builder().draft(llama.path()));
    assert!(
        error.contains("left out for a model with recurrent layers"),
        "{error}"
    );
    let error = refused(llama.builder().draft("no such model anywhere"));
    assert!(error.contains("no such model anywhere"), "{error}");
}

#[test]
fn engines_that_share_threads_answer_as_alone() {
    let family = Family::open("llama");
    let requests = requests(&family);
    let load = |builder: EngineBuilder| builder.load().expect("a model");
    let want = replies(&load(family.builder().threads(2)), &requests, 1);
    let workers = Workers::new(2).expect("threads");
    let engines = [(); 2].map(|()| load(family.builder().workers(&workers)));
    thread::scope(|scope| {
        for engine in &engines {
            let (requests, want) = (&requests, &want);
            scope.spawn(move || assert_eq!(&replies(engine, requests, 1), want));
        }
    });
    assert_eq!(engines[0].info().threads, 2);
}
