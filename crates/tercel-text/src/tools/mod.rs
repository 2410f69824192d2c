//! Calls of tools in a reply: how families of models write them, and how they are read while they
//! come.
//!
//! A [`ToolFormat`] is found in a model's chat template. A [`ToolStream`] tells calls from text; what
//! looks like a call and is none stays text, and is told.

mod body;
mod partial;
mod prompt;
mod stream;

use serde_json::{Map, Value, json};

pub use prompt::write_out;
pub use stream::{CallDelta, ToolPiece, ToolStream};

/// A tool that a model may call.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// What it does, for the model.
    pub description: Option<String>,
    /// A JSON schema of its arguments, an object.
    pub parameters: Value,
    /// Whether a call keeps to the schema, in every reply.
    pub strict: bool,
}

impl Tool {
    /// A tool without a description, whose arguments a JSON schema describes.
    pub fn new(name: impl Into<String>, parameters: Value) -> Self {
        Self {
            name: name.into(),
            description: None,
            parameters,
            strict: false,
        }
    }

    /// The same tool, described.
    #[must_use]
    pub fn with_description(mut self, description: impl Into<String>) -> Self {
        self.description = Some(description.into());
        self
    }

    /// The same tool, whose calls keep to the schema or not.
    #[must_use]
    pub fn with_strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// What is wrong with it, where something is: its name, or arguments that are no object.
    ///
    /// # Errors
    /// The field, and what it must be.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        let name = &self.name;
        if name.is_empty() || name.len() > MOST_NAME || !name.bytes().all(is_part) {
            let range = format!("1 to {MOST_NAME} letters, digits, `_`, `-` and `.`");
            return Err(("name", range));
        }
        let kind = match &self.parameters {
            Value::Null => None,
            Value::Object(fields) => fields.get("type"),
            _ => return Err(("parameters", "a JSON schema".to_owned())),
        };
        if kind.is_some_and(|kind| kind != "object") {
            return Err(("parameters.type", "`object`".to_owned()));
        }
        Ok(())
    }

    /// The schema of its arguments, which are an object whatever it says.
    pub(crate) fn arguments(&self) -> Value {
        let mut schema = match &self.parameters {
            Value::Object(fields) => fields.clone(),
            _ => Map::new(),
        };
        schema.entry("type").or_insert_with(|| "object".into());
        Value::Object(schema)
    }

    /// As chat templates read it: `{"type": "function", "function": {"name": .., ..}}`.
    pub fn function(&self) -> Value {
        let mut function = json!({ "name": self.name });
        if let Some(description) = &self.description {
            function["description"] = description.as_str().into();
        }
        function["parameters"] = match &self.parameters {
            Value::Null => json!({ "type": "object", "properties": {} }),
            parameters => parameters.clone(),
        };
        json!({ "type": "function", "function": function })
    }
}

/// The longest name of a tool.
const MOST_NAME: usize = 64;

/// How a family of models writes its calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ToolFormat {
    /// `<tool_call>{"name": .., "arguments": {..}}</tool_call>`, or a list of such objects: Hermes,
    /// Qwen 2.5 and 3, SmolLM2.
    Json,
    /// `<tool_call><function=NAME><parameter=KEY>VALUE</parameter></function></tool_call>`: Qwen 3.5,
    /// Qwen 3 Coder.
    Xml,
    /// `{"name": .., "parameters": {..}}` as the whole reply: Llama 3.
    Llama,
    /// `[TOOL_CALLS][{"name": .., "arguments": {..}}]`, or `[TOOL_CALLS]NAME[ARGS]{..}`: Mistral.
    Mistral,
    /// `<start_function_call>call:NAME{KEY:<escape>TEXT<escape>}<end_function_call>`: Gemma.
    Gemma,
}

impl ToolFormat {
    /// The format that a chat template speaks of; `None` where it speaks of none.
    pub fn find(template: &str) -> Option<Self> {
        let known = [
            ("[TOOL_CALLS]", Self::Mistral),
            ("<start_function_call>", Self::Gemma),
            ("<function=", Self::Xml),
            ("<tool_call>", Self::Json),
            ("<|python_tag|>", Self::Llama),
            ("ipython", Self::Llama),
        ];
        let mut found = known
            .into_iter()
            .filter(|(mark, _)| template.contains(mark));
        found.next().map(|(_, format)| format)
    }

    /// Whether a block that ends so ends in a text of its arguments.
    fn is_in_text(self, block: &str) -> bool {
        match self {
            Self::Gemma if block.contains("<escape>") => {
                !block.matches("<escape>").count().is_multiple_of(2)
            }
            Self::Gemma => {
                let arguments = block.find('{').map(|at| &block[at..]);
                arguments.is_some_and(partial::ends_in_string)
            }
            _ if block.trim_start().starts_with('<') => !block.trim_end().ends_with("</function>"),
            _ => partial::ends_in_string(block),
        }
    }

    /// Marks that may be tokens of their own, without a text.
    pub(crate) fn control_marks(self) -> &'static [&'static str] {
        match self {
            Self::Json | Self::Xml => &["<tool_call>", "</tool_call>"],
            Self::Llama => &["<|python_tag|>"],
            Self::Mistral => &["[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"],
            Self::Gemma => &["<start_function_call>", "<end_function_call>", "<escape>"],
        }
    }

    /// What stands before and behind calls. Without a mark behind, they go on to the reply's end;
    /// without one before, they are the whole reply.
    pub(crate) fn marks(self) -> (Option<&'static str>, Option<&'static str>) {
        match self {
            Self::Json | Self::Xml => (Some("<tool_call>"), Some("</tool_call>")),
            Self::Llama => (None, None),
            Self::Mistral => (Some("[TOOL_CALLS]"), None),
            Self::Gemma => (Some("<start_function_call>"), Some("<end_function_call>")),
        }
    }
}
