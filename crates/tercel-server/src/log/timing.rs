//! The times of a request: what the log and the metrics both say, so that they agree.

use std::time::Duration;

use serde_json::{Value, json};
use tercel::{Settings, StopReason, Timings, Usage};

use crate::metrics::Measured;
use crate::work::Finished;

/// What the log and the metrics need of a reply.
pub(super) struct Ending<'a> {
    pub(super) stop_reason: StopReason,
    pub(super) usage: Usage,
    pub(super) timings: Timings,
    pub(super) tokens_per_second: f64,
    pub(super) settings: &'a Settings,
    pub(super) backend: &'a str,
    pub(super) threads: usize,
    pub(super) is_truncated: bool,
    pub(super) guarded_by: Option<&'static str>,
    pub(super) output: &'a str,
    pub(super) kv_bytes: Option<usize>,
}

impl<'a> Ending<'a> {
    pub(super) fn of(finished: &'a Finished, kv_bytes: Option<usize>) -> Self {
        let reply = &finished.reply;
        Self {
            stop_reason: reply.stop_reason,
            usage: reply.usage,
            timings: reply.timings,
            tokens_per_second: reply.timings.tokens_per_second(),
            settings: &reply.settings,
            backend: &reply.backend,
            threads: reply.threads,
            is_truncated: reply.context.is_some(),
            guarded_by: finished.guarded_by,
            output: &finished.text,
            kv_bytes,
        }
    }

    /// What goes into the metrics. A reply without a token is no sample.
    pub(super) fn measured(&self) -> Measured {
        let tokens = self.usage.generated_tokens;
        let of = |seconds: f64| (tokens > 0).then(|| micros(seconds));
        let after_first = u32::try_from(tokens.saturating_sub(1)).unwrap_or(u32::MAX);
        Measured {
            queue_seconds: of(self.timings.queue_seconds),
            first_token_seconds: of(self.timings.time_to_first_token),
            total_seconds: of(self.timings.total_seconds),
            token_seconds: (after_first > 0)
                .then(|| micros(self.timings.decode_seconds / f64::from(after_first))),
            tokens_per_second: (after_first > 0).then(|| micros(self.tokens_per_second)),
            prompt_tokens: self.usage.prompt_tokens,
            cached_tokens: self.usage.cached_tokens,
            generated_tokens: tokens,
        }
    }
}

/// Whole microseconds: the log has no more, so the metrics have no more either.
pub(super) fn micros(seconds: f64) -> f64 {
    (seconds * 1e6).round() / 1e6
}

pub(super) fn ms(seconds: f64) -> f64 {
    (seconds * 1e6).round() / 1e3
}

/// The moments of a request, in Unix milliseconds.
#[derive(Clone, Copy, Default)]
pub(super) struct Moments {
    pub(super) received: u64,
    pub(super) prompt_ready: Option<u64>,
    pub(super) generation_start: Option<u64>,
    pub(super) generation_end: Option<u64>,
}

impl Moments {
    /// Of a reply that the engine took `wait` after it was received, and how it went then. All
    /// come from one clock, so that none is before the other.
    pub(super) fn of(received: u64, wait: Duration, timings: &Timings, has_tokens: bool) -> Self {
        let after = |seconds: f64| {
            let since = Duration::try_from_secs_f64(seconds).unwrap_or_default();
            let millis = wait.saturating_add(since).as_millis();
            received.saturating_add(u64::try_from(millis).unwrap_or(u64::MAX))
        };
        let prompt = timings.format_seconds
            + timings.tokenize_seconds
            + timings.queue_seconds
            + timings.prefill_seconds;
        let start = timings.time_to_first_token;
        Self {
            received,
            prompt_ready: has_tokens.then(|| after(prompt.min(start))),
            generation_start: has_tokens.then(|| after(start)),
            generation_end: Some(after(timings.total_seconds)),
        }
    }

    pub(super) fn json(&self) -> Value {
        let between = |from: Option<u64>, to: Option<u64>| Some(to?.saturating_sub(from?));
        let received = Some(self.received);
        json!({
            "t_received_unix_ms": self.received,
            "t_prompt_ready_unix_ms": self.prompt_ready,
            "t_generation_start_unix_ms": self.generation_start,
            "t_generation_end_unix_ms": self.generation_end,
            "duration_ms_total": between(received, self.generation_end),
            "duration_ms_prompt": between(received, self.prompt_ready),
            "duration_ms_decode": between(self.generation_start, self.generation_end),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_the_differences_of_the_moments() {
        // The worked example of the schema.
        let moments = Moments {
            received: 123,
            prompt_ready: Some(340),
            generation_start: Some(348),
            generation_end: Some(899),
        };
        let json = moments.json();
        let durations = ["prompt", "decode", "total"].map(|of| &json[format!("duration_ms_{of}")]);
        assert_eq!(durations, [&json!(217), &json!(551), &json!(776)]);
        let json = Moments::default().json();
        assert_eq!(
            (&json["duration_ms_total"], &json["t_received_unix_ms"]),
            (&Value::Null, &json!(0))
        );
    }

    #[test]
    fn the_moments_follow_each_other_and_the_wait_for_the_model_is_in_them() {
        let mut timings = Timings::default();
        timings.queue_seconds = 0.010;
        timings.prefill_seconds = 0.020;
        timings.time_to_first_token = 0.0315;
        timings.total_seconds = 0.1;
        let moments = Moments::of(1000, Duration::from_millis(500), &timings, true);
        let all = [
            moments.prompt_ready,
            moments.generation_start,
            moments.generation_end,
        ];
        assert_eq!(all, [Some(1530), Some(1531), Some(1600)]);
        let moments = Moments::of(1000, Duration::ZERO, &timings, false);
        assert_eq!(
            (moments.prompt_ready, moments.generation_end),
            (None, Some(1100))
        );
    }
}
