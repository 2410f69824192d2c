//! Replies in Ollama's form: one JSON object, or one a line.

use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde_json::Value;
use tercel::TokenLogprob;
use utoipa::ToSchema;

use super::error::OllamaError;
use super::time::{duration, nanos, rfc3339};
use crate::error::ApiError;
use crate::routes::whole::Whole;
use crate::stream::Encoder;
use crate::work::{Finished, Piece, TercelBlock};

/// Lines of JSON.
pub(super) const NDJSON: &str = "application/x-ndjson";

/// A piece of a reply, or all of it.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ollama::Record)]
pub(super) struct Record {
    model: String,
    /// RFC 3339, in UTC.
    created_at: String,
    /// Of `/api/chat`.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<RecordMessage>,
    /// Of `/api/generate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<String>,
    /// Of `/api/generate`: what the model thought before it answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    logprobs: Vec<RecordLogprob>,
    /// Whether it is the last one.
    done: bool,
    #[serde(flatten)]
    ending: Option<Ending>,
}

/// What the model says.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ollama::RecordMessage)]
pub(super) struct RecordMessage {
    /// `assistant`.
    role: &'static str,
    content: String,
    /// What the model thought before it answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking: Option<String>,
    /// What it calls, whole.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<RecordCall>,
}

/// A call of a tool.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = ollama::RecordCall)]
pub(super) struct RecordCall {
    id: String,
    function: RecordFunction,
}

/// What is called.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = ollama::RecordFunction)]
pub(super) struct RecordFunction {
    /// Which call of the reply.
    index: usize,
    name: String,
    #[schema(value_type = Object)]
    arguments: Value,
}

/// How likely a token was.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = ollama::RecordLogprob)]
pub(super) struct RecordLogprob {
    /// Its text; what is no whole character is replaced.
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
    /// The most likely ones in its place.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    top_logprobs: Vec<RecordTopLogprob>,
}

/// How likely another token was.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = ollama::RecordTopLogprob)]
pub(super) struct RecordTopLogprob {
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
}

/// What the last record has beside.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
#[schema(as = ollama::Ending)]
pub(super) struct Ending {
    /// `stop`, `length`, `load` or `unload`.
    done_reason: &'static str,
    /// Nanoseconds from the request to the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    total_duration: Option<u64>,
    /// Nanoseconds until the model was there.
    #[serde(skip_serializing_if = "Option::is_none")]
    load_duration: Option<u64>,
    /// Tokens of the prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_eval_count: Option<usize>,
    /// Nanoseconds of work on the prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_eval_duration: Option<u64>,
    /// Tokens of the reply.
    #[serde(skip_serializing_if = "Option::is_none")]
    eval_count: Option<usize>,
    /// Nanoseconds of work on the reply.
    #[serde(skip_serializing_if = "Option::is_none")]
    eval_duration: Option<u64>,
    /// What was not done as asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    adjustments: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tercel: Option<TercelBlock>,
}

/// Which route answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Chat,
    Generate,
}

/// Makes records of one reply.
pub(super) struct Records {
    shape: Shape,
    model: String,
    /// From the request to its admission by the engine.
    waited: Duration,
    adjustments: Vec<String>,
    /// Those of the piece that follows.
    logprobs: Vec<TokenLogprob>,
}

impl Records {
    pub(super) fn new(
        shape: Shape,
        model: String,
        waited: Duration,
        adjustments: Vec<String>,
    ) -> Self {
        Self {
            shape,
            model,
            waited,
            adjustments,
            logprobs: Vec::new(),
        }
    }

    /// The reply in one piece.
    pub(super) fn whole(mut self, whole: Whole) -> Record {
        self.logprobs = whole.logprobs;
        let ending = self.ending(&whole.finished);
        let calls = calls(&whole.finished);
        let mut record = self.record(whole.finished.text, whole.thinking, Some(ending));
        if let Some(message) = &mut record.message {
            message.tool_calls = calls;
        }
        record
    }

    /// The answer where nothing was asked; `reason` says what was done.
    pub(super) fn presence(mut self, reason: &'static str) -> Record {
        let ending = Ending {
            done_reason: reason,
            adjustments: std::mem::take(&mut self.adjustments),
            ..Ending::default()
        };
        self.record(String::new(), String::new(), Some(ending))
    }

    fn record(&mut self, text: String, thought: String, ending: Option<Ending>) -> Record {
        let thought = (!thought.is_empty()).then_some(thought);
        let (message, response, thinking) = match self.shape {
            Shape::Chat => {
                let message = RecordMessage {
                    role: "assistant",
                    content: text,
                    thinking: thought,
                    tool_calls: Vec::new(),
                };
                (Some(message), None, None)
            }
            Shape::Generate => (None, Some(text), thought),
        };
        Record {
            model: self.model.clone(),
            created_at: rfc3339(SystemTime::now()),
            message,
            response,
            thinking,
            logprobs: self.logprobs.drain(..).map(RecordLogprob::from).collect(),
            done: ending.is_some(),
            ending,
        }
    }

    fn ending(&mut self, finished: &Finished) -> Ending {
        let (usage, timings) = (&finished.reply.usage, &finished.reply.timings);
        let durations = Durations::of(
            self.waited,
            timings.format_seconds + timings.tokenize_seconds,
            timings.total_seconds,
        );
        Ending {
            done_reason: match finished.finish_reason() {
                "length" => "length",
                // The block `tercel` tells whether a filter did it.
                _ => "stop",
            },
            total_duration: Some(durations.total),
            load_duration: Some(durations.load),
            prompt_eval_count: Some(usage.prompt_tokens),
            prompt_eval_duration: Some(nanos(duration(timings.prefill_seconds))),
            eval_count: Some(usage.generated_tokens),
            eval_duration: Some(nanos(duration(timings.decode_seconds))),
            adjustments: std::mem::take(&mut self.adjustments),
            tercel: Some(finished.block()),
        }
    }
}

/// Nanoseconds that Ollama's clients are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Durations {
    total: u64,
    load: u64,
}

impl Durations {
    /// `waited` until the engine took the request, `prepare_seconds` of which went into its
    /// prompt; the engine counts these among its `total_seconds`.
    fn of(waited: Duration, prepare_seconds: f64, total_seconds: f64) -> Self {
        let load = waited.saturating_sub(duration(prepare_seconds));
        Self {
            total: nanos(load.saturating_add(duration(total_seconds))),
            load: nanos(load),
        }
    }
}

impl Encoder for Records {
    fn start(&mut self, _out: &mut Vec<u8>) {}

    fn piece(&mut self, _index: usize, piece: Piece, out: &mut Vec<u8>) {
        let record = match piece {
            Piece::Text(text) => self.record(text, String::new(), None),
            Piece::Thinking(thought) => self.record(String::new(), thought, None),
            Piece::Logprobs(logprobs) => return self.logprobs.extend(logprobs),
            // They are told whole.
            Piece::Call(_) | Piece::Done(_) => return,
        };
        line(&record, out);
    }

    fn done(&mut self, _index: usize, finished: &Finished, out: &mut Vec<u8>) {
        let calls = calls(finished);
        if !calls.is_empty() {
            let mut record = self.record(String::new(), String::new(), None);
            if let Some(message) = &mut record.message {
                message.tool_calls = calls;
            }
            line(&record, out);
        }
        let ending = self.ending(finished);
        line(
            &self.record(String::new(), String::new(), Some(ending)),
            out,
        );
    }

    fn end(&mut self, _finished: &[Finished], _out: &mut Vec<u8>) {}

    fn fail(&mut self, error: &ApiError, out: &mut Vec<u8>) {
        line(&OllamaError::from(error), out);
    }
}

/// The calls of a reply.
fn calls(finished: &Finished) -> Vec<RecordCall> {
    let calls = finished.reply.tool_calls.iter().enumerate();
    let calls = calls.map(|(index, call)| RecordCall {
        id: call.id.clone().unwrap_or_default(),
        function: RecordFunction {
            index,
            name: call.name.clone(),
            arguments: call.arguments.clone(),
        },
    });
    calls.collect()
}

/// One line of JSON.
pub(super) fn line(value: &impl Serialize, out: &mut Vec<u8>) {
    let length = out.len();
    if serde_json::to_writer(&mut *out, value).is_err() {
        // Only maps with keys that are no strings fail, and no record has any.
        out.truncate(length);
        return;
    }
    out.push(b'\n');
}

impl From<TokenLogprob> for RecordLogprob {
    fn from(token: TokenLogprob) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let top = token.top.into_iter().map(|other| RecordTopLogprob {
            token: text(&other.bytes),
            logprob: other.logprob,
            bytes: other.bytes,
        });
        Self {
            top_logprobs: top.collect(),
            token: text(&token.bytes),
            logprob: token.logprob,
            bytes: token.bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn records(shape: Shape) -> Records {
        let notes = vec!["keep_alive: as configured".to_owned()];
        Records::new(shape, "small".to_owned(), Duration::ZERO, notes)
    }

    fn read(out: Vec<u8>) -> Vec<Value> {
        let text = String::from_utf8(out).expect("text");
        let lines = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"));
        lines.collect()
    }

    #[test]
    fn pieces_are_lines() {
        for (shape, thought, text) in [
            (
                Shape::Chat,
                json!({"message": {"role": "assistant", "content": "", "thinking": "hm"}}),
                json!({"message": {"role": "assistant", "content": "a\nb"}}),
            ),
            (
                Shape::Generate,
                json!({"response": "", "thinking": "hm"}),
                json!({"response": "a\nb"}),
            ),
        ] {
            let (mut records, mut out) = (records(shape), Vec::new());
            records.start(&mut out);
            records.piece(0, Piece::Thinking("hm".into()), &mut out);
            records.piece(0, Piece::Text("a\nb".into()), &mut out);
            let mut lines = read(out);
            assert_eq!(lines.len(), 2);
            for (line, expected) in lines.iter_mut().zip([thought, text]) {
                let fields = line.as_object_mut().expect("an object");
                let created = fields.shift_remove("created_at").expect("a time");
                assert!(created.as_str().expect("text").ends_with('Z'));
                assert_eq!(fields.shift_remove("model"), Some(json!("small")));
                assert_eq!(fields.shift_remove("done"), Some(json!(false)));
                assert_eq!(*line, expected);
            }
        }
    }

    #[test]
    fn the_answer_to_nothing_says_what_was_done() {
        for (shape, field) in [(Shape::Chat, "message"), (Shape::Generate, "response")] {
            let record = records(shape).presence("unload");
            let record = serde_json::to_value(record).expect("JSON");
            assert_eq!(record["done_reason"], "unload");
            assert_eq!(record["done"], true);
            assert_eq!(record["adjustments"], json!(["keep_alive: as configured"]));
            assert!(record.get(field).is_some());
            assert!(record.get("total_duration").is_none());
        }
    }

    #[test]
    fn the_wait_for_the_model_is_told_apart() {
        let second = Duration::from_secs(1);
        for (waited, prepare, total, expected) in [
            (second, 0.25, 2.0, (2_750_000_000, 750_000_000)),
            (Duration::ZERO, 0.25, 2.0, (2_000_000_000, 0)),
            (second, 0.0, f64::NAN, (1_000_000_000, 1_000_000_000)),
        ] {
            let durations = Durations::of(waited, prepare, total);
            assert_eq!((durations.total, durations.load), expected);
        }
    }

    #[test]
    fn a_failure_in_a_stream_is_a_text() {
        let mut out = Vec::new();
        let error = ApiError::from(tercel::Error::EngineClosed);
        records(Shape::Chat).fail(&error, &mut out);
        let lines = read(out);
        assert_eq!(lines[0]["error"], json!(error.message));
        assert_eq!(lines[0]["code"], "engine_closed");
    }
}
