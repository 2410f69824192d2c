//! Tools as Anthropic's clients describe them.

use serde::Deserialize;
use serde_json::Value;
use tercel::{Tool, ToolChoice};
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::routes::tools::checked;
use crate::work::ToolsAsked;

/// A tool that the model may call.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[schema(as = anthropic::ToolSpec)]
#[serde(deny_unknown_fields)]
pub(super) struct ToolSpec {
    /// `custom`, the only type there is here.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// 1 to 64 letters, digits, `_`, `-` and `.`.
    #[schema(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9_.-]+$")]
    name: String,
    description: Option<String>,
    /// JSON Schema of the arguments, an object.
    #[schema(value_type = Option<Object>)]
    input_schema: Option<Value>,
    /// Whether calls keep to the schema, which is then refused where it cannot be kept to.
    strict: Option<bool>,
    /// Accepted without effect: what begins alike is kept anyway.
    #[expect(dead_code, reason = "the cache needs no marks")]
    cache_control: Option<Value>,
}

/// Whether tools are called.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[schema(as = anthropic::ToolChoiceSpec)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum ToolChoiceSpec {
    /// As the model decides.
    Auto {
        /// Whether the reply ends with its first call.
        disable_parallel_tool_use: Option<bool>,
    },
    /// One is called at least.
    Any {
        /// Whether the reply ends with its first call.
        disable_parallel_tool_use: Option<bool>,
    },
    /// This one is called.
    Tool {
        name: String,
        /// Without effect: it is called once.
        disable_parallel_tool_use: Option<bool>,
    },
    /// None is called.
    None {},
}

/// The tools of a request.
///
/// # Errors
/// What is none, by its path.
pub(super) fn read(
    tools: Option<Vec<ToolSpec>>,
    choice: Option<ToolChoiceSpec>,
) -> Result<ToolsAsked, ApiError> {
    let tools = tools.unwrap_or_default().into_iter().enumerate();
    let list = tools.map(|(index, tool)| tool.read(&format!("tools[{index}]")));
    let (choice, is_single) = match choice {
        None => (ToolChoice::Auto, None),
        Some(ToolChoiceSpec::None {}) => (ToolChoice::None, None),
        Some(ToolChoiceSpec::Auto {
            disable_parallel_tool_use,
        }) => (ToolChoice::Auto, disable_parallel_tool_use),
        Some(ToolChoiceSpec::Any {
            disable_parallel_tool_use,
        }) => (ToolChoice::Required, disable_parallel_tool_use),
        Some(ToolChoiceSpec::Tool {
            name,
            disable_parallel_tool_use,
        }) => (ToolChoice::Named(name), disable_parallel_tool_use),
    };
    Ok(ToolsAsked {
        list: list.collect::<Result<_, _>>()?,
        choice,
        is_single: is_single == Some(true),
    })
}

impl ToolSpec {
    fn read(self, at: &str) -> Result<Tool, ApiError> {
        if self.kind.is_some_and(|kind| kind != "custom") {
            let message = format!("`{at}.type` must be `custom`: there are no other tools here");
            return Err(ApiError::unsupported(format!("{at}.type"), message));
        }
        let parameters = self.input_schema.unwrap_or_default();
        let mut tool = Tool::new(self.name, parameters).with_strict(self.strict == Some(true));
        tool.description = self.description;
        checked(tool, |field| {
            let field = field.replacen("parameters", "input_schema", 1);
            format!("{at}.{field}")
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(tools: Value, choice: Value) -> Result<ToolsAsked, ApiError> {
        let tools = serde_json::from_value(tools).expect("tools");
        read(tools, serde_json::from_value(choice).expect("a choice"))
    }

    #[test]
    fn tools_and_choices_are_read() {
        let schema = json!({"type": "object"});
        let tool = json!({"name": "add", "description": "Adds.", "input_schema": schema, "type": "custom"});
        let list = vec![Tool::new("add", schema).with_description("Adds.")];
        for (wire, choice, is_single) in [
            (Value::Null, ToolChoice::Auto, false),
            (json!({"type": "auto"}), ToolChoice::Auto, false),
            (
                json!({"type": "any", "disable_parallel_tool_use": true}),
                ToolChoice::Required,
                true,
            ),
            (
                json!({"type": "tool", "name": "add"}),
                ToolChoice::Named("add".into()),
                false,
            ),
            (json!({"type": "none"}), ToolChoice::None, false),
        ] {
            let expected = ToolsAsked {
                list: list.clone(),
                choice,
                is_single,
            };
            assert_eq!(parse(json!([tool]), wire), Ok(expected));
        }
        assert_eq!(parse(Value::Null, Value::Null), Ok(ToolsAsked::default()));
    }

    #[test]
    fn what_is_no_tool_is_named() {
        for (tool, param) in [
            (json!({"name": ""}), "tools[0].name"),
            (
                json!({"name": "a", "input_schema": 1}),
                "tools[0].input_schema",
            ),
            (
                json!({"name": "a", "input_schema": {"type": "string"}}),
                "tools[0].input_schema.type",
            ),
            (
                json!({"name": "a", "type": "bash_20250124"}),
                "tools[0].type",
            ),
        ] {
            let error = parse(json!([tool]), Value::Null).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param));
        }
    }
}
