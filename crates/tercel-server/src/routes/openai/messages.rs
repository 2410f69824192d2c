//! Messages and their parts, as conversations are sent.

use serde::Deserialize;
use serde_json::{Map, Value};
use tercel::{Error, Message, Role, ToolCall, parse_role};
use utoipa::ToSchema;

use super::texts::{TextOr, short};
use crate::error::ApiError;

/// A turn of a conversation.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ChatMessage {
    /// `system`, `developer` (the same), `user`, `assistant` or `tool`.
    role: String,
    /// A text, or parts of type `text`, which are joined by line breaks.
    #[schema(inline)]
    content: Option<TextOr<Part>>,
    /// The name of the speaker, or of the tool.
    name: Option<String>,
    /// What the model thought before it said this.
    reasoning_content: Option<String>,
    /// The tools that the model called in this turn.
    tool_calls: Option<Vec<Call>>,
    /// The call that this answers.
    tool_call_id: Option<String>,
    /// Must be absent.
    refusal: Option<String>,
    /// Must be absent.
    audio: Option<Value>,
    /// Must be absent.
    function_call: Option<Value>,
    /// Sent back by clients that keep whole replies; without meaning for a model.
    #[expect(dead_code, reason = "it is accepted and has no effect")]
    annotations: Option<Vec<Value>>,
    /// Sent back by clients that keep whole replies; without meaning for a model.
    #[expect(dead_code, reason = "it is accepted and has no effect")]
    parsed: Option<Value>,
    /// Sent back by clients that keep whole replies; without meaning for a model.
    #[expect(dead_code, reason = "it is accepted and has no effect")]
    provider_specific_fields: Option<Value>,
}

/// A part of a message's content.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(super) struct Part {
    /// What kind of part it is.
    #[serde(rename = "type")]
    kind: String,
    /// The text of a part of type `text`.
    text: Option<String>,
    #[serde(flatten)]
    #[schema(ignore)]
    other: Map<String, Value>,
}

/// A call of a tool by the model, in an earlier turn.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Call {
    id: Option<String>,
    /// `function`.
    #[serde(rename = "type")]
    kind: Option<String>,
    function: CalledFunction,
    #[expect(
        dead_code,
        reason = "streams number their calls; the order says the same"
    )]
    index: Option<u64>,
}

/// What was called.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CalledFunction {
    name: String,
    /// JSON as text.
    arguments: String,
    /// Sent back by clients that keep whole replies; the text says the same.
    #[expect(dead_code, reason = "it is accepted and has no effect")]
    parsed_arguments: Option<Value>,
}

/// Keys of parts that concern caches and sources, not what is said.
const WITHOUT_EFFECT: [&str; 5] = [
    "annotations",
    "cache_control",
    "logprobs",
    "parsed",
    "prompt_cache_breakpoint",
];

/// The conversation, at least one turn.
pub(super) fn conversation(messages: Vec<ChatMessage>) -> Result<Vec<Message>, ApiError> {
    if messages.is_empty() {
        return Err(ApiError::from(Error::EmptyMessages).about("messages"));
    }
    let messages = messages.into_iter().enumerate();
    messages
        .map(|(index, message)| message.into_message(&format!("messages[{index}]")))
        .collect()
}

/// The role of this name.
pub(super) fn role(name: &str, at: &str) -> Result<Role, ApiError> {
    if name == "developer" {
        return Ok(Role::System);
    }
    parse_role(&short(name)).map_err(|error| ApiError::from(error).about(format!("{at}.role")))
}

/// The text of content whose parts are of these kinds.
pub(super) fn text(content: TextOr<Part>, kinds: &[&str], at: &str) -> Result<String, ApiError> {
    let parts = match content {
        TextOr::Text(text) => return Ok(text),
        TextOr::List(parts) => parts,
    };
    let parts = parts.into_iter().enumerate();
    let texts = parts.map(|(index, part)| part.into_text(kinds, &format!("{at}[{index}]")));
    Ok(texts.collect::<Result<Vec<_>, _>>()?.join("\n"))
}

impl Part {
    fn into_text(self, kinds: &[&str], at: &str) -> Result<String, ApiError> {
        if !kinds.contains(&&*self.kind) {
            let (kind, kinds) = (short(&self.kind), kinds.join("`, `"));
            let message = format!("parts of type `{kind}` are not supported, only `{kinds}`");
            return Err(ApiError::unsupported(format!("{at}.type"), message));
        }
        let mut others = self.other.keys();
        if let Some(key) = others.find(|key| !WITHOUT_EFFECT.contains(&&***key)) {
            let key = short(key);
            let message = format!("`{key}` is not supported in a part of text");
            return Err(ApiError::unsupported(format!("{at}.{key}"), message));
        }
        self.text
            .ok_or_else(|| ApiError::invalid(format!("{at}.text"), "the part has no `text`"))
    }
}

impl ChatMessage {
    fn into_message(self, at: &str) -> Result<Message, ApiError> {
        let role = role(&self.role, at)?;
        for (field, is_set) in [
            ("refusal", self.refusal.is_some()),
            ("audio", self.audio.is_some()),
            ("function_call", self.function_call.is_some()),
        ] {
            if is_set {
                let message = format!("`{field}` is not supported in a message");
                return Err(ApiError::unsupported(format!("{at}.{field}"), message));
            }
        }
        let calls = self.tool_calls.unwrap_or_default();
        if !calls.is_empty() && role != Role::Assistant {
            let message = "only an `assistant` calls tools";
            return Err(ApiError::invalid(format!("{at}.tool_calls"), message));
        }
        let content = match self.content {
            Some(content) => text(content, &["text"], &format!("{at}.content"))?,
            None if !calls.is_empty() => String::new(),
            None => {
                let message = "the message has no `content`";
                return Err(ApiError::invalid(format!("{at}.content"), message));
            }
        };
        let mut message = Message::new(role, content);
        message.name = self.name;
        message.reasoning_content = self.reasoning_content;
        message.tool_call_id = self.tool_call_id;
        for (index, call) in calls.into_iter().enumerate() {
            message
                .tool_calls
                .push(call.into_call(&format!("{at}.tool_calls[{index}]"))?);
        }
        Ok(message)
    }
}

impl Call {
    fn into_call(self, at: &str) -> Result<ToolCall, ApiError> {
        if let Some(kind) = self.kind.filter(|kind| kind != "function") {
            let message = format!("calls of type `{}` are not supported", short(&kind));
            return Err(ApiError::unsupported(format!("{at}.type"), message));
        }
        let CalledFunction {
            name, arguments, ..
        } = self.function;
        let mut call = called(name, arguments);
        call.id = self.id;
        Ok(call)
    }
}

/// A call with these arguments.
pub(super) fn called(name: String, arguments: String) -> ToolCall {
    // Templates expect what the text says, not the text.
    let object = serde_json::from_str::<Map<String, Value>>(&arguments);
    ToolCall::new(name, object.map_or(Value::String(arguments), Value::Object))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::body::parse;

    fn read(messages: &Value) -> Result<Vec<Message>, ApiError> {
        conversation(parse(messages.to_string().as_bytes(), 32)?)
    }

    #[test]
    fn turns_are_read_in_every_form() {
        let call = ToolCall::new("add", json!({"a": 1})).with_id("c1");
        for (wire, want) in [
            (
                json!({"role": "system", "content": "s"}),
                Message::system("s"),
            ),
            (
                json!({"role": "developer", "content": "s"}),
                Message::system("s"),
            ),
            (
                json!({"role": "user", "content": "u", "name": "Ann"}),
                Message::user("u").with_name("Ann"),
            ),
            (
                json!({"role": "user", "content": [{"type": "text", "text": "a"},
                    {"type": "text", "text": "b", "cache_control": {"type": "ephemeral"}}]}),
                Message::user("a\nb"),
            ),
            (
                json!({"role": "assistant", "content": "x", "reasoning_content": "hm",
                    "refusal": null, "annotations": [], "audio": null, "function_call": null,
                    "tool_calls": null}),
                Message::assistant("x").with_reasoning("hm"),
            ),
            (
                json!({"role": "assistant", "tool_calls": [{"id": "c1", "type": "function",
                    "function": {"name": "add", "arguments": "{\"a\": 1}"}}]}),
                Message::assistant("").with_tool_call(call),
            ),
            (
                json!({"role": "tool", "content": "3", "tool_call_id": "c1"}),
                Message::tool("3").answering("c1"),
            ),
        ] {
            assert_eq!(read(&json!([wire])), Ok(vec![want]), "{wire}");
        }
    }

    #[test]
    fn what_a_turn_may_not_have_is_named() {
        let image = json!([{"type": "image_url", "image_url": {"url": "data:"}}]);
        let call = json!([{"type": "custom", "function": {"name": "a", "arguments": ""}}]);
        for (wire, code, param) in [
            (json!([]), "empty_messages", "messages"),
            (
                json!([{"role": "robot", "content": "a"}]),
                "invalid_role",
                "messages[0].role",
            ),
            (
                json!([{"role": "function", "content": "a"}]),
                "invalid_role",
                "messages[0].role",
            ),
            (
                json!([{"role": "user"}]),
                "invalid_parameter",
                "messages[0].content",
            ),
            (
                json!([{"role": "assistant", "content": null}]),
                "invalid_parameter",
                "messages[0].content",
            ),
            (
                json!([{"role": "user", "content": image}]),
                "unsupported_parameter",
                "messages[0].content[0].type",
            ),
            (
                json!([{"role": "user", "content": [{"type": "text"}]}]),
                "invalid_parameter",
                "messages[0].content[0].text",
            ),
            (
                json!([{"role": "user", "content": [{"type": "text", "text": "a", "lang": "de"}]}]),
                "unsupported_parameter",
                "messages[0].content[0].lang",
            ),
            (
                json!([{"role": "user", "content": "a", "mood": 1}]),
                "invalid_request",
                "[0].mood",
            ),
            (
                json!([{"role": "assistant", "content": "a", "refusal": "no"}]),
                "unsupported_parameter",
                "messages[0].refusal",
            ),
            (
                json!([{"role": "assistant", "tool_calls": call}]),
                "unsupported_parameter",
                "messages[0].tool_calls[0].type",
            ),
            (
                json!([{"role": "user", "content": "a", "tool_calls": [{"function": {"name": "a", "arguments": ""}}]}]),
                "invalid_parameter",
                "messages[0].tool_calls",
            ),
        ] {
            let error = read(&wire).unwrap_err();
            assert_eq!(
                (error.code, error.param.as_deref()),
                (code, Some(param)),
                "{wire}"
            );
            assert_eq!(error.status, axum::http::StatusCode::BAD_REQUEST, "{wire}");
        }
    }
}
