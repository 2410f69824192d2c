//! Replies in Anthropic's form, as they come.

use serde_json::json;

use super::error::AnthropicError;
use super::reply::{Ending, MessageReply, ReplyBlock};
use crate::error::ApiError;
use crate::ids::RequestId;
use crate::stream::{Encoder, Sse};
use crate::work::{Begun, CallPiece, Finished, Piece};

/// Makes events of one reply.
pub(super) struct Events {
    request_id: RequestId,
    /// What goes into the first event.
    empty: MessageReply,
    /// The block that is being sent.
    open: Option<Kind>,
    /// Blocks that were begun.
    blocks: usize,
    /// Whether there is what every reply has: a text or a call.
    is_answered: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Thinking,
    Text,
    /// One of the reply's calls.
    Call(usize),
}

impl Events {
    pub(super) fn new(request_id: RequestId, empty: MessageReply) -> Self {
        Self {
            request_id,
            empty,
            open: None,
            blocks: 0,
            is_answered: false,
        }
    }

    /// Makes `kind` the block that is being sent, and gives its index. A call has a beginning.
    fn enter(&mut self, kind: Kind, begun: Option<Begun>, out: &mut Vec<u8>) -> usize {
        if self.open != Some(kind) {
            self.close(out);
            let text = String::new();
            let block = match (kind, begun) {
                (Kind::Thinking, _) => ReplyBlock::Thinking {
                    thinking: text,
                    signature: "",
                },
                (Kind::Call(_), Some(Begun { id, name })) => ReplyBlock::ToolUse {
                    id,
                    name,
                    input: json!({}),
                },
                (Kind::Text | Kind::Call(_), _) => ReplyBlock::Text { text },
            };
            let event = json!({
                "type": "content_block_start",
                "index": self.blocks,
                "content_block": block,
            });
            Sse::event("content_block_start", &event, out);
            self.open = Some(kind);
            self.blocks += 1;
            self.is_answered |= kind != Kind::Thinking;
        }
        self.blocks.saturating_sub(1)
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        if self.open.take().is_some() {
            let index = self.blocks.saturating_sub(1);
            let event = json!({"type": "content_block_stop", "index": index});
            Sse::event("content_block_stop", &event, out);
        }
    }

    fn ended(&mut self, ending: &Ending, out: &mut Vec<u8>) {
        if !self.is_answered {
            self.enter(Kind::Text, None, out);
        }
        self.close(out);
        let event = json!({
            "type": "message_delta",
            "delta": {
                "stop_reason": ending.stop_reason,
                "stop_sequence": ending.stop_sequence,
            },
            "usage": ending.usage,
            "tercel": ending.tercel,
        });
        Sse::event("message_delta", &event, out);
    }
}

impl Encoder for Events {
    fn start(&mut self, out: &mut Vec<u8>) {
        let event = json!({"type": "message_start", "message": self.empty});
        Sse::event("message_start", &event, out);
        Sse::event("ping", &json!({"type": "ping"}), out);
    }

    fn piece(&mut self, _index: usize, piece: Piece, out: &mut Vec<u8>) {
        let (kind, begun, delta) = match piece {
            Piece::Thinking(text) => (
                Kind::Thinking,
                None,
                json!({"type": "thinking_delta", "thinking": text}),
            ),
            Piece::Text(text) => (
                Kind::Text,
                None,
                json!({"type": "text_delta", "text": text}),
            ),
            Piece::Call(CallPiece {
                index,
                begun,
                arguments,
            }) => (
                Kind::Call(index),
                begun,
                json!({"type": "input_json_delta", "partial_json": arguments}),
            ),
            // The protocol cannot ask for them.
            Piece::Logprobs(_) | Piece::Done(_) => return,
        };
        let index = self.enter(kind, begun, out);
        let event = json!({"type": "content_block_delta", "index": index, "delta": delta});
        Sse::event("content_block_delta", &event, out);
    }

    fn done(&mut self, _index: usize, finished: &Finished, out: &mut Vec<u8>) {
        self.ended(&Ending::of(finished), out);
    }

    fn end(&mut self, _finished: &[Finished], out: &mut Vec<u8>) {
        Sse::event("message_stop", &json!({"type": "message_stop"}), out);
    }

    fn fail(&mut self, error: &ApiError, out: &mut Vec<u8>) {
        Sse::event("error", &AnthropicError::new(error, &self.request_id), out);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::reply::ReplyUsage;
    use super::*;

    fn events() -> Events {
        let empty = MessageReply::empty("msg_1".to_owned(), "small".to_owned(), 5);
        Events::new(RequestId::new(), empty)
    }

    /// The data of the events, each of which must be named by its type.
    fn read(out: Vec<u8>) -> Vec<Value> {
        let text = String::from_utf8(out).expect("text");
        let events = text.split_terminator("\n\n").map(|event| {
            let (name, data) = event.split_once('\n').expect("two lines");
            let data: Value =
                serde_json::from_str(data.strip_prefix("data: ").expect("data")).expect("JSON");
            assert_eq!(name.strip_prefix("event: "), data["type"].as_str());
            data
        });
        events.collect()
    }

    fn ending() -> Ending {
        Ending {
            stop_reason: "stop_sequence",
            stop_sequence: Some("x".to_owned()),
            usage: ReplyUsage {
                input_tokens: 2,
                output_tokens: 4,
                cache_read_input_tokens: 3,
                cache_creation_input_tokens: 0,
            },
            tercel: None,
        }
    }

    fn reply(pieces: &[Piece]) -> Vec<Value> {
        let (mut events, mut out) = (events(), Vec::new());
        events.start(&mut out);
        for piece in pieces {
            events.piece(0, piece.clone(), &mut out);
        }
        events.ended(&ending(), &mut out);
        events.end(&[], &mut out);
        read(out)
    }

    fn types(events: &[Value]) -> Vec<&str> {
        events
            .iter()
            .filter_map(|event| event["type"].as_str())
            .collect()
    }

    #[test]
    fn a_thought_and_a_text_are_two_blocks_in_order() {
        let events = reply(&[
            Piece::Thinking("h".into()),
            Piece::Thinking("m".into()),
            Piece::Text("a".into()),
        ]);
        let expected = [
            "message_start",
            "ping",
            "content_block_start",
            "content_block_delta",
            "content_block_delta",
            "content_block_stop",
            "content_block_start",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop",
        ];
        assert_eq!(types(&events), expected);
        let message = &events[0]["message"];
        assert_eq!(
            (&message["id"], &message["role"]),
            (&json!("msg_1"), &json!("assistant"))
        );
        assert_eq!(
            (&message["content"], &message["stop_reason"]),
            (&json!([]), &Value::Null)
        );
        assert_eq!(message["usage"]["input_tokens"], 5);
        assert_eq!(events[2]["content_block"]["type"], "thinking");
        assert_eq!(
            events[3]["delta"],
            json!({"type": "thinking_delta", "thinking": "h"})
        );
        assert_eq!(
            events[6]["content_block"],
            json!({"type": "text", "text": ""})
        );
        assert_eq!(
            events[7]["delta"],
            json!({"type": "text_delta", "text": "a"})
        );
        let indices: Vec<&Value> = events[2..9].iter().map(|event| &event["index"]).collect();
        assert_eq!(indices, [0, 0, 0, 0, 1, 1, 1]);
        let delta = json!({"stop_reason": "stop_sequence", "stop_sequence": "x"});
        assert_eq!(events[9]["delta"], delta);
        assert_eq!(events[9]["usage"]["cache_read_input_tokens"], 3);
    }

    #[test]
    fn each_call_is_a_block_whose_arguments_come_in_pieces() {
        let call = |index, name: Option<&str>, arguments: &str| {
            let begun = name.map(|name| Begun {
                id: format!("c{index}"),
                name: name.to_owned(),
            });
            Piece::Call(CallPiece {
                index,
                begun,
                arguments: arguments.to_owned(),
            })
        };
        let events = reply(&[
            Piece::Text("a".into()),
            call(0, Some("add"), "{"),
            call(0, None, "}"),
            call(1, Some("now"), "{}"),
        ]);
        let blocks: Vec<&Value> = events
            .iter()
            .filter(|event| event["type"] == "content_block_start")
            .map(|event| &event["content_block"])
            .collect();
        assert_eq!(
            blocks,
            [
                &json!({"type": "text", "text": ""}),
                &json!({"type": "tool_use", "id": "c0", "name": "add", "input": {}}),
                &json!({"type": "tool_use", "id": "c1", "name": "now", "input": {}}),
            ]
        );
        let deltas = events.iter().filter(|event| event["index"] == 1);
        let deltas: Vec<&Value> = deltas
            .map(|event| &event["delta"]["partial_json"])
            .collect();
        assert_eq!(
            deltas,
            [&Value::Null, &json!("{"), &json!("}"), &Value::Null]
        );
    }

    #[test]
    fn a_reply_without_a_text_has_an_empty_one() {
        for pieces in [vec![], vec![Piece::Thinking("h".into())]] {
            let events = reply(&pieces);
            let mut blocks = events
                .iter()
                .filter(|event| event["type"] == "content_block_start");
            assert_eq!(
                blocks.next_back().expect("a block")["content_block"]["type"],
                "text"
            );
        }
    }

    #[test]
    fn a_failure_is_an_event() {
        let (mut events, mut out) = (events(), Vec::new());
        events.fail(&ApiError::from(tercel::Error::EngineClosed), &mut out);
        let events = read(out);
        assert_eq!(types(&events), ["error"]);
        assert_eq!(events[0]["error"]["type"], "overloaded_error");
    }
}
