//! One request, from its arrival to its end, in the log and the metrics.

mod summary;

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use tercel::StopReason;
use tercel::host::LeaseAsyncStream;

use super::prompt::{Prompt, asked, redaction_level};
use super::timing::{Ending, Moments, micros, ms};
use super::unix_ms;
use crate::app::Shared;
use crate::error::ApiError;
use crate::gate::Caller;
use crate::metrics::Measured;
use crate::work::{Ask, Finished};

/// How often a running request tells that its model is alive.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// One request. Dropped before its end it has lost its client, and ends as cancelled.
pub(crate) struct Watch {
    app: Shared,
    request_id: String,
    key_id: Option<String>,
    model: String,
    /// Which of several replies to one request (`n`).
    choice: usize,
    received: Instant,
    received_unix_ms: u64,
    /// `None` where nothing is logged.
    prompt: Option<Prompt>,
    /// How the reply is to be made, as asked.
    generation: Value,
    started: Option<Started>,
    tokens: Tokens,
    is_over: bool,
}

/// What is known once the engine has taken the request.
struct Started {
    at: Instant,
    version: String,
    backend: String,
    threads: usize,
    context_window: usize,
    prompt_tokens: usize,
}

/// What came so far.
#[derive(Default)]
struct Tokens {
    chunks: u64,
    first: Option<Instant>,
    /// The last one's time and index.
    last: Option<(Instant, usize)>,
    /// When the model was last said to be alive.
    told: Option<Instant>,
}

impl Watch {
    /// A request for a reply was read; `choice` is which of several replies to it (`n`).
    pub(crate) fn received(
        app: &Shared,
        caller: &Caller,
        model: &str,
        ask: &Ask,
        choice: usize,
    ) -> Self {
        let policy = &app.config.log;
        let is_logged = app.log.is_on();
        let watch = Self {
            app: app.clone(),
            request_id: caller.request_id.as_str().to_owned(),
            key_id: caller.key_id.clone(),
            model: model.to_owned(),
            choice,
            received: Instant::now(),
            received_unix_ms: unix_ms(),
            prompt: is_logged.then(|| Prompt::of(ask, policy)),
            generation: asked(&ask.sampling, policy),
            started: None,
            tokens: Tokens::default(),
            is_over: false,
        };
        app.metrics.received();
        watch.event("llm.request.received", "start", |event| {
            event.insert("generation".to_owned(), watch.generation.clone());
        });
        watch
    }

    /// The guard has seen the prompt; said only where it changed it.
    pub(crate) fn normalized(&mut self, ask: &Ask) {
        let Some(before) = &self.prompt else { return };
        let after = Prompt::of(ask, &self.app.config.log);
        if after.mark != before.mark {
            self.prompt = Some(after);
            self.event("llm.prompt.normalized", "start", |_| {});
        }
    }

    /// The engine has taken the request.
    pub(crate) fn started(&mut self, stream: &LeaseAsyncStream) {
        let info = stream.lease().info();
        self.start(Started {
            at: Instant::now(),
            version: info.fingerprint.clone(),
            backend: info.backend.clone(),
            threads: info.threads,
            context_window: info.max_context,
            prompt_tokens: stream.prompt_tokens(),
        });
    }

    fn start(&mut self, started: Started) {
        self.started = Some(started);
        self.event("llm.generation.started", "start", |event| {
            event.insert("generation".to_owned(), self.generation.clone());
        });
    }

    /// Text came that the token of this index completed.
    pub(crate) fn token(&mut self, token_index: usize) {
        let now = Instant::now();
        let tokens = &mut self.tokens;
        tokens.chunks += 1;
        let before = tokens.last.replace((now, token_index));
        let mut gap = None;
        // One token may complete two pieces, and one piece may be of several tokens.
        let came = match before {
            None => token_index + 1,
            Some((_, index)) => token_index.saturating_sub(index),
        };
        match before {
            None => tokens.first = Some(now),
            Some((at, _)) if came > 0 => {
                let seconds = now.duration_since(at).as_secs_f64();
                let each = micros(seconds / f64::from(u32::try_from(came).unwrap_or(u32::MAX)));
                self.app.metrics.tokens_after(each, came);
                gap = Some(each);
            }
            Some(_) => {}
        }
        if tokens
            .told
            .is_none_or(|told| now.duration_since(told) >= SIGN_OF_LIFE)
        {
            tokens.told = Some(now);
            self.app.ready.is_alive(&self.model);
        }
        if self.app.config.log.tokens && self.app.log.is_on() {
            let chunk = self.tokens.chunks - 1;
            self.event("llm.token.generated", "stream_chunk", |event| {
                event.insert("chunk_index".to_owned(), json!(chunk));
                event.insert("token_index".to_owned(), json!(token_index));
                event.insert("tokens_in_chunk".to_owned(), json!(came));
                let since = ms(now.duration_since(self.received).as_secs_f64());
                event.insert("t_since_start_ms".to_owned(), json!(since));
                event.insert("inter_token_ms".to_owned(), json!(gap.map(ms)));
            });
        }
    }

    /// The reply has come to its end.
    pub(crate) fn completed(&mut self, stream: &LeaseAsyncStream, finished: &Finished) {
        let kv_bytes = stream.lease().activity().kv.used_bytes;
        self.complete(&Ending::of(finished, Some(kv_bytes)));
    }

    fn complete(&mut self, ending: &Ending<'_>) {
        let reason = match ending.stop_reason {
            StopReason::Cancelled if self.app.is_draining() => Some("shutdown"),
            StopReason::Cancelled => Some("client"),
            StopReason::Timeout => Some("deadline"),
            StopReason::ResourceLimit => Some("memory"),
            _ => None,
        };
        let measured = ending.measured();
        if measured.generated_tokens > 0 {
            self.app.ready.is_alive(&self.model);
        }
        let wait = self.model_wait(ending.timings.format_seconds + ending.timings.tokenize_seconds);
        self.finish(&measured, reason, |watch, event| {
            watch.put_ending(event, ending, wait);
        });
    }

    /// How long the request waited for its model before the engine took it.
    fn model_wait(&self, prompt_seconds: f64) -> Duration {
        let started = self
            .started
            .as_ref()
            .map_or(self.received, |started| started.at);
        let prompt = Duration::try_from_secs_f64(prompt_seconds).unwrap_or_default();
        started.duration_since(self.received).saturating_sub(prompt)
    }

    fn finish(
        &mut self,
        measured: &Measured,
        cancelled: Option<&'static str>,
        put: impl FnOnce(&Self, &mut Map<String, Value>),
    ) {
        if std::mem::replace(&mut self.is_over, true) {
            return;
        }
        let report = self.app.metrics.finished(measured, cancelled);
        self.event("llm.generation.completed", "summary", |event| {
            put(self, event);
            event.insert("cancel_reason".to_owned(), json!(cancelled));
        });
        if let Some(report) = report {
            self.app.log.event(report);
        }
    }

    /// The request ended with an error.
    pub(crate) fn failed(&mut self, error: &ApiError) {
        if std::mem::replace(&mut self.is_over, true) {
            return;
        }
        self.app.metrics.failed(error.code);
        let stage = match (&self.started, error.status.as_u16()) {
            (Some(_), _) => "generation",
            (None, 429) => "admission",
            (None, 400..=499) => "validation",
            (None, _) => "load",
        };
        self.event("llm.request.failed", "error", |event| {
            event.insert("generation".to_owned(), self.generation.clone());
            event.insert("failed_stage".to_owned(), json!(stage));
            // The message for the client may quote what the client sent.
            event.insert(
                "error".to_owned(),
                json!({
                    "error_code": error.code,
                    "status": error.status.as_u16(),
                    "message": error.status.canonical_reason(),
                }),
            );
            event.insert("timing".to_owned(), self.timing_so_far());
        });
    }

    /// The client has gone, or the server stops at once.
    fn abandoned(&mut self) {
        let now = Instant::now();
        let accepted = self
            .started
            .as_ref()
            .map_or(self.received, |started| started.at);
        let seconds = |to: Instant| micros(to.duration_since(accepted).as_secs_f64());
        let first = self.tokens.first;
        let generated_tokens = self.tokens.last.map_or(0, |(_, index)| index + 1);
        let measured = Measured {
            first_token_seconds: first.map(seconds),
            total_seconds: first.map(|_| seconds(now)),
            generated_tokens,
            prompt_tokens: match (&self.started, first) {
                (Some(started), Some(_)) => started.prompt_tokens,
                _ => 0,
            },
            ..Measured::default()
        };
        let reason = if self.app.is_draining() {
            "shutdown"
        } else {
            "disconnect"
        };
        self.finish(&measured, Some(reason), |watch, event| {
            event.insert("generation".to_owned(), watch.generation.clone());
            event.insert("timing".to_owned(), watch.timing_so_far());
            event.insert(
                "timing_ms".to_owned(),
                json!({
                    "model_wait": ms(accepted.duration_since(watch.received).as_secs_f64()),
                    "first_token": measured.first_token_seconds.map(ms),
                    "total": ms(seconds(now)),
                }),
            );
            event.insert(
                "output".to_owned(),
                json!({"output_tokens": generated_tokens, "finish_reason": "cancelled"}),
            );
            event.insert(
                "result".to_owned(),
                json!({
                    "tokens_generated": generated_tokens,
                    "end_reason": "cancelled",
                    "stream_chunks": watch.tokens.chunks,
                }),
            );
        });
    }

    fn timing_so_far(&self) -> Value {
        let at = |instant: Instant| {
            let since = instant.duration_since(self.received).as_millis();
            self.received_unix_ms
                .saturating_add(u64::try_from(since).unwrap_or(u64::MAX))
        };
        Moments {
            received: self.received_unix_ms,
            prompt_ready: self.tokens.first.map(at),
            generation_start: self.tokens.first.map(at),
            generation_end: Some(at(Instant::now())),
        }
        .json()
    }

    /// Writes an event with what all events of a request have.
    fn event(&self, name: &str, stage: &str, put: impl FnOnce(&mut Map<String, Value>)) {
        let Some(prompt) = &self.prompt else { return };
        let policy = &self.app.config.log;
        let started = self.started.as_ref();
        let mut event = Map::new();
        for (key, value) in [
            ("event", json!(name)),
            ("stage", json!(stage)),
            ("request_id", json!(self.request_id)),
            ("choice", json!(self.choice)),
            ("session_id", Value::Null),
            ("key_id", json!(self.key_id)),
            ("model_id", json!(self.model)),
        ] {
            event.insert(key.to_owned(), value);
        }
        if stage != "stream_chunk" {
            let version = started.map(|it| &it.version);
            let model = json!({"name": self.model, "version": version});
            event.insert("model".to_owned(), model);
            let tokens = started.map(|it| it.prompt_tokens);
            event.insert("prompt".to_owned(), prompt.json(tokens, None));
            let runtime = started.map(|it| runtime(&it.backend, it.threads));
            event.insert("runtime".to_owned(), json!(runtime));
            event.insert(
                "timing".to_owned(),
                json!({"t_received_unix_ms": self.received_unix_ms}),
            );
            event.insert(
                "safety".to_owned(),
                json!({
                    "redaction_level": redaction_level(policy),
                    "log_prompt_text": policy.prompts_and_outputs,
                    "pii_detected": prompt.has_personal_data,
                }),
            );
        }
        put(&mut event);
        self.app.log.event(Value::Object(event));
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.is_over {
            self.abandoned();
        }
    }
}

fn runtime(backend: &str, threads: usize) -> Value {
    json!({
        "backend": backend,
        "threads": threads,
        "batch_mode": "continuous",
        "kv_paging": true,
    })
}

#[cfg(test)]
mod tests;
