//! What the event at the end of a reply holds beside what all have.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{Watch, runtime};
use crate::log::prompt::{Text, stops};
use crate::log::timing::{Ending, Moments, ms};

impl Watch {
    /// What only a request with a reply has.
    pub(super) fn put_ending(
        &self,
        event: &mut Map<String, Value>,
        ending: &Ending<'_>,
        wait: Duration,
    ) {
        let (usage, timings, settings) = (&ending.usage, &ending.timings, ending.settings);
        let policy = &self.app.config.log;
        let reason = ending.stop_reason.name();
        let measured = ending.measured();
        let has_tokens = usage.generated_tokens > 0;
        let moments = Moments::of(self.received_unix_ms, wait, timings, has_tokens);
        if let Some(prompt) = &self.prompt {
            let prompt = prompt.json(Some(usage.prompt_tokens), Some(usage.cached_tokens));
            event.insert("prompt".to_owned(), prompt);
        }
        let sampling = json!({
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "top_k": settings.top_k,
            "repetition_penalty": settings.repetition_penalty,
            "max_new_tokens": settings.max_new_tokens,
            "stop_sequences": settings.stop.len(),
            "stop_sequences_hash": stops(&settings.stop, policy),
            "seed": settings.seed,
        });
        event.insert("generation".to_owned(), sampling.clone());
        event.insert("decoding".to_owned(), sampling);
        event.insert(
            "input".to_owned(),
            json!({
                "prompt_tokens": usage.prompt_tokens,
                "max_new_tokens": settings.max_new_tokens,
                "context_window": self.started.as_ref().map(|it| it.context_window),
                "truncated": ending.is_truncated,
            }),
        );
        let runtime = runtime(ending.backend, ending.threads);
        event.insert("runtime".to_owned(), runtime);
        event.insert("timing".to_owned(), moments.json());
        let of_sample = |seconds: Option<f64>| seconds.map(ms);
        event.insert(
            "timing_ms".to_owned(),
            json!({
                "model_wait": ms(wait.as_secs_f64()),
                "format": ms(timings.format_seconds),
                "tokenize": ms(timings.tokenize_seconds),
                "queue": ms(timings.queue_seconds),
                "prompt_eval": ms(timings.prefill_seconds),
                "first_token": of_sample(measured.first_token_seconds),
                "decode_total": ms(timings.decode_seconds),
                "per_output_token": of_sample(measured.token_seconds),
                "sampling": ms(timings.sampling_seconds),
                "postprocess": ms(timings.detokenize_seconds),
                "total": ms(timings.total_seconds),
            }),
        );
        event.insert(
            "latency_ms".to_owned(),
            json!(moments.json()["duration_ms_total"]),
        );
        let text = Text::of(ending.output, policy);
        let mut output = json!({
            "output_tokens": usage.generated_tokens,
            "thinking_tokens": usage.thinking_tokens,
            "finish_reason": reason,
            "output_hash": text.hash,
            "output_excerpt": text.excerpt,
            "output_preview": text.excerpt.as_deref().unwrap_or("[REDACTED_OUTPUT]"),
        });
        text.put_whole("output_text", &mut output);
        event.insert("output".to_owned(), output);
        event.insert(
            "result".to_owned(),
            json!({
                "tokens_generated": usage.generated_tokens,
                "end_reason": reason,
                "stream_chunks": self.tokens.chunks,
                "tokens_per_second": measured.tokens_per_second,
                "guarded_by": ending.guarded_by,
            }),
        );
        let memory = tercel::memory::measure();
        let megabytes = |bytes: u64| (bytes as f64 / f64::from(1 << 20) * 10.0).round() / 10.0;
        event.insert(
            "resources".to_owned(),
            json!({
                "peak_rss_mb": memory.map(|memory| megabytes(memory.peak_rss_bytes)),
                "kv_cache_bytes": ending.kv_bytes,
            }),
        );
    }
}
