//! Measurements of a run, and the judgement on it.

use std::time::{Duration, Instant};

use tercel::KvUsage;

use super::client::Field;
use super::idle::Idle;
use super::tally::Count;
use super::trend::{Trend, Verdict};
use crate::heap::Heap;

/// A measurement every so often, more seldom in a run of hours.
const INTERVAL: Duration = Duration::from_secs(2);
const MOST_SAMPLES: u32 = 2000;
/// Bytes that a loaded and dropped engine may leave: what the first load of a process makes once.
const UNLOADED: i64 = 256 << 10;

struct Sample {
    minutes: f64,
    own_bytes: u64,
    heap: Heap,
    at_work: usize,
    waiting: usize,
}

/// What is measured while a model is under load.
pub(crate) struct Report {
    name: String,
    time: Duration,
    started: Instant,
    samples: Vec<Sample>,
    last_line: Instant,
    last_probe: Instant,
    /// Generated tokens at the last line.
    tokens: u64,
}

/// How it went.
pub(crate) struct Outcome {
    name: String,
    rows: Vec<(String, String)>,
    pub(crate) failures: Vec<String>,
}

impl Report {
    pub(crate) fn new(name: &str, time: Duration) -> Self {
        let now = Instant::now();
        Self {
            name: name.to_owned(),
            time,
            started: now,
            // Room for all, so that the report is no growth itself.
            samples: Vec::with_capacity(2 * MOST_SAMPLES as usize),
            last_line: now,
            last_probe: now,
            tokens: 0,
        }
    }

    /// Time between two measurements.
    pub(crate) fn interval(&self) -> Duration {
        let shortest = (self.time / 100).min(INTERVAL);
        (self.time / MOST_SAMPLES).max(shortest)
    }

    pub(crate) fn sample(&mut self, own_bytes: u64, heap: Heap, at_work: usize, waiting: usize) {
        let minutes = self.started.elapsed().as_secs_f64() / 60.0;
        self.samples.push(Sample {
            minutes,
            own_bytes,
            heap,
            at_work,
            waiting,
        });
    }

    /// Whether it is time for a probe, which counts as made.
    pub(crate) fn probe_is_due(&mut self, every: Duration) -> bool {
        let is_due = self.last_probe.elapsed() >= every.min(self.time / 10);
        if is_due {
            self.last_probe = Instant::now();
        }
        is_due
    }

    /// Says how it goes, where that is due.
    pub(crate) fn line(&mut self, every: Duration, usage: &KvUsage, field: &Field<'_>) {
        let since = self.last_line.elapsed();
        let Some(sample) = self.samples.last().filter(|_| since >= every) else {
            return;
        };
        let tokens = field.tally.of(Count::GeneratedTokens);
        say!(
            "{} {:.1} of {:.1} min: own {:.1} MB, heap {:.1} MB in {} blocks; pages {} used, {} kept, \
             {} free, {} evictions; {} at work, {} wait; {:.0} tokens/s, {} replies",
            self.name,
            sample.minutes,
            self.time.as_secs_f64() / 60.0,
            sample.own_bytes as f64 / 1e6,
            sample.heap.live_bytes as f64 / 1e6,
            sample.heap.live_blocks,
            usage.pages - usage.free_pages - usage.cached_pages,
            usage.cached_pages,
            usage.free_pages,
            usage.evictions,
            usage.sequences,
            field.engine.waiting(),
            (tokens - self.tokens) as f64 / since.as_secs_f64(),
            field.tally.of(Count::Replies),
        );
        self.tokens = tokens;
        self.last_line = Instant::now();
    }

    /// Judges the whole run; `idle` are the moments between its rounds.
    pub(crate) fn judge(self, field: &Field<'_>, idle: &[Idle]) -> Outcome {
        let mut outcome = Outcome {
            name: self.name.clone(),
            rows: Vec::new(),
            failures: Vec::new(),
        };
        if let Ok(failures) = field.failures.lock() {
            for failure in &*failures {
                outcome.fail(failure);
            }
        }
        let warm = self.time.as_secs_f64() / 60.0 / 3.0;
        let measured: Vec<&Sample> = self
            .samples
            .iter()
            .filter(|sample| sample.minutes >= warm)
            .collect();
        outcome.trend("RssAnon + VmSwap", &measured, |it| it.own_bytes as f64);
        outcome.trend("heap under load", &measured, |it| it.heap.live_bytes as f64);
        let mean = |of: fn(&Sample) -> usize| {
            let sum: usize = self.samples.iter().map(of).sum();
            sum as f64 / self.samples.len().max(1) as f64
        };
        let (at_work, waiting) = (mean(|it| it.at_work), mean(|it| it.waiting));
        outcome.row(
            "at work and waiting, mean",
            format!("{at_work:.1} and {waiting:.1}"),
        );
        outcome.idle(idle);
        outcome.usage(field, idle);
        outcome
    }
}

impl Outcome {
    /// Compares the heap before the model was loaded with that after it was dropped.
    pub(crate) fn unloaded(&mut self, before: Heap, after: Heap) {
        let bytes = after.live_bytes - before.live_bytes;
        let blocks = after.live_blocks - before.live_blocks;
        self.row(
            "left after unload",
            format!("{bytes:+} bytes, {blocks:+} blocks"),
        );
        if bytes > UNLOADED {
            self.fail(&format!("the dropped engine leaves {bytes} bytes"));
        }
    }

    fn row(&mut self, name: &str, value: String) {
        self.rows.push((name.to_owned(), value));
    }

    fn fail(&mut self, problem: &str) {
        self.failures.push(format!("{}: {problem}", self.name));
    }

    fn trend(&mut self, what: &str, samples: &[&Sample], value: fn(&Sample) -> f64) {
        let points: Vec<(f64, f64)> = samples.iter().map(|it| (it.minutes, value(it))).collect();
        let (Some(first), Some(last)) = (points.first(), points.last()) else {
            self.fail(&format!("{what}: no measurements"));
            return;
        };
        let range = format!("{:.2} to {:.2} MB", first.1 / 1e6, last.1 / 1e6);
        let Some(trend) = Trend::of(&points) else {
            self.row(what, range);
            self.fail(&format!(
                "{what}: {} measurements are too few",
                points.len()
            ));
            return;
        };
        let verdict = match trend.verdict() {
            Verdict::Flat => "flat",
            Verdict::Growing => "GROWING",
            Verdict::TooShort => "TOO SHORT TO TELL",
        };
        self.row(what, format!("{range}, {trend}: {verdict}"));
        if trend.verdict() != Verdict::Flat {
            self.fail(&format!("{what}: {trend}: {}", verdict.to_lowercase()));
        }
    }

    fn idle(&mut self, idle: &[Idle]) {
        for leftovers in idle.iter().filter_map(Idle::leftovers) {
            self.fail(&leftovers);
        }
        let (Some(first), Some(last)) = (idle.get(idle.len().div_ceil(3)), idle.last()) else {
            return;
        };
        self.row(
            "heap when idle",
            format!(
                "{} to {} bytes, {} to {} blocks",
                first.heap.live_bytes,
                last.heap.live_bytes,
                first.heap.live_blocks,
                last.heap.live_blocks
            ),
        );
        self.row(
            "pages when idle",
            format!("{} of {} free", last.usage.free_pages, last.usage.pages),
        );
        self.row(
            "threads, open files",
            format!(
                "{} and {}, then {} and {}",
                first.threads, first.files, last.threads, last.files
            ),
        );
        if let Some(more) = last.more_than(first) {
            self.fail(&more);
        }
    }

    fn usage(&mut self, field: &Field<'_>, idle: &[Idle]) {
        if let Some(last) = idle.last() {
            let usage = last.usage;
            self.row(
                "prefix cache",
                format!(
                    "{} hits, {} misses, {} evictions",
                    usage.hits, usage.misses, usage.evictions
                ),
            );
            if usage.evictions == 0 {
                self.fail("nothing was evicted: the cache was not under pressure");
            }
            if usage.failures > 0 {
                self.fail(&format!("{} pages could not be had", usage.failures));
            }
            let allocations = last.heap.allocations - idle[0].heap.allocations;
            self.row("allocations after the first round", allocations.to_string());
        }
        for (name, n) in field.tally.rows() {
            self.row(name, n.to_string());
        }
        let slowest = field
            .slowest_cancel
            .load(std::sync::atomic::Ordering::Relaxed);
        self.row("slowest cancel", format!("{} ms", slowest / 1000));
        // A run that ended early has its reason already.
        let missing = field.tally.missing();
        if self.failures.is_empty() && !missing.is_empty() {
            self.fail(&format!("never happened: {}", missing.join(", ")));
        }
    }
}

/// Prints all numbers of all models.
pub(crate) fn table(outcomes: &[Outcome]) {
    for outcome in outcomes {
        say!("\n{}", outcome.name);
        for (name, value) in &outcome.rows {
            say!("  {name:<34} {value}");
        }
    }
    say!("");
}
