//! Replies in Anthropic's form, in one piece.

use serde::Serialize;
use serde_json::Value;
use tercel::{StopReason, ToolCall};
use utoipa::ToSchema;

use crate::routes::whole::Whole;
use crate::work::{Finished, TercelBlock};

/// A reply of `/v1/messages`.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = anthropic::MessageReply)]
pub(super) struct MessageReply {
    id: String,
    /// `message`.
    #[serde(rename = "type")]
    kind: &'static str,
    /// `assistant`.
    role: &'static str,
    model: String,
    content: Vec<ReplyBlock>,
    /// `end_turn`, `tool_use`, `max_tokens`, `stop_sequence`, or `refusal` where a filter changed the reply.
    stop_reason: Option<&'static str>,
    stop_sequence: Option<String>,
    usage: ReplyUsage,
    #[serde(skip_serializing_if = "Option::is_none")]
    tercel: Option<TercelBlock>,
}

/// A piece of a reply.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = anthropic::ReplyBlock)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum ReplyBlock {
    /// What the model thought.
    Thinking {
        thinking: String,
        /// Empty: thoughts are not signed.
        signature: &'static str,
    },
    /// What it answered.
    Text { text: String },
    /// A tool that it calls.
    ToolUse {
        id: String,
        name: String,
        /// The arguments.
        #[schema(value_type = Object)]
        input: Value,
    },
}

/// Tokens of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = anthropic::ReplyUsage)]
pub(super) struct ReplyUsage {
    /// Those of the prompt that had to be computed.
    pub(super) input_tokens: usize,
    pub(super) output_tokens: usize,
    /// Those of the prompt that were there from before.
    pub(super) cache_read_input_tokens: usize,
    /// 0: what is kept for later costs nothing.
    pub(super) cache_creation_input_tokens: usize,
}

/// A reply of `/v1/messages/count_tokens`.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[schema(as = anthropic::TokenCount)]
pub(super) struct TokenCount {
    /// Tokens of the whole prompt, template included.
    pub(super) input_tokens: usize,
}

/// How a reply ended.
#[derive(Clone, Debug)]
pub(super) struct Ending {
    pub(super) stop_reason: &'static str,
    pub(super) stop_sequence: Option<String>,
    pub(super) usage: ReplyUsage,
    pub(super) tercel: Option<TercelBlock>,
}

impl Ending {
    pub(super) fn of(finished: &Finished) -> Self {
        let usage = &finished.reply.usage;
        let stop_reason = match finished.guarded_by {
            Some(_) => "refusal",
            None => stop_reason(finished.stop_reason()),
        };
        Self {
            stop_reason,
            stop_sequence: finished.reply.stop_sequence.clone(),
            usage: ReplyUsage {
                input_tokens: usage.prompt_tokens.saturating_sub(usage.cached_tokens),
                output_tokens: usage.generated_tokens,
                cache_read_input_tokens: usage.cached_tokens,
                cache_creation_input_tokens: 0,
            },
            tercel: Some(finished.block()),
        }
    }
}

impl MessageReply {
    /// A reply before its first token.
    pub(super) fn empty(id: String, model: String, prompt_tokens: usize) -> Self {
        Self {
            id,
            kind: "message",
            role: "assistant",
            model,
            content: Vec::new(),
            stop_reason: None,
            stop_sequence: None,
            usage: ReplyUsage {
                input_tokens: prompt_tokens,
                output_tokens: 0,
                cache_read_input_tokens: 0,
                cache_creation_input_tokens: 0,
            },
            tercel: None,
        }
    }

    /// A whole reply.
    pub(super) fn whole(id: String, whole: Whole) -> Self {
        let Whole {
            thinking, finished, ..
        } = whole;
        let ending = Ending::of(&finished);
        Self {
            content: blocks(thinking, finished.text, &finished.reply.tool_calls),
            stop_reason: Some(ending.stop_reason),
            stop_sequence: ending.stop_sequence,
            usage: ending.usage,
            tercel: ending.tercel,
            ..Self::empty(id, finished.model, 0)
        }
    }
}

/// A thought where there is one, a text, and what is called. Without a call there is always a text,
/// since clients take the first one unasked.
fn blocks(thinking: String, text: String, calls: &[ToolCall]) -> Vec<ReplyBlock> {
    let signature = "";
    let thought = (!thinking.is_empty()).then_some(ReplyBlock::Thinking {
        thinking,
        signature,
    });
    let text = (calls.is_empty() || !text.is_empty()).then_some(ReplyBlock::Text { text });
    let calls = calls.iter().map(|call| ReplyBlock::ToolUse {
        id: call.id.clone().unwrap_or_default(),
        name: call.name.clone(),
        input: call.arguments.clone(),
    });
    thought.into_iter().chain(text).chain(calls).collect()
}

fn stop_reason(reason: StopReason) -> &'static str {
    match reason {
        StopReason::Eos => "end_turn",
        StopReason::ToolCall => "tool_use",
        StopReason::StopSequence => "stop_sequence",
        // The block `tercel` tells a reply that was cut off from one that was long enough.
        _ => "max_tokens",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn there_is_always_a_text() {
        let text = |text: &str| ReplyBlock::Text {
            text: text.to_owned(),
        };
        assert_eq!(blocks(String::new(), String::new(), &[]), [text("")]);
        let both = blocks("hm".to_owned(), "a".to_owned(), &[]);
        let both = serde_json::to_value(both).expect("JSON");
        assert_eq!(
            both,
            json!([
                {"type": "thinking", "thinking": "hm", "signature": ""},
                {"type": "text", "text": "a"},
            ])
        );
    }

    #[test]
    fn calls_come_last_and_need_no_text() {
        let call = ToolCall::new("add", json!({"a": 1})).with_id("c1");
        for (said, count) in [("", 1), ("a", 2)] {
            let blocks = blocks(String::new(), said.to_owned(), std::slice::from_ref(&call));
            let blocks = serde_json::to_value(blocks).expect("JSON");
            let blocks = blocks.as_array().expect("a list");
            let last = json!({"type": "tool_use", "id": "c1", "name": "add", "input": {"a": 1}});
            assert_eq!((blocks.len(), blocks.last()), (count, Some(&last)));
        }
    }

    #[test]
    fn ends_have_anthropics_words() {
        for (reason, expected) in [
            (StopReason::Eos, "end_turn"),
            (StopReason::ToolCall, "tool_use"),
            (StopReason::StopSequence, "stop_sequence"),
            (StopReason::MaxNewTokens, "max_tokens"),
            (StopReason::ContextFull, "max_tokens"),
            (StopReason::Timeout, "max_tokens"),
        ] {
            assert_eq!(stop_reason(reason), expected);
        }
    }
}
