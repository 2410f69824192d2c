//! Turns of a conversation as Anthropic's clients write them.

use std::fmt;

use serde::Deserialize;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::{Map, Value};
use tercel::{Error, Message, Role, ToolCall, parse_role};
use utoipa::ToSchema;

use crate::error::ApiError;

/// One turn.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[schema(as = anthropic::Turn)]
#[serde(deny_unknown_fields)]
pub(super) struct Turn {
    /// `user`, `assistant` or `system`.
    role: String,
    content: Content,
}

/// A text, or blocks of it.
#[derive(Clone, Debug, ToSchema)]
#[schema(as = anthropic::Content)]
#[serde(untagged)]
pub(super) enum Content {
    /// The whole text.
    Text(String),
    /// Its pieces; they are joined by line breaks.
    Blocks(Vec<Block>),
}

/// A piece of a turn.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[schema(as = anthropic::Block)]
pub(super) struct Block {
    /// `text`; `thinking` and `tool_use` of an earlier reply; `tool_result`.
    #[serde(rename = "type")]
    kind: String,
    /// What is said, in a block of type `text`.
    text: Option<String>,
    /// What the model thought, in a block of type `thinking`.
    thinking: Option<String>,
    /// Of a `tool_use`: what the result names.
    id: Option<String>,
    /// Of a `tool_use`: the tool.
    name: Option<String>,
    /// Of a `tool_use`: the arguments.
    input: Option<Value>,
    /// Of a `tool_result`: the call.
    tool_use_id: Option<String>,
    /// Of a `tool_result`: what the tool gave.
    #[schema(no_recursion)]
    content: Option<Content>,
    /// Of a `tool_result`: whether the tool failed, which its content has to say.
    #[expect(dead_code, reason = "models are told by the content")]
    is_error: Option<bool>,
    /// Goes with a thought; it is not checked.
    #[expect(
        dead_code,
        reason = "thoughts are not signed here, any signature will do"
    )]
    signature: Option<Value>,
    /// Accepted without effect: what begins alike is kept anyway.
    #[expect(dead_code, reason = "the cache needs no marks")]
    cache_control: Option<Value>,
    /// Must be empty.
    citations: Option<Value>,
    /// What other types have.
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// The messages of a conversation. Neighbours of one role become one, as the protocol has it.
///
/// # Errors
/// What is not supported or not a conversation that can be answered, named by its path.
pub(super) fn conversation(
    system: Option<Content>,
    turns: Vec<Turn>,
) -> Result<Vec<Message>, ApiError> {
    if turns.is_empty() {
        return Err(ApiError::from(Error::EmptyMessages).about("messages"));
    }
    let mut messages: Vec<Message> = Vec::with_capacity(turns.len() + 1);
    if let Some(system) = system {
        let said = system.read(Role::System, "system")?;
        // An empty one means none.
        if !said.text.is_empty() {
            messages.push(Message::system(said.text));
        }
    }
    for (index, turn) in turns.into_iter().enumerate() {
        let Ok(role @ (Role::User | Role::Assistant | Role::System)) = parse_role(&turn.role)
        else {
            let error = Error::InvalidRole { role: turn.role };
            return Err(ApiError::from(error).about(format!("messages[{index}].role")));
        };
        let said = turn
            .content
            .read(role, &format!("messages[{index}].content"))?;
        said.add_to(&mut messages, role);
    }
    match messages.last() {
        Some(last) if matches!(last.role, Role::User | Role::Tool) => Ok(messages),
        _ => Err(ApiError::unsupported(
            "messages",
            "the last message must be the user's: a reply that is begun is not supported",
        )),
    }
}

/// What one turn says.
#[derive(Default)]
struct Said {
    text: String,
    thought: Option<String>,
    calls: Vec<ToolCall>,
    /// What tools gave, which comes before the text.
    results: Vec<Message>,
}

impl Said {
    fn add_to(self, messages: &mut Vec<Message>, role: Role) {
        let is_result_alone = !self.results.is_empty() && self.text.is_empty();
        messages.extend(self.results);
        if is_result_alone {
            return;
        }
        match messages.last_mut() {
            Some(last) if last.role == role => {
                if !last.content.is_empty() && !self.text.is_empty() {
                    last.content.push('\n');
                }
                last.content.push_str(&self.text);
                last.reasoning_content = joined(last.reasoning_content.take(), self.thought);
                last.tool_calls.extend(self.calls);
            }
            _ => {
                let mut message = Message::new(role, self.text);
                message.reasoning_content = self.thought;
                message.tool_calls = self.calls;
                messages.push(message);
            }
        }
    }
}

impl Content {
    fn read(self, role: Role, path: &str) -> Result<Said, ApiError> {
        let blocks = match self {
            Self::Text(text) => {
                return Ok(Said {
                    text,
                    ..Said::default()
                });
            }
            Self::Blocks(blocks) => blocks,
        };
        let mut texts = Vec::with_capacity(blocks.len());
        let mut said = Said::default();
        for (index, block) in blocks.into_iter().enumerate() {
            let path = format!("{path}[{index}]");
            match (&*block.kind, role) {
                ("text", _) => texts.push(block.text(&path)?),
                ("thinking", Role::Assistant) => {
                    said.thought = joined(said.thought.take(), Some(block.thought(&path)?));
                }
                ("tool_use", Role::Assistant) => said.calls.push(block.call(&path)?),
                ("tool_result", Role::User) => said.results.push(block.result(&path)?),
                (kind, _) => {
                    let message = format!(
                        "blocks of type `{kind}` are not supported in a message of the {}",
                        role.name()
                    );
                    return Err(ApiError::unsupported(format!("{path}.type"), message));
                }
            }
        }
        said.text = texts.join("\n");
        Ok(said)
    }
}

impl Block {
    fn text(self, path: &str) -> Result<String, ApiError> {
        self.holds_only(&["text"], path)?;
        self.text.ok_or_else(|| missing(path, "text"))
    }

    fn thought(self, path: &str) -> Result<String, ApiError> {
        self.holds_only(&["thinking"], path)?;
        self.thinking.ok_or_else(|| missing(path, "thinking"))
    }

    fn call(self, path: &str) -> Result<ToolCall, ApiError> {
        self.holds_only(&["id", "name", "input"], path)?;
        let id = self.id.ok_or_else(|| missing(path, "id"))?;
        let name = self.name.ok_or_else(|| missing(path, "name"))?;
        match self.input {
            Some(input @ Value::Object(_)) => Ok(ToolCall::new(name, input).with_id(id)),
            Some(_) => {
                let at = format!("{path}.input");
                let message = format!("`{at}` must be an object");
                Err(ApiError::invalid(at, message))
            }
            None => Err(missing(path, "input")),
        }
    }

    fn result(self, path: &str) -> Result<Message, ApiError> {
        self.holds_only(&["tool_use_id", "content"], path)?;
        let id = self
            .tool_use_id
            .ok_or_else(|| missing(path, "tool_use_id"))?;
        let content = match self.content {
            // Its blocks are texts, as those of a system message are.
            Some(content) => content.read(Role::System, &format!("{path}.content"))?.text,
            None => String::new(),
        };
        Ok(Message::tool(content).answering(id))
    }

    /// Refuses what belongs to blocks of other types.
    fn holds_only(&self, own: &[&str], path: &str) -> Result<(), ApiError> {
        let given = [
            ("text", self.text.is_some()),
            ("thinking", self.thinking.is_some()),
            ("id", self.id.is_some()),
            ("name", self.name.is_some()),
            ("input", self.input.is_some()),
            ("tool_use_id", self.tool_use_id.is_some()),
            ("content", self.content.is_some()),
        ];
        let other = given
            .into_iter()
            .find(|(field, is_given)| *is_given && !own.contains(field));
        let citations = self.citations.as_ref();
        let cites = citations.is_some_and(|it| !it.is_null() && *it != Value::Array(Vec::new()));
        let unknown = match (self.others.keys().next(), other) {
            (Some(name), _) => name,
            (None, Some((other, _))) => other,
            (None, None) if cites => "citations",
            (None, None) => return Ok(()),
        };
        Err(ApiError::unsupported(
            format!("{path}.{unknown}"),
            format!(
                "`{unknown}` is not supported in a block of type `{}`",
                self.kind
            ),
        ))
    }
}

fn missing(path: &str, field: &str) -> ApiError {
    let message = format!("missing field `{field}`");
    ApiError::bad_request("invalid_request", message).about(format!("{path}.{field}"))
}

fn joined(first: Option<String>, second: Option<String>) -> Option<String> {
    match (first, second) {
        (Some(first), Some(second)) => Some(format!("{first}\n{second}")),
        (first, second) => first.or(second),
    }
}

// By hand, since derived untagged enums lose the path and the reason of an error inside.
impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or a list of content blocks")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Content, E> {
        Ok(Content::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, blocks: A) -> Result<Content, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(blocks))
            .map(Content::Blocks)
            .map_err(A::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::body;

    #[expect(
        clippy::needless_pass_by_value,
        reason = "tables of cases read better so"
    )]
    fn read(system: Value, turns: Value) -> Result<Vec<Message>, ApiError> {
        #[derive(Deserialize)]
        struct Both {
            system: Option<Content>,
            messages: Vec<Turn>,
        }
        let text = json!({"system": system, "messages": turns}).to_string();
        let both: Both = body::parse(text.as_bytes(), 32)?;
        conversation(both.system, both.messages)
    }

    #[expect(
        clippy::needless_pass_by_value,
        reason = "tables of cases read better so"
    )]
    fn user(content: Value) -> Value {
        json!([{"role": "user", "content": content}])
    }

    #[test]
    fn texts_and_blocks_become_messages() {
        let none = Value::Null;
        let text = json!({"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}});
        let thought = json!({"type": "thinking", "thinking": "hm", "signature": "s"});
        let cases = [
            (none.clone(), user(json!("a")), vec![Message::user("a")]),
            (
                none.clone(),
                user(json!([text, text])),
                vec![Message::user("a\na")],
            ),
            (
                json!("be brief"),
                user(json!("a")),
                vec![Message::system("be brief"), Message::user("a")],
            ),
            (json!(""), user(json!("a")), vec![Message::user("a")]),
            (
                json!([text]),
                user(json!("b")),
                vec![Message::system("a"), Message::user("b")],
            ),
            (
                none.clone(),
                json!([
                    {"role": "user", "content": "a"},
                    {"role": "assistant", "content": [thought, text]},
                    {"role": "user", "content": "b"},
                    {"role": "user", "content": "c"},
                ]),
                vec![
                    Message::user("a"),
                    Message::assistant("a").with_reasoning("hm"),
                    Message::user("b\nc"),
                ],
            ),
        ];
        for (system, turns, expected) in cases {
            let shown = format!("{system} {turns}");
            assert_eq!(read(system, turns), Ok(expected), "{shown}");
        }
    }

    #[test]
    fn calls_and_results_become_messages() {
        let call =
            |id: &str| json!({"type": "tool_use", "id": id, "name": "add", "input": {"a": 1}});
        let gave = |id: &str, content: Value| json!({"type": "tool_result", "tool_use_id": id, "content": content, "is_error": false});
        let turns = json!([
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": [{"type": "text", "text": "I add."}, call("c1"), call("c2")]},
            {"role": "user", "content": [
                gave("c1", json!("3")),
                gave("c2", json!([{"type": "text", "text": "4"}])),
                {"type": "text", "text": "and?"},
            ]},
            {"role": "assistant", "content": [call("c3")]},
            {"role": "user", "content": [gave("c3", json!("5"))]},
        ]);
        let called = |id: &str| ToolCall::new("add", json!({"a": 1})).with_id(id);
        let want = vec![
            Message::user("q"),
            Message::assistant("I add.")
                .with_tool_call(called("c1"))
                .with_tool_call(called("c2")),
            Message::tool("3").answering("c1"),
            Message::tool("4").answering("c2"),
            Message::user("and?"),
            Message::assistant("").with_tool_call(called("c3")),
            Message::tool("5").answering("c3"),
        ];
        assert_eq!(read(Value::Null, turns), Ok(want));
    }

    #[test]
    fn what_is_not_supported_is_named_by_its_path() {
        let with = |block: Value| user(json!([{"type": "text", "text": "a"}, block]));
        for (turns, code, param) in [
            (json!([]), "empty_messages", "messages"),
            (
                with(json!({"type": "image", "source": {"type": "url", "url": "x"}})),
                "unsupported_parameter",
                "messages[0].content[1].type",
            ),
            (
                with(json!({"type": "tool_result", "content": "x"})),
                "invalid_request",
                "messages[0].content[1].tool_use_id",
            ),
            (
                with(json!({"type": "thinking", "thinking": "x"})),
                "unsupported_parameter",
                "messages[0].content[1].type",
            ),
            (
                with(json!({"type": "text", "text": "x", "citations": [{"a": 1}]})),
                "unsupported_parameter",
                "messages[0].content[1].citations",
            ),
            (
                with(json!({"type": "text", "text": "x", "other": 1})),
                "unsupported_parameter",
                "messages[0].content[1].other",
            ),
            (
                with(json!({"type": "text"})),
                "invalid_request",
                "messages[0].content[1].text",
            ),
            (
                user(json!([{"type": 3}])),
                "invalid_request",
                "messages[0].content[0].type",
            ),
            (user(json!(3)), "invalid_request", "messages[0].content"),
            (
                json!([{"role": "tool", "content": "a"}]),
                "invalid_role",
                "messages[0].role",
            ),
            (
                json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": "("}]),
                "unsupported_parameter",
                "messages",
            ),
        ] {
            let error = read(Value::Null, turns.clone()).unwrap_err();
            assert_eq!(
                (error.code, error.param.as_deref()),
                (code, Some(param)),
                "{turns}"
            );
        }
    }
}
