//! A response: what was asked, what came of it, and how it stands.

use serde::Serialize;
use serde_json::Value;
use tercel::StopReason;
use utoipa::ToSchema;

use super::request::Echo;
use crate::error::ApiError;
use crate::routes::openai::format::TextFormat;
use crate::routes::openai::head::Head;
use crate::routes::openai::logprobs::TokenEntry;
use crate::routes::openai::tools::{ResponseTool, ToolChoiceSpec};
use crate::work::{Finished, TercelBlock};

/// A response.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(in crate::routes::openai) struct ResponseObject {
    id: String,
    /// `response`.
    object: &'static str,
    /// In Unix seconds.
    created_at: u64,
    /// `in_progress`, `completed`, `incomplete` or `failed`.
    status: &'static str,
    error: Option<ResponseError>,
    incomplete_details: Option<IncompleteDetails>,
    instructions: Option<String>,
    max_output_tokens: Option<usize>,
    model: String,
    /// The thought, where there is one, the message, and what is called.
    pub(super) output: Vec<OutputItem>,
    parallel_tool_calls: bool,
    previous_response_id: Option<String>,
    reasoning: ReasoningEcho,
    service_tier: &'static str,
    /// False: nothing is kept here.
    store: bool,
    background: bool,
    temperature: Option<f32>,
    text: TextEcho,
    tool_choice: ToolChoiceSpec,
    tools: Vec<ResponseTool>,
    top_logprobs: usize,
    top_p: Option<f32>,
    truncation: &'static str,
    usage: Option<ResponseUsage>,
    /// How it came about, once it has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    tercel: Option<Box<TercelBlock>>,
}

/// Why a response failed.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct ResponseError {
    code: &'static str,
    message: String,
}

/// Why a response is incomplete.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, ToSchema)]
struct IncompleteDetails {
    /// `max_output_tokens`, `content_filter`, `cancelled`, `timeout` or `resource_limit`.
    reason: &'static str,
}

/// Whether the model thinks.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct ReasoningEcho {
    effort: Option<String>,
    summary: Option<String>,
}

/// The form of the text.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct TextEcho {
    format: TextFormat,
    verbosity: &'static str,
}

/// Token counts of a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, ToSchema)]
pub(super) struct ResponseUsage {
    input_tokens: usize,
    input_tokens_details: InputDetails,
    output_tokens: usize,
    output_tokens_details: OutputDetails,
    total_tokens: usize,
}

#[cfg(test)]
impl ResponseUsage {
    pub(super) fn for_tests(input_tokens: usize, output_tokens: usize) -> Self {
        Self {
            input_tokens,
            output_tokens,
            ..Self::default()
        }
    }
}

/// Of the tokens of the conversation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, ToSchema)]
struct InputDetails {
    /// How many did not have to be computed.
    cached_tokens: usize,
    /// Always 0: what is kept costs nothing.
    cache_write_tokens: usize,
}

/// Of the tokens generated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, ToSchema)]
struct OutputDetails {
    /// How many belong to the thought.
    reasoning_tokens: usize,
}

/// What the model gave.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum OutputItem {
    /// What it thought.
    Reasoning {
        id: String,
        /// Empty: thoughts are given whole.
        summary: Vec<Value>,
        content: Vec<OutputPart>,
        status: &'static str,
    },
    /// What it said.
    Message {
        id: String,
        /// `assistant`.
        role: &'static str,
        content: Vec<OutputPart>,
        status: &'static str,
    },
    /// What it called.
    FunctionCall {
        id: String,
        /// What the output names.
        call_id: String,
        name: String,
        /// JSON as text.
        arguments: String,
        status: &'static str,
    },
}

/// A part of what the model gave.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum OutputPart {
    /// Of a thought.
    ReasoningText { text: String },
    /// Of a message.
    OutputText {
        text: String,
        /// Empty: nothing is cited.
        annotations: Vec<Value>,
        logprobs: Vec<TokenEntry>,
    },
}

/// How a response has ended.
#[derive(Debug)]
pub(super) struct Ending {
    /// Why it is incomplete; `None` is complete.
    pub(super) incomplete: Option<&'static str>,
    pub(super) usage: ResponseUsage,
    /// What ties each call that is whole to its output.
    pub(super) calls: Vec<String>,
    /// The temperature and the `top_p` that it ran with.
    pub(super) ran_with: Option<(f32, f32)>,
    pub(super) block: Option<Box<TercelBlock>>,
}

impl Ending {
    pub(super) fn of(finished: &Finished) -> Self {
        let (reply, usage) = (&finished.reply, &finished.reply.usage);
        let incomplete = match finished.stop_reason() {
            _ if finished.guarded_by.is_some() => Some("content_filter"),
            StopReason::Eos | StopReason::ToolCall | StopReason::StopSequence => None,
            StopReason::MaxNewTokens | StopReason::ContextFull => Some("max_output_tokens"),
            other => Some(other.name()),
        };
        Self {
            incomplete,
            usage: ResponseUsage {
                input_tokens: usage.prompt_tokens,
                input_tokens_details: InputDetails {
                    cached_tokens: usage.cached_tokens,
                    cache_write_tokens: 0,
                },
                output_tokens: usage.generated_tokens,
                output_tokens_details: OutputDetails {
                    reasoning_tokens: usage.thinking_tokens,
                },
                total_tokens: usage.prompt_tokens + usage.generated_tokens,
            },
            calls: reply
                .tool_calls
                .iter()
                .filter_map(|it| it.id.clone())
                .collect(),
            ran_with: Some((reply.settings.temperature, reply.settings.top_p)),
            block: Some(Box::new(finished.block())),
        }
    }
}

impl ResponseObject {
    /// One that is being made.
    pub(super) fn new(head: Head, echo: Echo) -> Self {
        Self {
            id: head.id,
            object: "response",
            created_at: head.created,
            status: "in_progress",
            error: None,
            incomplete_details: None,
            instructions: echo.instructions,
            max_output_tokens: echo.max_output_tokens,
            model: head.model,
            output: Vec::new(),
            parallel_tool_calls: !echo.is_single,
            previous_response_id: None,
            reasoning: ReasoningEcho {
                effort: echo.effort,
                summary: None,
            },
            service_tier: "default",
            store: false,
            background: false,
            temperature: echo.temperature,
            text: TextEcho {
                format: echo.format.unwrap_or(TextFormat::Text {}),
                verbosity: "medium",
            },
            tool_choice: echo
                .tool_choice
                .unwrap_or_else(|| ToolChoiceSpec::Word("auto".to_owned())),
            tools: echo.tools,
            top_logprobs: echo.top_logprobs,
            top_p: echo.top_p,
            truncation: if echo.is_truncated {
                "auto"
            } else {
                "disabled"
            },
            usage: None,
            tercel: None,
        }
    }

    /// Notes how it has ended.
    pub(super) fn finish(&mut self, ending: Ending, status: &'static str) {
        self.status = status;
        self.incomplete_details = ending.incomplete.map(|reason| IncompleteDetails { reason });
        self.usage = Some(ending.usage);
        if let Some((temperature, top_p)) = ending.ran_with {
            (self.temperature, self.top_p) = (Some(temperature), Some(top_p));
        }
        self.tercel = ending.block;
    }

    /// Notes that it failed.
    pub(super) fn fail(&mut self, error: &ApiError) {
        self.status = "failed";
        let message = error.message.clone();
        self.error = Some(ResponseError {
            code: "server_error",
            message,
        });
    }
}
