//! The lines of a streamed reply (8.1, 8.3).

use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::stream::{self, Encoder};
use crate::work::{Finished, Piece, TercelBlock};

/// One JSON value a line.
pub(super) const CONTENT_TYPE: &str = "application/x-ndjson";

/// What ends a stream, under the key `done`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = tercel::Footer)]
pub(super) struct Footer {
    /// Always true.
    pub(super) done: bool,
    #[serde(flatten)]
    pub(super) ending: Ending,
    /// Pieces that were dropped because the reader was slow; `text` is whole all the same.
    pub(super) dropped_count: u64,
    /// How the reply came about.
    pub(super) tercel: TercelBlock,
}

/// How a reply ended (8.3).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = tercel::Ending)]
pub(super) struct Ending {
    /// The whole text, or what there was of it when it was stopped.
    pub(super) text: String,
    /// Whether it was stopped from outside and is incomplete.
    pub(super) stopped: bool,
    /// `eos`, `stop_sequence`, `max_new_tokens`, `context_full`, `cancelled`, `timeout` or
    /// `resource_limit`.
    pub(super) reason: &'static str,
    pub(super) tokens_generated: usize,
    pub(super) elapsed_ms: u64,
}

impl Ending {
    pub(super) fn of(finished: &Finished) -> Self {
        let seconds = finished.reply.timings.total_seconds;
        let elapsed = std::time::Duration::try_from_secs_f64(seconds).unwrap_or_default();
        Self {
            text: finished.text.clone(),
            stopped: finished.is_incomplete(),
            reason: finished.stop_reason().name(),
            tokens_generated: finished.reply.usage.generated_tokens,
            elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// Writes a stream of which nothing is dropped.
pub(super) struct Lines;

impl Lines {
    pub(super) fn delta(text: &str, out: &mut Vec<u8>) {
        line(&json!({ "delta": text }), out);
    }

    pub(super) fn thinking(text: &str, out: &mut Vec<u8>) {
        line(&json!({ "thinking": text }), out);
    }

    pub(super) fn warning(out: &mut Vec<u8>) {
        line(
            &json!({"type": "stream_warning", "reason": "dropped_chunks"}),
            out,
        );
    }

    pub(super) fn footer(finished: &Finished, dropped_count: u64, out: &mut Vec<u8>) {
        let footer = Footer {
            done: true,
            ending: Ending::of(finished),
            dropped_count,
            tercel: finished.block(),
        };
        line(&footer, out);
    }

    pub(super) fn error(error: &ApiError, out: &mut Vec<u8>) {
        line(&error.body(), out);
    }
}

impl Encoder for Lines {
    fn start(&mut self, _: &mut Vec<u8>) {}

    fn piece(&mut self, _: usize, piece: Piece, out: &mut Vec<u8>) {
        match piece {
            Piece::Text(text) => Self::delta(&text, out),
            Piece::Thinking(text) => Self::thinking(&text, out),
            // Not asked for here.
            Piece::Call(_) | Piece::Logprobs(_) | Piece::Done(_) => {}
        }
    }

    fn done(&mut self, _: usize, finished: &Finished, out: &mut Vec<u8>) {
        Self::footer(finished, 0, out);
    }

    fn end(&mut self, _: &[Finished], _: &mut Vec<u8>) {}

    fn fail(&mut self, error: &ApiError, out: &mut Vec<u8>) {
        Self::error(error, out);
    }
}

fn line(value: &impl Serialize, out: &mut Vec<u8>) {
    stream::json(value, out);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_record_is_one_line() {
        let mut out = Vec::new();
        let mut lines = Lines;
        lines.start(&mut out);
        lines.piece(0, Piece::Thinking("hm\n".to_owned()), &mut out);
        lines.piece(0, Piece::Text("a\nb \u{1f600}".to_owned()), &mut out);
        Lines::warning(&mut out);
        lines.fail(&ApiError::bad_request("timeout", "too late"), &mut out);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text,
            "{\"thinking\":\"hm\\n\"}\n{\"delta\":\"a\\nb \u{1f600}\"}\n\
             {\"type\":\"stream_warning\",\"reason\":\"dropped_chunks\"}\n\
             {\"error\":{\"message\":\"too late\",\"type\":\"invalid_request_error\",\
             \"param\":null,\"code\":\"timeout\"}}\n"
        );
    }
}
