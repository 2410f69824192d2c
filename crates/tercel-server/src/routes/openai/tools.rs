//! `tool_choice`, and calls as replies tell them.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tercel::{Tool, ToolCall, ToolChoice};
use utoipa::ToSchema;

use super::texts::short;
use crate::error::ApiError;
use crate::routes::tools::{FunctionSpec, is_function};
use crate::work::CallPiece;

/// Whether tools are called: `auto`, `none`, `required`, or the one to call.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(
    untagged,
    expecting = "`auto`, `none`, `required`, or an object that names a function"
)]
pub(super) enum ToolChoiceSpec {
    /// `auto`, `none` or `required`.
    Word(String),
    /// The one to call.
    One(NamedChoice),
}

/// The tool to call: in `function` where it is asked of a chat, in `name` of a response.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NamedChoice {
    /// `function`.
    #[serde(rename = "type")]
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<ChosenFunction>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
}

/// A tool as `/v1/responses` has it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, ToSchema)]
#[schema(as = openai::ResponseTool)]
#[serde(deny_unknown_fields)]
pub(super) struct ResponseTool {
    /// `function`.
    #[serde(rename = "type")]
    kind: String,
    /// 1 to 64 letters, digits, `_`, `-` and `.`.
    #[schema(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9_.-]+$")]
    name: Option<String>,
    description: Option<String>,
    /// JSON Schema of the arguments, an object; left out, there are none to speak of.
    #[schema(value_type = Option<Object>)]
    parameters: Option<Value>,
    /// Whether calls keep to the schema, which is then refused where it cannot be kept to.
    strict: Option<bool>,
}

impl ResponseTool {
    /// # Errors
    /// What is none, by its path.
    pub(super) fn read(self, at: &str) -> Result<Tool, ApiError> {
        is_function(Some(&self.kind), &format!("{at}.type"))?;
        let function = FunctionSpec {
            name: self.name.unwrap_or_default(),
            description: self.description,
            parameters: self.parameters,
            strict: self.strict,
        };
        function.read(|field| format!("{at}.{field}"))
    }
}

/// The function to call.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ChosenFunction {
    name: String,
}

impl ToolChoiceSpec {
    /// # Errors
    /// What is no choice, by its path.
    pub(super) fn read(self) -> Result<ToolChoice, ApiError> {
        let one = match self {
            Self::Word(word) => {
                return match &*word {
                    "auto" => Ok(ToolChoice::Auto),
                    "none" => Ok(ToolChoice::None),
                    "required" => Ok(ToolChoice::Required),
                    _ => {
                        let word = short(&word);
                        let message = format!(
                            "`tool_choice` is `{word}`, must be auto, none, required or a function"
                        );
                        Err(ApiError::invalid("tool_choice", message))
                    }
                };
            }
            Self::One(one) => one,
        };
        is_function(Some(&one.kind), "tool_choice.type")?;
        match (one.function, one.name) {
            (Some(function), None) => Ok(ToolChoice::Named(function.name)),
            (None, Some(name)) => Ok(ToolChoice::Named(name)),
            _ => Err(ApiError::invalid(
                "tool_choice.function",
                "`tool_choice` must name one function",
            )),
        }
    }
}

/// A call of a tool by the model.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct ReplyCall {
    id: String,
    /// `function`.
    #[serde(rename = "type")]
    kind: &'static str,
    function: ReplyFunction,
}

/// What is called.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct ReplyFunction {
    name: String,
    /// JSON as text.
    arguments: String,
}

impl From<&ToolCall> for ReplyCall {
    fn from(call: &ToolCall) -> Self {
        Self {
            id: call.id.clone().unwrap_or_default(),
            kind: "function",
            function: ReplyFunction {
                name: call.name.clone(),
                arguments: call.arguments.to_string(),
            },
        }
    }
}

/// More of a call.
#[derive(Serialize)]
pub(super) struct CallDelta<'a> {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    function: FunctionDelta<'a>,
}

#[derive(Serialize)]
struct FunctionDelta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    arguments: &'a str,
}

impl<'a> CallDelta<'a> {
    pub(super) fn of(call: &'a CallPiece) -> Self {
        let begun = call.begun.as_ref();
        Self {
            index: call.index,
            id: begun.map(|begun| &*begun.id),
            kind: begun.map(|_| "function"),
            function: FunctionDelta {
                name: begun.map(|begun| &*begun.name),
                arguments: &call.arguments,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn choices_are_read_and_others_named() {
        for (choice, expected) in [
            (json!("auto"), Ok(ToolChoice::Auto)),
            (json!("none"), Ok(ToolChoice::None)),
            (json!("required"), Ok(ToolChoice::Required)),
            (
                json!({"type": "function", "function": {"name": "a"}}),
                Ok(ToolChoice::Named("a".into())),
            ),
            (
                json!({"type": "function", "name": "a"}),
                Ok(ToolChoice::Named("a".into())),
            ),
            (json!("any"), Err("tool_choice")),
            (json!({"type": "function"}), Err("tool_choice.function")),
            (json!({"type": "allowed_tools"}), Err("tool_choice.type")),
        ] {
            let spec: ToolChoiceSpec = serde_json::from_value(choice.clone()).expect("a choice");
            let read = spec.read().map_err(|error| error.param.unwrap_or_default());
            assert_eq!(read, expected.map_err(str::to_owned), "{choice}");
        }
        assert!(serde_json::from_value::<ToolChoiceSpec>(json!(1)).is_err());
    }
}
