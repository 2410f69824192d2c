//! Tools that a chat runs by itself.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::{Value, json};
use tercel_text::tools::Tool;
use tercel_text::{Message, ToolCall};

/// Why a tool gave no result: a text that the model gets in its place.
pub type ToolFailure = Box<dyn std::error::Error + Send + Sync>;

type Run = dyn Fn(&Value) -> Result<Value, ToolFailure> + Send + Sync;

/// Tools and what runs them, for [`Chat::tools`](crate::Chat::tools). Clones share what runs.
///
/// Nothing else is ever run: a call names one of these tools, and its arguments keep to the schema,
/// since a reply cannot be written that calls anything else.
#[derive(Clone, Default)]
pub struct Toolbox {
    tools: Vec<Tool>,
    runs: BTreeMap<String, Arc<Run>>,
}

impl Toolbox {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tool, and what runs it: it gets the arguments, and gives what the model is told, a
    /// text as it stands and any other value as JSON. A failure is told to the model too.
    ///
    /// A tool of the same name is replaced.
    #[must_use]
    pub fn with<E: Into<ToolFailure>>(
        mut self,
        tool: Tool,
        run: impl Fn(&Value) -> Result<Value, E> + Send + Sync + 'static,
    ) -> Self {
        self.tools.retain(|it| it.name != tool.name);
        let run = move |arguments: &Value| run(arguments).map_err(Into::into);
        self.runs.insert(tool.name.clone(), Arc::new(run));
        self.tools.push(tool.with_strict(true));
        self
    }

    /// The tools.
    pub fn tools(&self) -> &[Tool] {
        &self.tools
    }

    /// Runs a call, and gives what the model is told of it.
    pub(crate) fn run(&self, call: &ToolCall) -> Message {
        let result = match self.runs.get(&call.name) {
            Some(run) => run(&call.arguments).map_err(|failure| failure.to_string()),
            None => Err(format!("there is no tool `{}`", call.name)),
        };
        let content = match result {
            Ok(Value::String(text)) => text,
            Ok(value) => value.to_string(),
            Err(problem) => json!({ "error": problem }).to_string(),
        };
        let message = Message::tool(content).with_name(&call.name);
        match &call.id {
            Some(id) => message.answering(id),
            None => message,
        }
    }
}

impl fmt::Debug for Toolbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.tools.iter().map(|it| &*it.name).collect();
        f.debug_struct("Toolbox").field("tools", &names).finish()
    }
}
