//! Tools as OpenAI's and Ollama's clients describe them.

use serde::Deserialize;
use serde_json::Value;
use tercel::Tool;
use utoipa::ToSchema;

use crate::error::ApiError;

/// A tool that the model may call.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ToolSpec {
    /// `function`.
    #[serde(rename = "type")]
    kind: Option<String>,
    function: FunctionSpec,
}

/// What it is called, what it does and what it takes.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FunctionSpec {
    /// 1 to 64 letters, digits, `_`, `-` and `.`.
    #[schema(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9_.-]+$")]
    pub(super) name: String,
    pub(super) description: Option<String>,
    /// JSON Schema of the arguments, an object; left out, there are none to speak of.
    #[schema(value_type = Option<Object>)]
    pub(super) parameters: Option<Value>,
    /// Whether calls keep to the schema, which is then refused where it cannot be kept to.
    pub(super) strict: Option<bool>,
}

/// The tools of a request.
///
/// # Errors
/// What is none, by its path.
pub(super) fn read(tools: Option<Vec<ToolSpec>>) -> Result<Vec<Tool>, ApiError> {
    let tools = tools.unwrap_or_default().into_iter().enumerate();
    let tools = tools.map(|(index, tool)| {
        is_function(tool.kind.as_deref(), &format!("tools[{index}].type"))?;
        let at = format!("tools[{index}].function");
        tool.function.read(|field| format!("{at}.{field}"))
    });
    tools.collect()
}

/// Checks that a tool or a choice is of the one type there is.
pub(super) fn is_function(kind: Option<&str>, at: &str) -> Result<(), ApiError> {
    match kind {
        None | Some("function") => Ok(()),
        Some(_) => Err(ApiError::unsupported(
            at,
            format!("`{at}` must be `function`: there are no other tools here"),
        )),
    }
}

impl FunctionSpec {
    /// The tool, whose fields have these paths.
    ///
    /// # Errors
    /// What is wrong with it, by its path.
    pub(super) fn read(self, at: impl Fn(&str) -> String) -> Result<Tool, ApiError> {
        let parameters = self.parameters.unwrap_or_default();
        let mut tool = Tool::new(self.name, parameters).with_strict(self.strict == Some(true));
        tool.description = self.description;
        checked(tool, at)
    }
}

/// A tool that is one.
///
/// # Errors
/// What is wrong with it, by its path.
pub(super) fn checked(tool: Tool, at: impl Fn(&str) -> String) -> Result<Tool, ApiError> {
    match tool.check() {
        Ok(()) => Ok(tool),
        Err((field, range)) => {
            let at = at(field);
            let message = format!("`{at}` must be {range}");
            Err(ApiError::invalid(at, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(tools: Value) -> Result<Vec<Tool>, ApiError> {
        read(serde_json::from_value(tools).expect("a list"))
    }

    #[test]
    fn tools_are_read_and_what_is_none_is_named() {
        let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}});
        let function =
            json!({"name": "add", "description": "Adds.", "parameters": schema, "strict": true});
        let expected = Tool::new("add", schema)
            .with_description("Adds.")
            .with_strict(true);
        for tool in [
            json!({"type": "function", "function": function}),
            json!({"function": function}),
        ] {
            assert_eq!(parse(json!([tool])), Ok(vec![expected.clone()]));
        }
        let bare = parse(json!([{"type": "function", "function": {"name": "now"}}]));
        assert_eq!(bare, Ok(vec![Tool::new("now", Value::Null)]));
        assert_eq!(parse(Value::Null), Ok(Vec::new()));
        for (tool, code, param) in [
            (
                json!({"type": "custom", "function": {"name": "a"}}),
                "unsupported_parameter",
                "tools[0].type",
            ),
            (
                json!({"function": {"name": "a b"}}),
                "invalid_parameter",
                "tools[0].function.name",
            ),
            (
                json!({"function": {"name": "a", "parameters": {"type": "array"}}}),
                "invalid_parameter",
                "tools[0].function.parameters.type",
            ),
            (
                json!({"function": {"name": "a", "parameters": "x"}}),
                "invalid_parameter",
                "tools[0].function.parameters",
            ),
        ] {
            let error = parse(json!([tool])).unwrap_err();
            assert_eq!((error.code, error.param.as_deref()), (code, Some(param)));
        }
    }
}
