//! What calls give, with the keys that the SDKs use.

use serde::Serialize;
use serde_json::Value;

use crate::host::ModelStatus;
use crate::lifecycle::LoadReport;
use crate::reply::{Reply, StopReason};

/// A whole reply (`LLMResult`).
#[derive(Serialize)]
pub(super) struct LlmResult<'a> {
    text: &'a str,
    prompt_tokens: usize,
    generated_tokens: usize,
    prefill_seconds: f64,
    decode_seconds: f64,
    tokens_per_second: f64,
    time_to_first_token: f64,
    total_seconds: f64,
    stop_reason: StopReason,
}

impl<'a> From<&'a Reply> for LlmResult<'a> {
    fn from(reply: &'a Reply) -> Self {
        Self {
            text: &reply.text,
            prompt_tokens: reply.usage.prompt_tokens,
            generated_tokens: reply.usage.generated_tokens,
            prefill_seconds: reply.timings.prefill_seconds,
            decode_seconds: reply.timings.decode_seconds,
            tokens_per_second: reply.timings.tokens_per_second(),
            time_to_first_token: reply.timings.time_to_first_token,
            total_seconds: reply.timings.total_seconds,
            stop_reason: reply.stop_reason,
        }
    }
}

/// A piece of a reply (`InferenceStreamChunk`). What is left out is not there.
#[derive(Serialize)]
pub(super) struct StreamChunk<'a> {
    kind: &'static str,
    index: i64,
    is_final: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    delta: Option<&'a str>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    end: Option<ChunkEnd>,
}

/// What the last chunk says besides.
#[derive(Serialize)]
struct ChunkEnd {
    time_to_first_token: f64,
    prompt_tokens: usize,
    generated_tokens: usize,
    tokens_per_second: f64,
    total_seconds: f64,
    stop_reason: StopReason,
}

impl<'a> StreamChunk<'a> {
    /// Text, the `index`th piece.
    pub(super) fn text(index: i64, delta: &'a str) -> Self {
        Self {
            kind: "text",
            index,
            is_final: false,
            delta: Some(delta),
            end: None,
        }
    }

    /// The end of a reply: by itself after `index` pieces, or because it was cancelled.
    pub(super) fn last(index: i64, reply: &Reply) -> Self {
        let was_cancelled = reply.stop_reason == StopReason::Cancelled;
        Self {
            kind: if was_cancelled { "cancelled" } else { "text" },
            index: if was_cancelled { -1 } else { index },
            is_final: true,
            delta: None,
            end: Some(ChunkEnd {
                time_to_first_token: reply.timings.time_to_first_token,
                prompt_tokens: reply.usage.prompt_tokens,
                generated_tokens: reply.usage.generated_tokens,
                tokens_per_second: reply.timings.tokens_per_second(),
                total_seconds: reply.timings.total_seconds,
                stop_reason: reply.stop_reason,
            }),
        }
    }
}

/// What became of a model (`ModelStatus`).
#[derive(Serialize)]
pub(super) struct Status<'a> {
    pub(super) model_name: &'a str,
    pub(super) model_type: &'static str,
    pub(super) status: &'a str,
    /// What was asked for and is not done.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    pub(super) notes: &'a [String],
}

/// A model in a list.
#[derive(Serialize)]
pub(super) struct Listed<'a> {
    model_name: &'a str,
    model_type: &'static str,
    status: &'static str,
    running: usize,
    footprint_mb: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    load_report: &'a LoadReport,
}

impl<'a> From<&'a ModelStatus> for Listed<'a> {
    fn from(model: &'a ModelStatus) -> Self {
        Self {
            model_name: &model.name,
            model_type: super::start::MODEL_TYPE,
            status: model.state.name(),
            running: model.running,
            footprint_mb: model.footprint_bytes as f64 / f64::from(1 << 20),
            error: model.error.as_deref(),
            load_report: &model.load_report,
        }
    }
}

/// How far a load is (`LoadProgress`).
#[derive(Serialize)]
pub(super) struct LoadProgress<'a> {
    pub(super) phase: &'static str,
    pub(super) fraction: f64,
    pub(super) model: &'a str,
}

/// As JSON. These shapes have string keys and finite numbers, so nothing can fail.
pub(super) fn to_value(shape: &impl Serialize) -> Value {
    serde_json::to_value(shape).unwrap_or_default()
}
