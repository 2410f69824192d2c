//! Calls of tools in a reply: how families of models write them, and how they are read while they
//! come.
//!
//! A [`ToolFormat`] is found in a model's chat template. A [`ToolStream`] tells calls from text; what
//! looks like a call and is none stays text, and is told.

mod body;
mod partial;
mod stream;

use serde_json::Value;

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
}

impl Tool {
    /// A tool without a description, whose arguments a JSON schema describes.
    pub fn new(name: impl Into<String>, parameters: Value) -> Self {
        Self {
            name: name.into(),
            description: None,
            parameters,
        }
    }

    /// The same tool, described.
    #[must_use]
    pub fn with_description(mut self, description: impl Into<String>) -> Self {
        self.description = Some(description.into());
        self
    }
}

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
            Self::Gemma => !block.matches("<escape>").count().is_multiple_of(2),
            _ if block.trim_start().starts_with('<') => !block.trim_end().ends_with("</function>"),
            _ => partial::ends_in_string(block),
        }
    }

    /// What stands before and behind calls. Without a mark behind, they go on to the reply's end;
    /// without one before, they are the whole reply.
    fn marks(self) -> (Option<&'static str>, Option<&'static str>) {
        match self {
            Self::Json | Self::Xml => (Some("<tool_call>"), Some("</tool_call>")),
            Self::Llama => (None, None),
            Self::Mistral => (Some("[TOOL_CALLS]"), None),
            Self::Gemma => (Some("<start_function_call>"), Some("<end_function_call>")),
        }
    }
}
