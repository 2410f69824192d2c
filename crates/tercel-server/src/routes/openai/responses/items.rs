//! The conversation of a request: items of several types.

use serde::Deserialize;
use serde_json::{Map, Value};
use tercel::{Error, Message, Role};
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::routes::openai::messages::{self, Part};
use crate::routes::openai::texts::{TextOr, short};

/// An item of a conversation: a message, or what the model thought before its next one.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(in crate::routes::openai) struct Item {
    /// `message` or `reasoning`; a message where it is left out.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// Of a message: `system`, `developer` (the same), `user` or `assistant`.
    role: Option<String>,
    /// A text, or parts of type `input_text`, `output_text` or `reasoning_text`.
    #[schema(inline)]
    content: Option<TextOr<Part>>,
    /// Of a thought, where it has no content.
    summary: Option<Vec<Part>>,
    #[serde(flatten)]
    #[schema(ignore)]
    other: Map<String, Value>,
}

/// Keys of items that concern their storage, not what is said.
const WITHOUT_EFFECT: [&str; 3] = ["id", "status", "phase"];

/// The turns of a conversation, at least one.
pub(super) fn conversation(
    instructions: Option<String>,
    input: TextOr<Item>,
) -> Result<Vec<Message>, ApiError> {
    let mut turns: Vec<Message> = instructions.map(Message::system).into_iter().collect();
    let items = match input {
        TextOr::Text(text) => {
            turns.push(Message::user(text));
            return Ok(turns);
        }
        TextOr::List(items) => items,
    };
    if items.is_empty() {
        return Err(ApiError::from(Error::EmptyMessages).about("input"));
    }
    let mut thought = None;
    for (index, item) in items.into_iter().enumerate() {
        let at = format!("input[{index}]");
        item.check_keys(&at)?;
        match item.kind.as_deref() {
            None | Some("message") => {
                let mut turn = item.into_message(&at)?;
                match thought.take() {
                    Some(thought) if turn.role == Role::Assistant => {
                        turn.reasoning_content = Some(thought);
                    }
                    other => turns.extend(other.map(thought_alone)),
                }
                turns.push(turn);
            }
            Some("reasoning") => {
                let text = item.into_thought(&at)?;
                turns.extend(thought.replace(text).map(thought_alone));
            }
            Some(kind) => {
                let message = format!("items of type `{}` are not supported", short(kind));
                return Err(ApiError::unsupported(format!("{at}.type"), message));
            }
        }
    }
    turns.extend(thought.map(thought_alone));
    Ok(turns)
}

/// A turn that ended before anything was said.
fn thought_alone(thought: String) -> Message {
    Message::assistant("").with_reasoning(thought)
}

impl Item {
    fn check_keys(&self, at: &str) -> Result<(), ApiError> {
        let is_known = matches!(self.kind.as_deref(), None | Some("message" | "reasoning"));
        let mut others = self.other.iter().filter(|(_, value)| !value.is_null());
        match others.find(|(key, _)| is_known && !WITHOUT_EFFECT.contains(&key.as_str())) {
            None => Ok(()),
            Some((key, _)) => {
                let key = short(key);
                let message = format!("`{key}` is not supported in an item");
                Err(ApiError::unsupported(format!("{at}.{key}"), message))
            }
        }
    }

    fn into_message(self, at: &str) -> Result<Message, ApiError> {
        let Some(role) = self.role else {
            return Err(ApiError::invalid(
                format!("{at}.role"),
                "the message has no `role`",
            ));
        };
        let role = match messages::role(&role, at)? {
            Role::Tool => {
                let error = ApiError::from(Error::InvalidRole { role });
                return Err(error.about(format!("{at}.role")));
            }
            role => role,
        };
        let Some(content) = self.content else {
            let message = "the message has no `content`";
            return Err(ApiError::invalid(format!("{at}.content"), message));
        };
        let kinds = ["input_text", "output_text"];
        let text = messages::text(content, &kinds, &format!("{at}.content"))?;
        Ok(Message::new(role, text))
    }

    fn into_thought(self, at: &str) -> Result<String, ApiError> {
        if let Some(content) = self.content {
            return messages::text(content, &["reasoning_text"], &format!("{at}.content"));
        }
        let summary = TextOr::List(self.summary.unwrap_or_default());
        messages::text(summary, &["summary_text"], &format!("{at}.summary"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::body::parse;

    fn read(instructions: Option<&str>, input: &Value) -> Result<Vec<Message>, ApiError> {
        let input = parse(input.to_string().as_bytes(), 32)?;
        conversation(instructions.map(str::to_owned), input)
    }

    #[test]
    fn items_become_turns() {
        assert_eq!(
            read(Some("be kind"), &json!("hi")),
            Ok(vec![Message::system("be kind"), Message::user("hi")])
        );
        let items = json!([
            {"role": "developer", "content": "s"},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}]},
            {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": null,
                "content": [{"type": "reasoning_text", "text": "hm"}], "status": "completed"},
            {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
                "content": [{"type": "output_text", "text": "b", "annotations": [], "logprobs": []}]},
            {"role": "user", "content": "c"},
        ]);
        let want = vec![
            Message::system("s"),
            Message::user("a"),
            Message::assistant("b").with_reasoning("hm"),
            Message::user("c"),
        ];
        assert_eq!(read(None, &items), Ok(want));
    }

    #[test]
    fn a_thought_without_an_answer_is_a_turn() {
        let items = json!([
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
            {"role": "user", "content": "go on"},
        ]);
        let want = vec![thought_alone("hm".to_owned()), Message::user("go on")];
        assert_eq!(read(None, &items), Ok(want));
    }

    #[test]
    fn what_an_item_may_not_have_is_named() {
        for (item, code, param) in [
            (
                json!({"type": "function_call", "name": "f", "call_id": "c", "arguments": "{}"}),
                "unsupported_parameter",
                "input[0].type",
            ),
            (
                json!({"type": "item_reference", "id": "x"}),
                "unsupported_parameter",
                "input[0].type",
            ),
            (
                json!({"content": "a"}),
                "invalid_parameter",
                "input[0].role",
            ),
            (
                json!({"role": "user"}),
                "invalid_parameter",
                "input[0].content",
            ),
            (
                json!({"role": "tool", "content": "a"}),
                "invalid_role",
                "input[0].role",
            ),
            (
                json!({"role": "user", "content": "a", "name": "x"}),
                "unsupported_parameter",
                "input[0].name",
            ),
            (
                json!({"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}),
                "unsupported_parameter",
                "input[0].content[0].type",
            ),
            (
                json!({"type": "reasoning", "summary": [], "encrypted_content": "x"}),
                "unsupported_parameter",
                "input[0].encrypted_content",
            ),
        ] {
            let error = read(None, &json!([item])).unwrap_err();
            assert_eq!(
                (error.code, error.param.as_deref()),
                (code, Some(param)),
                "{item}"
            );
        }
        assert_eq!(read(None, &json!([])).unwrap_err().code, "empty_messages");
    }
}
