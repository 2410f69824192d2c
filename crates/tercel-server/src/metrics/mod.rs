//! Counters and times of all requests, as Prometheus reads them.

mod gauges;
mod series;
mod text;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use crate::app::App;
use series::Series;
use text::Page;

pub(crate) use text::CONTENT_TYPE;

/// Paths that are told apart; more become `other`, so that nobody fills the memory with paths.
const MOST_PATHS: usize = 64;
/// After so many replies the log gets a report.
const REPORT_EVERY: u64 = 100;

/// What is counted. Every method takes a fraction of a microsecond.
pub(crate) struct Metrics {
    received: AtomicU64,
    in_flight: AtomicI64,
    completed: AtomicU64,
    without_token: AtomicU64,
    prompt_tokens: AtomicU64,
    cached_tokens: AtomicU64,
    generated_tokens: AtomicU64,
    dropped_chunks: AtomicU64,
    failed: Mutex<BTreeMap<&'static str, u64>>,
    cancelled: Mutex<BTreeMap<&'static str, u64>>,
    limited: Mutex<BTreeMap<String, u64>>,
    answered: Mutex<BTreeMap<String, BTreeMap<u16, u64>>>,
    first_token: Series,
    inter_token: Series,
    token: Series,
    total: Series,
    queue: Series,
    throughput: Series,
}

/// The times and counts of one reply, as the log has them too.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Measured {
    pub(crate) queue_seconds: Option<f64>,
    pub(crate) first_token_seconds: Option<f64>,
    pub(crate) total_seconds: Option<f64>,
    /// A token after the first, on average.
    pub(crate) token_seconds: Option<f64>,
    pub(crate) tokens_per_second: Option<f64>,
    pub(crate) prompt_tokens: usize,
    pub(crate) cached_tokens: usize,
    pub(crate) generated_tokens: usize,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        Self {
            received: AtomicU64::new(0),
            in_flight: AtomicI64::new(0),
            completed: AtomicU64::new(0),
            without_token: AtomicU64::new(0),
            prompt_tokens: AtomicU64::new(0),
            cached_tokens: AtomicU64::new(0),
            generated_tokens: AtomicU64::new(0),
            dropped_chunks: AtomicU64::new(0),
            failed: Mutex::default(),
            cancelled: Mutex::default(),
            limited: Mutex::default(),
            answered: Mutex::default(),
            first_token: Series::new(series::SECONDS),
            inter_token: Series::new(series::TOKEN_SECONDS),
            token: Series::new(series::TOKEN_SECONDS),
            total: Series::new(series::SECONDS),
            queue: Series::new(series::SECONDS),
            throughput: Series::new(series::TOKENS_PER_SECOND),
        }
    }

    /// A request for a reply came; one of the next three follows.
    pub(crate) fn received(&self) {
        self.received.fetch_add(1, Ordering::Relaxed);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// A reply came to an end of its own, or was cut short for the reason `cancelled`. Every
    /// hundredth time there is a report for the log.
    pub(crate) fn finished(
        &self,
        reply: &Measured,
        cancelled: Option<&'static str>,
    ) -> Option<Value> {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        let count = |counter: &AtomicU64, tokens: usize| {
            counter.fetch_add(tokens.try_into().unwrap_or(u64::MAX), Ordering::Relaxed);
        };
        count(&self.prompt_tokens, reply.prompt_tokens);
        count(&self.cached_tokens, reply.cached_tokens);
        count(&self.generated_tokens, reply.generated_tokens);
        for (series, value) in [
            (&self.first_token, reply.first_token_seconds),
            (&self.token, reply.token_seconds),
            (&self.total, reply.total_seconds),
            (&self.queue, reply.queue_seconds),
            (&self.throughput, reply.tokens_per_second),
        ] {
            if let Some(value) = value {
                series.add(value, 1);
            }
        }
        if let Some(reason) = cancelled {
            *lock(&self.cancelled).entry(reason).or_default() += 1;
            return None;
        }
        if reply.generated_tokens == 0 {
            self.without_token.fetch_add(1, Ordering::Relaxed);
        }
        let completed = self.completed.fetch_add(1, Ordering::Relaxed) + 1;
        completed
            .is_multiple_of(REPORT_EVERY)
            .then(|| self.report(completed))
    }

    /// A request ended with an error.
    pub(crate) fn failed(&self, code: &'static str) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        *lock(&self.failed).entry(code).or_default() += 1;
    }

    /// `tokens` came, each so long after the one before.
    pub(crate) fn tokens_after(&self, seconds: f64, tokens: usize) {
        self.inter_token.add(seconds, tokens);
    }

    /// Pieces of a reply were left out because the client reads too slowly.
    pub(crate) fn dropped(&self, chunks: u64) {
        self.dropped_chunks.fetch_add(chunks, Ordering::Relaxed);
    }

    /// A request was refused because `scope`, `client` or `global`, asks too often.
    pub(crate) fn rate_limited(&self, scope: &str) {
        let mut limited = lock(&self.limited);
        match limited.get_mut(scope) {
            Some(count) => *count += 1,
            None => {
                limited.insert(scope.to_owned(), 1);
            }
        }
    }

    /// An answer went out.
    pub(crate) fn answered(&self, path: &str, status: u16) {
        let mut answered = lock(&self.answered);
        let is_known = answered.contains_key(path);
        let path = if is_known || answered.len() < MOST_PATHS {
            path
        } else {
            "other"
        };
        match answered.get_mut(path) {
            Some(statuses) => *statuses.entry(status).or_default() += 1,
            None => {
                answered.insert(path.to_owned(), BTreeMap::from([(status, 1)]));
            }
        }
    }

    /// Everything, as Prometheus reads it.
    pub(crate) fn render(&self, app: &App) -> String {
        let mut page = Page::default();
        self.requests(&mut page);
        self.times(&mut page);
        gauges::models(app, &mut page);
        gauges::process(app, &mut page);
        page.finish()
    }

    fn requests(&self, page: &mut Page) {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        for (name, help, value) in [
            (
                "requests_received",
                "Requests for a reply.",
                of(&self.received),
            ),
            (
                "requests_completed",
                "Replies that came to their end.",
                of(&self.completed),
            ),
            (
                "requests_without_token",
                "Replies that ended without a token; they are in no series.",
                of(&self.without_token),
            ),
            (
                "prompt_tokens",
                "Tokens of prompts.",
                of(&self.prompt_tokens),
            ),
            (
                "prefix_cached_tokens",
                "Tokens of prompts that did not have to be computed.",
                of(&self.cached_tokens),
            ),
            (
                "generated_tokens",
                "Tokens that were generated.",
                of(&self.generated_tokens),
            ),
            (
                "stream_dropped_chunks",
                "Pieces that were left out for slow readers that asked for it.",
                of(&self.dropped_chunks),
            ),
        ] {
            page.counter(name, help).sample(&[], value);
        }
        let in_flight = self.in_flight.load(Ordering::Relaxed);
        page.gauge("requests_in_flight", "Requests that have not ended.")
            .sample(&[], in_flight);

        let mut counter = page.counter("requests_failed", "Requests that ended with an error.");
        for (code, count) in &*lock(&self.failed) {
            counter.sample(&[("code", code)], count);
        }
        let help = "Replies that were cut short, and by what.";
        let mut counter = page.counter("requests_cancelled", help);
        let cancelled = lock(&self.cancelled);
        for reason in ["client", "deadline", "disconnect", "memory", "shutdown"] {
            let count = cancelled.get(reason).copied().unwrap_or_default();
            counter.sample(&[("reason", reason)], count);
        }
        drop(cancelled);
        let help = "Requests that were refused because too many came.";
        let mut counter = page.counter("rate_limited", help);
        for (scope, count) in &*lock(&self.limited) {
            counter.sample(&[("scope", scope)], count);
        }
        let mut counter = page.counter("http_answers", "Answers by path and status.");
        for (path, statuses) in &*lock(&self.answered) {
            for (status, count) in statuses {
                counter.sample(&[("path", path), ("status", &status.to_string())], count);
            }
        }
    }

    fn times(&self, page: &mut Page) {
        for (name, help, series) in [
            (
                "time_to_first_token_seconds",
                "From the acceptance of a request to its first token.",
                &self.first_token,
            ),
            (
                "inter_token_seconds",
                "From a token to the next, as they come from the engine.",
                &self.inter_token,
            ),
            (
                "time_per_output_token_seconds",
                "The time after the first token by the tokens after it, of each reply.",
                &self.token,
            ),
            (
                "request_seconds",
                "From the acceptance of a request to its end.",
                &self.total,
            ),
            (
                "queue_seconds",
                "How long a request waited for its turn.",
                &self.queue,
            ),
        ] {
            page.series(name, help, series, &series::HIGH);
        }
        let help = "Tokens after the first by the time after the first, of each reply.";
        page.series(
            "tokens_per_second",
            help,
            &self.throughput,
            &series::LOW_AND_HIGH,
        );
    }

    /// The percentiles so far, for the log.
    fn report(&self, replies: u64) -> Value {
        let of = |series: &Series, percents: &[u32]| {
            let window = series.window();
            let entry = |percent: &u32| {
                let value = series::percentile(&window, *percent);
                (format!("p{percent}"), json!(value))
            };
            percents
                .iter()
                .map(entry)
                .collect::<serde_json::Map<_, _>>()
        };
        json!({
            "event": "llm.metrics.report",
            "replies": replies,
            "samples": self.total.window().len(),
            "ttft_s": of(&self.first_token, &series::HIGH),
            "total_s": of(&self.total, &series::HIGH),
            "queue_s": of(&self.queue, &series::HIGH),
            "tps": of(&self.throughput, &series::LOW_AND_HIGH),
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
