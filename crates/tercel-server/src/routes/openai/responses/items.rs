//! The conversation of a request: items of several types.

use serde::Deserialize;
use serde_json::{Map, Value};
use tercel::{Error, Message, Role, ToolCall};
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::routes::openai::messages::{self, Part};
use crate::routes::openai::texts::{TextOr, short};

/// An item of a conversation: a message, what the model thought before its next one, a tool that it
/// called, or what that gave.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(in crate::routes::openai) struct Item {
    /// `message`, `reasoning`, `function_call` or `function_call_output`; a message where it is left
    /// out.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// Of a message: `system`, `developer` (the same), `user` or `assistant`.
    role: Option<String>,
    /// A text, or parts of type `input_text`, `output_text` or `reasoning_text`.
    #[schema(inline)]
    content: Option<TextOr<Part>>,
    /// Of a thought, where it has no content.
    summary: Option<Vec<Part>>,
    /// Of a call and its output: what ties them together.
    call_id: Option<String>,
    /// Of a call: the tool.
    name: Option<String>,
    /// Of a call: JSON as text.
    arguments: Option<String>,
    /// Of an output: a text, or parts of type `input_text`.
    #[schema(inline)]
    output: Option<TextOr<Part>>,
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
            Some("function_call") => {
                let call = item.into_call(&at)?;
                let is_begun = turns.last().is_some_and(|it| it.role == Role::Assistant);
                if !is_begun || thought.is_some() {
                    let mut turn = Message::assistant("");
                    turn.reasoning_content = thought.take();
                    turns.push(turn);
                }
                if let Some(turn) = turns.last_mut() {
                    turn.tool_calls.push(call);
                }
            }
            Some("function_call_output") => {
                turns.extend(thought.take().map(thought_alone));
                turns.push(item.into_output(&at)?);
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
        let own: &[&str] = match self.kind.as_deref() {
            None | Some("message") => &["role", "content"],
            Some("reasoning") => &["content", "summary"],
            Some("function_call") => &["call_id", "name", "arguments"],
            Some("function_call_output") => &["call_id", "output"],
            // It is refused as a whole.
            Some(_) => return Ok(()),
        };
        let given = [
            ("role", self.role.is_some()),
            ("content", self.content.is_some()),
            ("summary", self.summary.is_some()),
            ("call_id", self.call_id.is_some()),
            ("name", self.name.is_some()),
            ("arguments", self.arguments.is_some()),
            ("output", self.output.is_some()),
        ];
        let given = given.into_iter().filter(|(_, is_given)| *is_given);
        let given = given.map(|(key, _)| key).filter(|key| !own.contains(key));
        let others = self.other.iter().filter(|(_, value)| !value.is_null());
        let others = others.map(|(key, _)| key.as_str());
        match given
            .chain(others.filter(|key| !WITHOUT_EFFECT.contains(key)))
            .next()
        {
            None => Ok(()),
            Some(key) => {
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

    fn into_call(self, at: &str) -> Result<ToolCall, ApiError> {
        let missing = |field: &str| {
            let message = format!("the call has no `{field}`");
            ApiError::invalid(format!("{at}.{field}"), message)
        };
        let name = self.name.ok_or_else(|| missing("name"))?;
        let arguments = self.arguments.ok_or_else(|| missing("arguments"))?;
        let id = self.call_id.ok_or_else(|| missing("call_id"))?;
        Ok(messages::called(name, arguments).with_id(id))
    }

    fn into_output(self, at: &str) -> Result<Message, ApiError> {
        let missing = |field: &str| {
            let message = format!("the output has no `{field}`");
            ApiError::invalid(format!("{at}.{field}"), message)
        };
        let id = self.call_id.ok_or_else(|| missing("call_id"))?;
        let output = self.output.ok_or_else(|| missing("output"))?;
        let text = messages::text(output, &["input_text"], &format!("{at}.output"))?;
        Ok(Message::tool(text).answering(id))
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
    fn calls_and_what_they_gave_become_turns() {
        let call = |id: &str| json!({"type": "function_call", "id": "fc_1", "call_id": id, "name": "add", "arguments": "{\"a\": 1}", "status": "completed"});
        let gave = |id: &str| json!({"type": "function_call_output", "call_id": id, "output": "3"});
        let items = json!([
            {"role": "user", "content": "q"},
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
            call("c1"), call("c2"), gave("c1"), gave("c2"),
            {"role": "assistant", "content": "a"},
            call("c3"),
        ]);
        let called = |id: &str| ToolCall::new("add", json!({"a": 1})).with_id(id);
        let want = vec![
            Message::user("q"),
            Message::assistant("")
                .with_reasoning("hm")
                .with_tool_call(called("c1"))
                .with_tool_call(called("c2")),
            Message::tool("3").answering("c1"),
            Message::tool("3").answering("c2"),
            Message::assistant("a").with_tool_call(called("c3")),
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
                json!({"type": "function_call", "name": "f", "arguments": "{}"}),
                "invalid_parameter",
                "input[0].call_id",
            ),
            (
                json!({"type": "function_call_output", "call_id": "c", "output": "", "name": "f"}),
                "unsupported_parameter",
                "input[0].name",
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
