//! A reply as every protocol needs it.

use serde::Serialize;
use serde_json::{Value, json};
use tercel::{CacheMiss, Reply, StopReason};

/// A reply, and what the guards did to it.
#[derive(Clone, Debug)]
pub(crate) struct Finished {
    pub(crate) model: String,
    /// What the client gets: the reply's text, unless a guard changed it.
    pub(crate) text: String,
    pub(crate) reply: Reply,
    /// The rule of the output filter that fired.
    pub(crate) guarded_by: Option<&'static str>,
}

impl Finished {
    pub(crate) fn stop_reason(&self) -> StopReason {
        self.reply.stop_reason
    }

    /// OpenAI's word for the end.
    pub(crate) fn finish_reason(&self) -> &'static str {
        match self.reply.stop_reason {
            _ if self.guarded_by.is_some() => "content_filter",
            StopReason::ToolCall => "tool_calls",
            StopReason::Eos | StopReason::StopSequence => "stop",
            _ => "length",
        }
    }

    /// Whether it was cut off from outside: by a cancel, the deadline or a bound of memory.
    pub(crate) fn is_incomplete(&self) -> bool {
        matches!(
            self.reply.stop_reason,
            StopReason::Cancelled | StopReason::Timeout | StopReason::ResourceLimit
        )
    }

    /// The block that every reply carries beside its protocol's own fields (7.1, 8.5, promise 3).
    pub(crate) fn block(&self) -> TercelBlock {
        let (usage, timings) = (&self.reply.usage, &self.reply.timings);
        let ms = |seconds: f64| (seconds * 1e6).round() / 1e3;
        TercelBlock {
            stop_reason: self.reply.stop_reason.name(),
            stop_sequence: self.reply.stop_sequence.clone(),
            incomplete: self.is_incomplete(),
            seed: self.reply.settings.seed,
            backend: self.reply.backend.clone(),
            threads: self.reply.threads,
            prompt_tokens: usage.prompt_tokens,
            cached_tokens: usage.cached_tokens,
            cache_miss: usage.cache_miss.map(CacheMiss::name),
            generated_tokens: usage.generated_tokens,
            thinking_tokens: usage.thinking_tokens,
            lost_bytes: usage.lost_bytes,
            truncation: self.reply.context.as_ref().map(|context| json!(context)),
            guarded_by: self.guarded_by,
            tool_parse_error: self.reply.tool_parse_error.clone(),
            timings: TimingBlock {
                format_ms: ms(timings.format_seconds),
                tokenize_ms: ms(timings.tokenize_seconds),
                queue_ms: ms(timings.queue_seconds),
                prefill_ms: ms(timings.prefill_seconds),
                decode_ms: ms(timings.decode_seconds),
                sampling_ms: ms(timings.sampling_seconds),
                detokenize_ms: ms(timings.detokenize_seconds),
                time_to_first_token_ms: ms(timings.time_to_first_token),
                total_ms: ms(timings.total_seconds),
                prefill_tokens_per_second: timings.prefill_tokens_per_second(),
                tokens_per_second: timings.tokens_per_second(),
            },
        }
    }
}

/// How a reply came about, under the key `tercel` in every reply.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct TercelBlock {
    /// `eos`, `tool_call`, `stop_sequence`, `max_new_tokens`, `context_full`, `cancelled`, `timeout` or
    /// `resource_limit`.
    pub(crate) stop_reason: &'static str,
    pub(crate) stop_sequence: Option<String>,
    /// Whether it was cut off from outside.
    pub(crate) incomplete: bool,
    /// With it, the same request gives the same reply.
    pub(crate) seed: u64,
    /// What computed it, such as `cpu-avx2`.
    pub(crate) backend: String,
    pub(crate) threads: usize,
    pub(crate) prompt_tokens: usize,
    /// How many of them did not have to be computed.
    pub(crate) cached_tokens: usize,
    /// Why not more of them.
    pub(crate) cache_miss: Option<&'static str>,
    pub(crate) generated_tokens: usize,
    pub(crate) thinking_tokens: usize,
    /// Bytes of the prompt that the vocabulary cannot express.
    pub(crate) lost_bytes: usize,
    /// What was cut of the prompt, where it was to be.
    pub(crate) truncation: Option<Value>,
    /// The rule of the output filter that fired.
    pub(crate) guarded_by: Option<&'static str>,
    /// Why what looked like a call of a tool was none; it is in the text as it stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tool_parse_error: Option<String>,
    pub(crate) timings: TimingBlock,
}

/// Where the time went.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct TimingBlock {
    pub(crate) format_ms: f64,
    pub(crate) tokenize_ms: f64,
    pub(crate) queue_ms: f64,
    pub(crate) prefill_ms: f64,
    pub(crate) decode_ms: f64,
    pub(crate) sampling_ms: f64,
    pub(crate) detokenize_ms: f64,
    pub(crate) time_to_first_token_ms: f64,
    pub(crate) total_ms: f64,
    pub(crate) prefill_tokens_per_second: f64,
    pub(crate) tokens_per_second: f64,
}
