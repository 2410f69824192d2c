//! A chat's reply, sent in chunks.

use serde::Serialize;

use crate::error::ApiError;
use crate::routes::openai::head::Head;
use crate::routes::openai::logprobs::{ChoiceLogprobs, TokenEntry, entries};
use crate::routes::openai::tools::CallDelta;
use crate::routes::openai::usage::Usage;
use crate::stream::{Encoder, Sse};
use crate::work::{Finished, Piece, TercelBlock};

/// Writes chunks: the role first, then what comes, then why it ended.
pub(super) struct ChatEncoder {
    head: Head,
    include_usage: bool,
    /// Of each choice, tokens whose text is still to come.
    waiting: Vec<Vec<TokenEntry>>,
}

#[derive(Serialize)]
struct Chunk<'a, B: Serialize> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    system_fingerprint: Option<&'a str>,
    service_tier: &'static str,
    /// Empty in the one that tells the counts.
    choices: &'a [Part<'a>],
    /// There where counts are asked for, and nothing but in the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Usage>>,
    /// How the choice came about; in its last chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    tercel: Option<B>,
}

#[derive(Serialize)]
struct Part<'a> {
    index: usize,
    delta: Delta<'a>,
    logprobs: Option<ChoiceLogprobs>,
    finish_reason: Option<&'static str>,
}

#[derive(Default, Serialize)]
struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<[CallDelta<'a>; 1]>,
}

impl ChatEncoder {
    pub(super) fn new(head: Head, choices: usize, include_usage: bool) -> Self {
        Self {
            head,
            include_usage,
            waiting: vec![Vec::new(); choices],
        }
    }

    /// A chunk about one choice, with the tokens that waited for it.
    fn chunk<B: Serialize>(
        &mut self,
        index: usize,
        delta: Delta<'_>,
        end: Option<(&'static str, B)>,
        out: &mut Vec<u8>,
    ) {
        let waiting = self
            .waiting
            .get_mut(index)
            .map(std::mem::take)
            .unwrap_or_default();
        let logprobs = (!waiting.is_empty()).then(|| ChoiceLogprobs::new(waiting));
        let finish_reason = end.as_ref().map(|(reason, _)| *reason);
        let part = Part {
            index,
            delta,
            logprobs,
            finish_reason,
        };
        let usage = self.include_usage.then_some(None);
        self.write(&[part], usage, end.map(|(_, block)| block), out);
    }

    fn write<B: Serialize>(
        &self,
        choices: &[Part<'_>],
        usage: Option<Option<Usage>>,
        tercel: Option<B>,
        out: &mut Vec<u8>,
    ) {
        let Head {
            id,
            created,
            model,
            fingerprint,
        } = &self.head;
        let chunk = Chunk {
            id,
            object: "chat.completion.chunk",
            created: *created,
            model,
            system_fingerprint: fingerprint.as_deref(),
            service_tier: "default",
            choices,
            usage,
            tercel,
        };
        Sse::data(&chunk, out);
    }

    /// More text or more of a thought.
    fn delta(&mut self, index: usize, delta: Delta<'_>, out: &mut Vec<u8>) {
        self.chunk(index, delta, None::<(_, TercelBlock)>, out);
    }

    /// The last chunk, where counts are asked for, and the end.
    fn close(&self, usage: Usage, out: &mut Vec<u8>) {
        if self.include_usage {
            self.write(&[], Some(Some(usage)), None::<TercelBlock>, out);
        }
        Sse::done(out);
    }
}

impl Encoder for ChatEncoder {
    fn start(&mut self, out: &mut Vec<u8>) {
        for index in 0..self.waiting.len() {
            let delta = Delta {
                role: Some("assistant"),
                content: Some(""),
                ..Delta::default()
            };
            self.delta(index, delta, out);
        }
    }

    fn piece(&mut self, index: usize, piece: Piece, out: &mut Vec<u8>) {
        match piece {
            Piece::Thinking(text) => {
                let delta = Delta {
                    reasoning_content: Some(&text),
                    ..Delta::default()
                };
                self.delta(index, delta, out);
            }
            Piece::Text(text) => {
                let delta = Delta {
                    content: Some(&text),
                    ..Delta::default()
                };
                self.delta(index, delta, out);
            }
            Piece::Call(call) => {
                let delta = Delta {
                    tool_calls: Some([CallDelta::of(&call)]),
                    ..Delta::default()
                };
                self.delta(index, delta, out);
            }
            Piece::Logprobs(tokens) => {
                if let Some(waiting) = self.waiting.get_mut(index) {
                    waiting.extend(entries(&tokens));
                }
            }
            Piece::Done(_) => {}
        }
    }

    fn done(&mut self, index: usize, finished: &Finished, out: &mut Vec<u8>) {
        let end = (finished.finish_reason(), finished.block());
        self.chunk(index, Delta::default(), Some(end), out);
    }

    fn end(&mut self, finished: &[Finished], out: &mut Vec<u8>) {
        self.close(Usage::of_replies(finished, finished.len().max(1)), out);
    }

    fn fail(&mut self, error: &ApiError, out: &mut Vec<u8>) {
        Sse::data(&error.body(), out);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::routes::openai::logprobs::entry;
    use crate::work::{Begun, CallPiece};

    /// The events of a stream; `[DONE]` is null.
    fn events(out: &[u8]) -> Vec<Value> {
        let text = std::str::from_utf8(out).unwrap();
        let events = text
            .split_terminator("\n\n")
            .map(|event| event.strip_prefix("data: ").unwrap());
        events
            .map(|data| serde_json::from_str(data).unwrap_or(Value::Null))
            .collect()
    }

    #[test]
    fn the_role_comes_first_the_counts_and_the_end_last() {
        let mut encoder = ChatEncoder::new(Head::for_tests(), 1, true);
        let mut out = Vec::new();
        encoder.start(&mut out);
        encoder.piece(0, Piece::Thinking("hm".to_owned()), &mut out);
        encoder.piece(0, Piece::Text("a\nb".to_owned()), &mut out);
        encoder.chunk(
            0,
            Delta::default(),
            Some(("stop", json!({"seed": 1}))),
            &mut out,
        );
        encoder.close(
            Usage {
                total_tokens: 3,
                ..Usage::default()
            },
            &mut out,
        );
        let events = events(&out);
        let choice = |delta: Value, finish_reason: Value| json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish_reason}]);
        let choices: Vec<&Value> = events
            .iter()
            .take(5)
            .map(|event| &event["choices"])
            .collect();
        assert_eq!(
            choices,
            [
                &choice(json!({"role": "assistant", "content": ""}), Value::Null),
                &choice(json!({"reasoning_content": "hm"}), Value::Null),
                &choice(json!({"content": "a\nb"}), Value::Null),
                &choice(json!({}), json!("stop")),
                &json!([]),
            ]
        );
        for event in &events[..5] {
            assert_eq!(event["id"], "id");
            assert_eq!(event["object"], "chat.completion.chunk");
            assert_eq!(
                (&event["created"], &event["model"]),
                (&json!(7), &json!("small"))
            );
            assert_eq!(event["system_fingerprint"], "fp_1");
        }
        assert!(events[..4].iter().all(|event| event["usage"].is_null()));
        assert!(events[..4].iter().all(|event| event.get("usage").is_some()));
        assert_eq!(events[4]["usage"]["total_tokens"], 3);
        assert_eq!(events[3]["tercel"], json!({"seed": 1}));
        assert!(events[2].get("tercel").is_none());
        assert!(out.ends_with(b"data: [DONE]\n\n"));
        assert_eq!(events.len(), 6);
    }

    #[test]
    fn calls_come_with_their_name_first_and_then_their_arguments() {
        let mut encoder = ChatEncoder::new(Head::for_tests(), 1, false);
        let mut out = Vec::new();
        let begun = Begun {
            id: "c1".to_owned(),
            name: "add".to_owned(),
        };
        for (begun, arguments) in [(Some(begun), ""), (None, "{\"a\""), (None, ": 1}")] {
            let call = CallPiece {
                index: 0,
                begun,
                arguments: arguments.to_owned(),
            };
            encoder.piece(0, Piece::Call(call), &mut out);
        }
        let events = events(&out);
        let deltas: Vec<&Value> = events
            .iter()
            .map(|event| &event["choices"][0]["delta"]["tool_calls"][0])
            .collect();
        assert_eq!(
            deltas,
            [
                &json!({"index": 0, "id": "c1", "type": "function",
                    "function": {"name": "add", "arguments": ""}}),
                &json!({"index": 0, "function": {"arguments": "{\"a\""}}),
                &json!({"index": 0, "function": {"arguments": ": 1}"}}),
            ]
        );
    }

    #[test]
    fn without_options_there_are_no_counts() {
        let mut encoder = ChatEncoder::new(Head::for_tests(), 1, false);
        let mut out = Vec::new();
        encoder.start(&mut out);
        encoder.close(Usage::default(), &mut out);
        let events = events(&out);
        assert_eq!(events.len(), 2);
        assert!(events[0].get("usage").is_none());
    }

    #[test]
    fn choices_keep_their_index_and_their_tokens() {
        let mut encoder = ChatEncoder::new(Head::for_tests(), 2, false);
        let mut out = Vec::new();
        encoder.start(&mut out);
        encoder.waiting[1].push(entry(b"b", -0.5, std::iter::empty()));
        encoder.piece(0, Piece::Text("a".to_owned()), &mut out);
        encoder.piece(1, Piece::Text("b".to_owned()), &mut out);
        encoder.piece(1, Piece::Text("c".to_owned()), &mut out);
        let events = events(&out);
        let parts: Vec<(i64, bool)> = events
            .iter()
            .map(|event| &event["choices"][0])
            .map(|part| (part["index"].as_i64().unwrap(), part["logprobs"].is_null()))
            .collect();
        assert_eq!(
            parts,
            [(0, true), (1, true), (0, true), (1, false), (1, true)]
        );
        assert_eq!(
            events[3]["choices"][0]["logprobs"]["content"][0]["token"],
            "b"
        );
    }

    #[test]
    fn a_failure_is_an_event_with_the_error_object() {
        let mut encoder = ChatEncoder::new(Head::for_tests(), 1, false);
        let mut out = Vec::new();
        encoder.fail(&ApiError::bad_request("bad", "no"), &mut out);
        let want = json!({"error": {"message": "no", "type": "invalid_request_error",
            "param": null, "code": "bad"}});
        assert_eq!(events(&out), [want]);
    }
}
