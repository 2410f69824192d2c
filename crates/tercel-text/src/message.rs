//! The turns of a conversation.

use serde::{Deserialize, Deserializer, Serialize};

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Role {
    /// Instructions that hold for the whole conversation.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// The result of a tool that the model called.
    Tool,
}

impl Role {
    /// The name that templates and wire formats use.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

/// One turn of a conversation.
///
/// As JSON it is what OpenAI's chat format and `transformers` write; fields that are absent here
/// are absent there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said. Names of control tokens in it are text, whoever speaks.
    #[serde(default, deserialize_with = "text_or_null")]
    pub content: String,
    /// The name of the speaker, or of the tool whose result this is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What the model thought before it said `content`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// The tools that the model called in this turn.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "list_or_null"
    )]
    pub tool_calls: Vec<ToolCall>,
    /// The [`ToolCall::id`] that a tool's result answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// What else a template may read of this turn. A name of the fields above is ignored.
    #[serde(flatten)]
    pub fields: serde_json::Map<String, serde_json::Value>,
}

/// A call of a tool by the model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "WireCall", into = "WireCall")]
#[non_exhaustive]
pub struct ToolCall {
    /// What ties the result to the call, where there is such a thing.
    pub id: Option<String>,
    /// The tool.
    pub name: String,
    /// Its arguments, commonly an object. A string is given to the template as it is: many
    /// templates write it out, some fail over it.
    pub arguments: serde_json::Value,
}

impl ToolCall {
    /// A call without an id.
    pub fn new(name: impl Into<String>, arguments: serde_json::Value) -> Self {
        Self {
            id: None,
            name: name.into(),
            arguments,
        }
    }

    /// The same call with an id.
    #[must_use]
    pub fn with_id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }
}

impl Message {
    /// A turn of `role`.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self {
            role,
            content: content.into(),
            name: None,
            reasoning_content: None,
            tool_calls: Vec::new(),
            tool_call_id: None,
            fields: serde_json::Map::new(),
        }
    }

    /// Instructions for the whole conversation.
    pub fn system(content: impl Into<String>) -> Self {
        Self::new(Role::System, content)
    }

    /// What the person says.
    pub fn user(content: impl Into<String>) -> Self {
        Self::new(Role::User, content)
    }

    /// What the model said.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new(Role::Assistant, content)
    }

    /// What a tool returned.
    pub fn tool(content: impl Into<String>) -> Self {
        Self::new(Role::Tool, content)
    }

    /// The same turn, of a speaker or tool with a name.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The same turn, with what the model thought before.
    #[must_use]
    pub fn with_reasoning(mut self, thought: impl Into<String>) -> Self {
        self.reasoning_content = Some(thought.into());
        self
    }

    /// The same turn, with one more call of a tool.
    #[must_use]
    pub fn with_tool_call(mut self, call: ToolCall) -> Self {
        self.tool_calls.push(call);
        self
    }

    /// The same result, as the answer to the call with this id.
    #[must_use]
    pub fn answering(mut self, tool_call_id: impl Into<String>) -> Self {
        self.tool_call_id = Some(tool_call_id.into());
        self
    }

    /// The same turn with one more field for the template to read.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: serde_json::Value) -> Self {
        self.fields.insert(name.into(), value);
        self
    }
}

/// A call as JSON: `{"id": .., "type": "function", "function": {"name": .., "arguments": ..}}`,
/// read without the shell too.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum WireCall {
    Function {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        #[serde(rename = "type", default = "function")]
        kind: String,
        function: WireFunction,
    },
    Bare {
        #[serde(default)]
        id: Option<String>,
        name: String,
        #[serde(default)]
        arguments: serde_json::Value,
    },
}

#[derive(Serialize, Deserialize)]
struct WireFunction {
    name: String,
    #[serde(default)]
    arguments: serde_json::Value,
}

impl From<WireCall> for ToolCall {
    fn from(call: WireCall) -> Self {
        let (id, name, arguments) = match call {
            WireCall::Function { id, function, .. } => (id, function.name, function.arguments),
            WireCall::Bare {
                id,
                name,
                arguments,
            } => (id, name, arguments),
        };
        Self {
            id,
            name,
            arguments,
        }
    }
}

impl From<ToolCall> for WireCall {
    fn from(call: ToolCall) -> Self {
        Self::Function {
            id: call.id,
            kind: function(),
            function: WireFunction {
                name: call.name,
                arguments: call.arguments,
            },
        }
    }
}

/// The one type of call there is.
pub(crate) fn function() -> String {
    "function".to_owned()
}

fn text_or_null<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

fn list_or_null<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<ToolCall>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn messages_read_and_write_as_in_the_chat_format() {
        let call = ToolCall::new("add", json!({"b": 1, "a": 2})).with_id("c1");
        let cases = [
            (
                json!({"role": "user", "content": "hi"}),
                Message::user("hi"),
            ),
            (
                json!({"role": "user", "content": "hi", "name": "Ann", "mood": [1]}),
                Message::user("hi")
                    .with_name("Ann")
                    .with("mood", json!([1])),
            ),
            (
                json!({
                    "role": "assistant", "content": "", "reasoning_content": "hm",
                    "tool_calls": [{"id": "c1", "type": "function",
                        "function": {"name": "add", "arguments": {"b": 1, "a": 2}}}],
                }),
                Message::assistant("")
                    .with_reasoning("hm")
                    .with_tool_call(call.clone()),
            ),
            (
                json!({"role": "tool", "content": "3", "tool_call_id": "c1"}),
                Message::tool("3").answering("c1"),
            ),
        ];
        for (wire, message) in cases {
            assert_eq!(serde_json::to_value(&message).expect("JSON"), wire);
            assert_eq!(
                serde_json::from_value::<Message>(wire).expect("a message"),
                message
            );
        }
        let loose = json!({"role": "assistant", "content": null, "tool_calls":
            [{"id": "c1", "name": "add", "arguments": {"b": 1, "a": 2}}]});
        assert_eq!(
            serde_json::from_value::<Message>(loose).expect("a message"),
            Message::assistant("").with_tool_call(call)
        );
        let nothing = json!({"role": "assistant", "tool_calls": null});
        assert_eq!(
            serde_json::from_value::<Message>(nothing).expect("a message"),
            Message::assistant("")
        );
    }
}
