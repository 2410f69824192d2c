//! Mixed load on one engine, and what it leaves behind.
//!
//! The time of a model is divided into rounds. In each, callers do all that callers do; between
//! them the engine is idle and its cache emptied, so that what is held then must be the same every
//! time. The first third is the warm-up: buffers grow to their size, pages are touched.

mod client;
mod idle;
mod report;
mod tally;
mod trend;

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use tercel::{Engine, PrefixCache, memory};

use crate::Problem;
use crate::families::Family;
use crate::heap;
use crate::random::Random;
use crate::subject::Subject;
use client::Field;
use idle::Idle;
use report::{Outcome, Report};
use tally::Count;

/// Callers at a time: more than work at once and wait together.
const CALLERS: usize = 10;
const SEQUENCES: usize = 5;
const QUEUE: usize = 4;
/// Tokens of a context, for small and for large models.
const CONTEXT: [usize; 2] = [1024, 512];
/// Contexts that all requests share: less than one for each, so that they wait for pages, and so
/// few that prefixes are given up all the time.
const CONTEXTS: usize = 2;
const CACHE_BYTES: usize = 256 << 10;

const ROUND: Duration = Duration::from_secs(60);
const LEAST_ROUNDS: u32 = 9;
const PROBE_EVERY: Duration = Duration::from_secs(60);
const LINE_EVERY: Duration = Duration::from_secs(30);
/// How long nothing may move where this process does not compute either, and where it does: a
/// machine that has other things to do is no hang.
const BLOCKED: Duration = Duration::from_secs(120);
const SPINNING: Duration = Duration::from_secs(1200);

/// Puts each of `subjects` under load, for `time` altogether.
///
/// # Errors
/// When memory grows, something is left behind, a reply is wrong, or anything fails.
pub(crate) fn run(subjects: &[Subject], time: Duration, seed: u64) -> Result<(), Problem> {
    let others = ["llama", "gemma3", "qwen3_5", "qwen3_moe"].map(Family::open);
    let time = time / u32::try_from(subjects.len())?;
    let mut outcomes = Vec::new();
    for subject in subjects {
        let outcome = one(subject, &others, time, seed);
        outcomes.push(outcome.map_err(|problem| format!("{}: {problem}", subject.name))?);
    }
    report::table(&outcomes);
    let failures = outcomes.iter().flat_map(|outcome| &outcome.failures);
    let failures: Vec<&str> = failures.map(String::as_str).collect();
    if failures.is_empty() {
        say!("memory is flat, every reply is right");
        return Ok(());
    }
    Err(failures.join("; ").into())
}

fn one(
    subject: &Subject,
    others: &[Family],
    time: Duration,
    seed: u64,
) -> Result<Outcome, Problem> {
    let before = heap::now();
    let engine = load(subject)?;
    let field = Field::new(&engine, seed)?;
    let rounds = u32::try_from(time.as_secs() / ROUND.as_secs())?.max(LEAST_ROUNDS);
    let started = Instant::now();
    let mut report = Report::new(&subject.name, time);
    let mut idle = Vec::with_capacity(rounds as usize);
    for round in 0..rounds {
        let end = started + time * (round + 1) / rounds;
        under_load(
            &field,
            others,
            end,
            u64::from(round) ^ seed << 20,
            &mut report,
        );
        idle.push(Idle::of(&engine)?);
        if !field.failures.lock().is_ok_and(|it| it.is_empty()) {
            break;
        }
        field.stop.store(false, Ordering::Relaxed);
        // Also while nothing else is at work.
        for i in 0..field.known.len() {
            field.probe(i)?;
        }
    }
    let mut outcome = report.judge(&field, &idle);
    drop(field);
    drop(engine);
    outcome.unloaded(before, heap::now());
    Ok(outcome)
}

fn load(subject: &Subject) -> Result<Engine, Problem> {
    let builder = subject.builder();
    let cache = PrefixCache {
        bytes: Some(CACHE_BYTES),
        ..PrefixCache::default()
    };
    let context = CONTEXT[usize::from(subject.is_large())];
    let builder = builder
        .max_context(context)
        .max_sequences(SEQUENCES)
        .kv_tokens(CONTEXTS * context)
        .queue_capacity(QUEUE)
        .prefill_chunk(128)
        // Pages that are touched for the first time would look like growth.
        .commit_memory(true)
        .prefix_cache(cache);
    Ok(builder.load()?)
}

/// One round: callers, another engine that comes and goes, and measurements, until `end`.
fn under_load(field: &Field<'_>, others: &[Family], end: Instant, seed: u64, report: &mut Report) {
    let callers = 0..CALLERS as u64;
    thread::scope(|scope| {
        field.running.store(CALLERS + 2, Ordering::SeqCst);
        for caller in callers {
            let random = Random::new(seed, caller + 1);
            scope.spawn(move || counted(field, || field.work(random)));
        }
        scope.spawn(move || counted(field, || come_and_go(field, others)));
        scope.spawn(move || counted(field, || watch(field, report)));
        watch_over(field, end);
    });
}

/// Does `work`, the end of which is noted even where it panics.
fn counted(field: &Field<'_>, work: impl FnOnce()) {
    struct Leaving<'a, 'b>(&'a Field<'b>);
    impl Drop for Leaving<'_, '_> {
        fn drop(&mut self) {
            if thread::panicking() {
                self.0.fail("a caller panicked".to_owned());
            }
            self.0.running.fetch_sub(1, Ordering::SeqCst);
        }
    }
    let _leaving = Leaving(field);
    work();
}

/// Ends the round in time, and the process where nothing moves any more.
fn watch_over(field: &Field<'_>, end: Instant) {
    let mut last = (field.tally.beats(), Instant::now(), idle::cpu_time());
    while field.running.load(Ordering::SeqCst) > 0 {
        thread::sleep(Duration::from_millis(50));
        if Instant::now() >= end {
            field.stop.store(true, Ordering::Relaxed);
        }
        let beats = field.tally.beats();
        if beats != last.0 {
            last = (beats, Instant::now(), idle::cpu_time());
            continue;
        }
        let (still, computed) = (last.1.elapsed(), idle::cpu_time().saturating_sub(last.2));
        let is_blocked = still > BLOCKED && computed < still / 50;
        if is_blocked || still > SPINNING {
            say!(
                "FAILED: nothing has moved for {} s, in which {:.1} s were computed; {} callers do \
                 not come back",
                still.as_secs(),
                computed.as_secs_f64(),
                field.running.load(Ordering::SeqCst)
            );
            std::process::exit(1);
        }
    }
}

/// Loads small models beside the engine, asks them something, and drops them, sometimes with a
/// request at work.
fn come_and_go(field: &Field<'_>, others: &[Family]) {
    let mut known = vec![None; others.len()];
    let mut round = 0;
    while !field.stop.load(Ordering::Relaxed) {
        let which = round % others.len();
        let result = other_engine(&others[which], round.is_multiple_of(3), &mut known[which]);
        match result {
            Ok(()) => field.tally.add(Count::Engines, 1),
            Err(problem) => field.fail(format!("another engine: {problem}")),
        }
        round += 1;
        thread::sleep(Duration::from_millis(300));
    }
}

fn other_engine(
    family: &Family,
    is_cut_short: bool,
    known: &mut Option<Vec<u32>>,
) -> Result<(), Problem> {
    let engine = family.builder().max_context(256).threads(1).load()?;
    let request = tercel::Request::tokens(family.tokens(5, 60)).ignore_eos(true);
    let reply = engine.generate(request.clone().seed(1).max_new_tokens(8))?;
    let known = known.get_or_insert_with(|| reply.tokens.clone());
    if *known != reply.tokens {
        return Err(format!("{:?}, then {:?}", known, reply.tokens).into());
    }
    if is_cut_short {
        let stream = engine.stream(request.max_new_tokens(190))?;
        drop(engine);
        stream.wait()?;
    }
    Ok(())
}

/// Measures, probes, and says how it goes.
fn watch(field: &Field<'_>, report: &mut Report) {
    let mut probe = 0;
    while !field.stop.load(Ordering::Relaxed) {
        let Ok(usage) = field.engine.kv_usage() else {
            field.fail("the engine does not tell how it uses its pages".to_owned());
            return;
        };
        let own = memory::measure().map_or(0, |it| it.own_bytes);
        report.sample(own, heap::now(), usage.sequences, field.engine.waiting());
        report.line(LINE_EVERY, &usage, field);
        if report.probe_is_due(PROBE_EVERY) {
            for _ in 0..2 {
                if let Err(problem) = field.probe(probe) {
                    field.fail(problem.to_string());
                }
                probe += 1;
            }
        }
        thread::sleep(report.interval());
    }
}
