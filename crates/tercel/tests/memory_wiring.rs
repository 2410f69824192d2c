//! Memory as the engine itself watches it: tickets before allocation, a budget, requests that are
//! made to fit, and what the log says.

mod families;
#[path = "families/names.rs"]
mod names;

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use families::Family;
use tercel::memory::{Ledger, LedgerOptions, Policy, measure};
use tercel::{Engine, Error, Request, StopReason};
use tracing_subscriber::fmt::MakeWriter;

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// One log for all tests of this program, since engines log from threads of their own.
fn log() -> &'static Log {
    static LOG: std::sync::OnceLock<Log> = std::sync::OnceLock::new();
    LOG.get_or_init(|| {
        let log = Log::default();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(log.clone())
            .finish();
        tracing::subscriber::set_global_default(subscriber).expect("the only one");
        log
    })
}

fn greedy(tokens: Vec<u32>, n: usize) -> Request {
    Request::tokens(tokens)
        .temperature(0.0)
        .max_new_tokens(n)
        .ignore_eos(true)
}

#[test]
fn what_constraints_take_is_asked_for_before_the_first_one() {
    let family = Family::open("llama");
    let memory = family
        .builder()
        .load()
        .expect("a model")
        .info()
        .memory
        .clone();
    let needed = memory.total_bytes as u64;
    let engine_with = |more: u64| {
        let mut options = LedgerOptions::default();
        options.baseline_bytes = Some(0);
        options.lent_bytes = Some(needed + needed / 10 + more);
        let ledger = Ledger::new(options);
        let engine = family
            .builder()
            .ledger(&ledger)
            .load()
            .expect("there is room");
        (engine, ledger)
    };
    let bound = || {
        Request::tokens(vec![3, 4])
            .regex("[a-z]{3}")
            .max_new_tokens(8)
    };
    let (engine, ledger) = engine_with(0);
    let refused = engine.generate(bound()).expect_err("there is no room");
    assert_eq!(refused.kind(), "insufficient_memory");
    let Error::Admission(refusal) = refused else {
        unreachable!("{refused}");
    };
    assert!(
        refusal.table().contains("constraints"),
        "{}",
        refusal.table()
    );
    assert_eq!(ledger.snapshot().holders.len(), 1);
    engine
        .generate(greedy(vec![3, 4], 4))
        .expect("others go on");

    let (engine, ledger) = engine_with(64 << 20);
    for _ in 0..2 {
        engine.generate(bound()).expect("there is room");
        assert_eq!(ledger.snapshot().holders.len(), 2, "one ticket for all");
    }
    drop(engine);
    assert_eq!(ledger.snapshot().holders, []);
}

#[test]
fn engines_have_tickets_and_give_them_back() {
    let family = Family::open("llama");
    let needed = family
        .builder()
        .load()
        .expect("a model")
        .info()
        .memory
        .total_bytes as u64;
    let room_for = |bytes: u64| {
        let mut options = LedgerOptions::default();
        options.baseline_bytes = Some(0);
        options.lent_bytes = Some(bytes);
        Ledger::new(options)
    };
    let ledger = room_for(needed + needed / 2);
    let load = || family.builder().ledger(&ledger).load();
    let first = load().expect("there is room");
    let held: Vec<u64> = ledger
        .snapshot()
        .holders
        .iter()
        .map(|it| it.bytes)
        .collect();
    assert_eq!(held.len(), 1);
    assert!(held[0].abs_diff(needed) < needed / 10, "{held:?} {needed}");
    let error = load().expect_err("there is room for one");
    assert_eq!(error.kind(), "insufficient_memory");
    assert!(error.to_string().contains("too little memory"), "{error}");
    assert_eq!(
        ledger.snapshot().holders.len(),
        1,
        "nothing stays of a refusal"
    );
    // Who waits gets the room of the one that leaves.
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            family
                .builder()
                .ledger(&ledger)
                .wait_for_memory(true)
                .load()
        });
        while ledger.snapshot().waiting == 0 {
            std::thread::yield_now();
        }
        drop(first);
        waiting
            .join()
            .expect("no panic")
            .expect("there is room now");
    });
    assert_eq!(ledger.snapshot().holders, [], "all have left");
    let never = room_for(needed / 2);
    let error = family.builder().ledger(&never).wait_for_memory(true).load();
    assert_eq!(
        error.expect_err("waiting is no use").kind(),
        "insufficient_memory"
    );
    let shared = room_for(needed);
    let load = || {
        family
            .builder()
            .ledger(&shared)
            .memory_policy(Policy::max())
            .load()
    };
    let _two = (load().expect("admitted"), load().expect("admitted"));
    assert_eq!(shared.snapshot().holders.len(), 2);
}

#[test]
fn the_log_has_the_prefix_cache_and_the_pages() {
    let log = log();
    let family = Family::open("llama");
    let engine = family.builder().load().expect("a model");
    let before = log.text().len();
    let prompt = family.tokens(1, 512);
    let tail = |seed| [prompt.clone(), family.tokens(seed, 100)].concat();
    engine.generate(greedy(tail(2), 4)).expect("a reply");
    engine.generate(greedy(tail(3), 4)).expect("a reply");
    drop(engine);
    let text = log.text()[before..].to_owned();
    for line in [
        "prefix_cache: hit=false reused_tokens=0",
        "kv_paging: allocated_pages=20 page_size=32",
        "prefix_cache: hit=true reused_tokens=512",
        // 104 more tokens.
        "kv_paging: allocated_pages=4 page_size=32",
        "kv_paging: freed_pages=20 sequence_done=true",
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
    assert!(text.contains("NotCached"), "the reason of the miss: {text}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_budget_warns_then_shortens_then_stops() {
    let log = log();
    let family = Family::open("llama");
    let prompt = family.tokens(1, 10);
    // So much that what else the process takes meanwhile matters little.
    let ballast = vec![1_u8; 400 << 20];
    // The process holds more than 80, 90 and 95 percent of these.
    let mut seen = Vec::new();
    for percent in [85, 92, 97] {
        let held = measure().expect("Linux tells").rss_bytes;
        let budget = held * 100 / percent;
        let engine = family
            .builder()
            .max_context(256)
            .memory_budget(budget)
            .load()
            .expect("a model");
        let before = log.text().len();
        let reply = engine.generate(greedy(prompt.clone(), 200));
        let text = log.text()[before..].to_owned();
        seen.push((
            percent,
            reply.map(|it| (it.stop_reason, it.tokens.len())),
            text,
        ));
    }
    assert_eq!(ballast[ballast.len() / 2], 1);
    let (_, warned, text) = &seen[0];
    assert_eq!(warned.as_ref().ok(), Some(&(StopReason::MaxNewTokens, 200)));
    assert!(text.contains("level=WARN"), "{text}");
    let (_, shortened, text) = &seen[1];
    let (reason, tokens) = shortened.as_ref().expect("a reply");
    assert!(
        *reason == StopReason::ResourceLimit && (16..200).contains(tokens),
        "{tokens}"
    );
    assert!(
        text.contains("level=CRIT") && text.contains("action=REDUCE_WORK"),
        "{text}"
    );
    // Above the last bound nothing begins.
    let (_, refused, text) = &seen[2];
    let error = refused.as_ref().expect_err("refused");
    assert_eq!(error.kind(), "oom_kv_cache");
    assert!(text.contains("level=STOP"), "{text}");
}

#[test]
fn a_lenient_engine_makes_requests_fit() {
    for name in names::names() {
        made_to_fit(&Family::open(&name));
    }
}

fn made_to_fit(family: &Family) {
    let engine = family.builder().max_context(256).load().expect("a model");
    // The worked request of the specification: 12.2.
    let request = Request::tokens(family.tokens(1, 300))
        .max_new_tokens(0)
        .temperature(-0.3)
        .top_p(1.7);
    let error = engine.generate(request.clone()).expect_err("refused");
    assert_eq!(error.kind(), "invalid_parameter");
    let (result, outcome) = engine.generate_leniently(request.clone());
    let reply = result.expect("a reply");
    assert_eq!(reply.tokens.len(), 1);
    assert_eq!(outcome.fallback_level, 0);
    let changes: Vec<_> = outcome
        .adjustments
        .iter()
        .map(|it| (it.field, it.from.as_str(), it.to.as_str()))
        .collect();
    let want = [
        ("temperature", "-0.3", "0"),
        ("top_p", "1.7", "1"),
        ("max_new_tokens", "0", "1"),
        ("prompt_tokens", "300", "255"),
    ];
    assert_eq!(changes, want);
    assert_eq!(reply.outcome.as_ref(), Some(&outcome));
    assert!(reply.context.is_some(), "what was cut is told");
    let lenient = family.builder().max_context(256).lenient(true).load();
    let lenient: Engine = lenient.expect("a model");
    let again = lenient.generate(request).expect("a reply");
    assert_eq!((again.tokens, again.outcome), (reply.tokens, reply.outcome));
    let plain = lenient
        .generate(greedy(family.tokens(1, 10), 4))
        .expect("a reply");
    let outcome = plain.outcome.expect("always there");
    assert!(outcome.adjustments.is_empty(), "{outcome:?}");
    let (result, outcome) =
        engine.generate_leniently(greedy(family.tokens(1, 10), 4).temperature(f32::NAN));
    assert_eq!(
        result.expect_err("no number is near").kind(),
        "invalid_parameter"
    );
    assert!(outcome.message.contains("temperature"));
}
