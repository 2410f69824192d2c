//! What is asked of a response, and what of it is to be had.

use serde::Deserialize;
use serde_json::Value;
use tercel::{ContextOverflow, Thinking};
use utoipa::ToSchema;

use super::items::{self, Item};
use crate::config::Limits;
use crate::error::ApiError;
use crate::routes::openai::format::TextFormat;
use crate::routes::openai::sampling::{self, StreamOptions, generation_request, refuse};
use crate::routes::openai::texts::{TextOr, short};
use crate::routes::openai::tools::{ResponseTool, ToolChoiceSpec};
use crate::work::{Ask, Input, ToolsAsked};

generation_request! {
    /// A conversation, and what its reply is to be like.
    struct ResponseRequest {
        // A text, or the items of the conversation so far.
        #[schema(inline)]
        input: TextOr<Item>,
        /// What the model is told before all else.
        instructions: Option<String>,
        /// The most tokens to generate, those of a thought included.
        #[schema(minimum = 1)]
        max_output_tokens: Option<usize>,
        /// `message.output_text.logprobs`: tells how likely the tokens were.
        include: Option<Vec<String>>,
        /// How many alternatives are told of each token; needs `include`.
        #[schema(minimum = 0, maximum = 20)]
        top_logprobs: Option<usize>,
        stream_options: Option<StreamOptions>,
        reasoning: Option<Reasoning>,
        /// Ends a thought once it has so many tokens.
        #[schema(minimum = 1)]
        max_thinking_tokens: Option<usize>,
        /// Tokens that a thought leaves to the answer.
        min_answer_tokens: Option<usize>,
        text: Option<TextConfig>,
        /// `disabled` (a prompt that is too long is an error) or `auto` (the oldest turns go).
        truncation: Option<String>,
        /// What the model may call.
        tools: Option<Vec<ResponseTool>>,
        tool_choice: Option<ToolChoiceSpec>,
        /// Whether a reply may have several calls, by default true.
        parallel_tool_calls: Option<bool>,
        /// Without effect, since there are no tools of the server's own.
        #[expect(dead_code, reason = "it is accepted and has no effect")]
        max_tool_calls: Option<u64>,
        /// Must not be true.
        background: Option<bool>,
        /// Must be absent: nothing is kept here.
        previous_response_id: Option<String>,
        /// Must be absent: nothing is kept here.
        conversation: Option<Value>,
        /// Must be absent: nothing is kept here.
        prompt: Option<Value>,
        /// Must be absent.
        context_management: Option<Value>,
        /// Must be absent.
        moderation: Option<Value>,
    }
}

/// Whether and how the model thinks.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::routes::openai) struct Reasoning {
    /// Whether the model thinks: not with `none` and `minimal`, else it does.
    effort: Option<String>,
    /// `auto` alone: thoughts are given whole.
    summary: Option<String>,
    /// The older name of `summary`.
    generate_summary: Option<String>,
}

/// The form of the text.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::routes::openai) struct TextConfig {
    format: Option<TextFormat>,
    /// `medium` alone.
    verbosity: Option<String>,
}

/// A request that was checked.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) ask: Ask,
    pub(super) stream: bool,
    /// Whether it tells how likely the tokens were.
    pub(super) logprobs: bool,
    pub(super) echo: Echo,
}

/// What a response repeats of its request.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Echo {
    pub(super) instructions: Option<String>,
    pub(super) max_output_tokens: Option<usize>,
    pub(super) effort: Option<String>,
    pub(super) top_logprobs: usize,
    pub(super) temperature: Option<f32>,
    pub(super) top_p: Option<f32>,
    pub(super) is_truncated: bool,
    pub(super) format: Option<TextFormat>,
    pub(super) tools: Vec<ResponseTool>,
    pub(super) tool_choice: Option<ToolChoiceSpec>,
    pub(super) is_single: bool,
}

impl Echo {
    /// The tools that the model may call.
    fn asked(&self) -> Result<ToolsAsked, ApiError> {
        let tools = self.tools.iter().cloned().enumerate();
        let tools = tools.map(|(index, tool)| tool.read(&format!("tools[{index}]")));
        let choice = self.tool_choice.clone().map(ToolChoiceSpec::read);
        Ok(ToolsAsked {
            list: tools.collect::<Result<_, _>>()?,
            choice: choice.transpose()?.unwrap_or_default(),
            is_single: self.is_single,
        })
    }
}

impl ResponseRequest {
    /// Checks what needs no model.
    pub(super) fn check(self, limits: &Limits) -> Result<Checked, ApiError> {
        self.check_unsupported()?;
        let stream = self.stream == Some(true);
        if StreamOptions::usage(self.stream_options, stream)? {
            let message = "`include_usage` is not known here: the last event has the counts";
            return Err(ApiError::invalid("stream_options.include_usage", message));
        }
        let mut ask = self.ask(Input::Chat(Vec::new()))?;
        ask.sampling.max_new_tokens = self.max_output_tokens;
        ask.sampling.thinking = self.thinking()?;
        ask.sampling.max_thinking_tokens = self.max_thinking_tokens;
        ask.sampling.min_answer_tokens = self.min_answer_tokens;
        ask.logprobs = self.logprobs()?;
        let is_truncated = self.is_truncated()?;
        if is_truncated && ask.sampling.context_overflow.is_none() {
            ask.sampling.context_overflow = Some(ContextOverflow::DropOldestTurns);
        }
        let echo = Echo {
            instructions: self.instructions.clone(),
            max_output_tokens: self.max_output_tokens,
            effort: self.reasoning.and_then(|reasoning| reasoning.effort),
            top_logprobs: ask.logprobs.unwrap_or_default(),
            temperature: self.temperature,
            top_p: self.top_p,
            is_truncated,
            format: self.text.and_then(|text| text.format),
            tools: self.tools.unwrap_or_default(),
            tool_choice: self.tool_choice,
            is_single: self.parallel_tool_calls == Some(false),
        };
        let format = echo.format.clone().map(TextFormat::grammar);
        ask.grammar = format.transpose()?.flatten();
        ask.tools = echo.asked()?;
        ask.input = Input::Chat(items::conversation(self.instructions, self.input)?);
        ask.check(limits)
            .map_err(|error| sampling::in_word(error, "max_output_tokens"))?;
        Ok(Checked {
            logprobs: ask.logprobs.is_some(),
            ask,
            stream,
            echo,
        })
    }

    /// Refuses what would change the reply and is not to be had.
    fn check_unsupported(&self) -> Result<(), ApiError> {
        let verbosity = self
            .text
            .as_ref()
            .and_then(|text| text.verbosity.as_deref());
        let summary = self.reasoning.as_ref().and_then(|it| {
            let own = it.summary.as_deref();
            own.or(it.generate_summary.as_deref())
        });
        let kept = "nothing is kept here; send the whole conversation as `input`";
        for (field, is_set, why) in [
            (
                "previous_response_id",
                self.previous_response_id.is_some(),
                kept,
            ),
            ("conversation", self.conversation.is_some(), kept),
            ("prompt", self.prompt.is_some(), "nothing is kept here"),
            (
                "background",
                self.background == Some(true),
                "nothing is kept here",
            ),
            (
                "text.verbosity",
                verbosity.is_some_and(|it| it != "medium"),
                "it is `medium`",
            ),
            (
                "reasoning.summary",
                summary.is_some_and(|it| it != "auto"),
                "thoughts are given whole",
            ),
            (
                "context_management",
                self.context_management.is_some(),
                "see `context_overflow`",
            ),
            (
                "moderation",
                self.moderation.is_some(),
                "there is no such model",
            ),
        ] {
            refuse(field, is_set, why)?;
        }
        Ok(())
    }

    /// Whether the model is to think.
    fn thinking(&self) -> Result<Option<Thinking>, ApiError> {
        let effort = self.reasoning.as_ref().and_then(|it| it.effort.as_deref());
        effort
            .map(|effort| sampling::thinking(effort, "reasoning.effort"))
            .transpose()
    }

    /// Alternatives to tell of each token; `None` tells nothing.
    fn logprobs(&self) -> Result<Option<usize>, ApiError> {
        let top = self.top_logprobs.unwrap_or_default();
        if top > 20 {
            let message = format!("`top_logprobs` is {top}, must be 0 to 20");
            return Err(ApiError::invalid("top_logprobs", message));
        }
        let mut is_told = false;
        for (index, what) in self.include.iter().flatten().enumerate() {
            if what != "message.output_text.logprobs" {
                let message = format!("`{}` is not to be had", short(what));
                return Err(ApiError::unsupported(format!("include[{index}]"), message));
            }
            is_told = true;
        }
        if top > 0 && !is_told {
            let message = "`top_logprobs` needs `include` with `message.output_text.logprobs`";
            return Err(ApiError::invalid("top_logprobs", message));
        }
        Ok(is_told.then_some(top))
    }

    /// Whether turns may go that the context has no room for.
    fn is_truncated(&self) -> Result<bool, ApiError> {
        match self.truncation.as_deref() {
            None | Some("disabled") => Ok(false),
            Some("auto") => Ok(true),
            Some(other) => {
                let message = format!(
                    "`truncation` is `{}`, must be auto or disabled",
                    short(other)
                );
                Err(ApiError::invalid("truncation", message))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tercel::{Grammar, Message, Tool, ToolChoice};

    use super::*;
    use crate::body::parse;

    fn check(fields: &Value) -> Result<Checked, ApiError> {
        let mut body = json!({"model": "m", "input": "hi"});
        body.as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        let request: ResponseRequest = parse(body.to_string().as_bytes(), 32)?;
        request.check(&Limits::default())
    }

    #[test]
    fn every_field_reaches_the_model() {
        let checked = check(&json!({
            "instructions": "s", "max_output_tokens": 5, "temperature": 0.5, "top_p": 1,
            "stream": true, "truncation": "auto", "reasoning": {"effort": "none"},
            "include": ["message.output_text.logprobs"], "top_logprobs": 2, "seed": 1,
            "store": false, "tools": [], "tool_choice": "auto", "text": {"format": {"type": "text"}},
            "parallel_tool_calls": true, "metadata": {}, "max_thinking_tokens": 3,
        }))
        .unwrap();
        let set = &checked.ask.sampling;
        assert!(checked.stream && checked.logprobs);
        assert_eq!(checked.ask.logprobs, Some(2));
        let turns = vec![Message::system("s"), Message::user("hi")];
        assert_eq!(checked.ask.input, Input::Chat(turns));
        assert_eq!(
            (set.max_new_tokens, set.temperature, set.seed),
            (Some(5), Some(0.5), Some(1))
        );
        assert_eq!(set.context_overflow, Some(ContextOverflow::DropOldestTurns));
        assert_eq!(
            (set.thinking, set.max_thinking_tokens),
            (Some(Thinking::Off), Some(3))
        );
        let want = Echo {
            instructions: Some("s".to_owned()),
            max_output_tokens: Some(5),
            effort: Some("none".to_owned()),
            top_logprobs: 2,
            temperature: Some(0.5),
            top_p: Some(1.0),
            is_truncated: true,
            format: Some(TextFormat::Text {}),
            tool_choice: Some(ToolChoiceSpec::Word("auto".to_owned())),
            ..Echo::default()
        };
        assert_eq!(checked.echo, want);
    }

    #[test]
    fn formats_and_tools_reach_the_model() {
        let schema = json!({"type": "object"});
        let checked = check(&json!({
            "text": {"format": {"type": "json_schema", "name": "n", "schema": schema, "strict": true}},
            "tools": [{"type": "function", "name": "f", "parameters": schema, "strict": true}],
            "tool_choice": {"type": "function", "name": "f"},
            "parallel_tool_calls": false,
        }))
        .unwrap();
        let asked = ToolsAsked {
            list: vec![Tool::new("f", schema.clone()).with_strict(true)],
            choice: ToolChoice::Named("f".to_owned()),
            is_single: true,
        };
        assert_eq!(checked.ask.tools, asked);
        assert_eq!(checked.ask.grammar, Some(Grammar::JsonSchema(schema)));
    }

    #[test]
    fn what_is_not_to_be_had_is_refused_by_name() {
        for (fields, code, param) in [
            (
                json!({"previous_response_id": "resp_1"}),
                "unsupported_parameter",
                "previous_response_id",
            ),
            (
                json!({"conversation": "conv_1"}),
                "unsupported_parameter",
                "conversation",
            ),
            (
                json!({"prompt": {"id": "p"}}),
                "unsupported_parameter",
                "prompt",
            ),
            (
                json!({"background": true}),
                "unsupported_parameter",
                "background",
            ),
            (json!({"store": true}), "unsupported_parameter", "store"),
            (
                json!({"text": {"format": {"type": "json_schema", "name": "a b"}}}),
                "invalid_parameter",
                "text.format.name",
            ),
            (
                json!({"text": {"verbosity": "high"}}),
                "unsupported_parameter",
                "text.verbosity",
            ),
            (
                json!({"tools": [{"type": "web_search"}]}),
                "unsupported_parameter",
                "tools[0].type",
            ),
            (
                json!({"tools": [{"type": "function"}]}),
                "invalid_parameter",
                "tools[0].name",
            ),
            (
                json!({"tool_choice": "any"}),
                "invalid_parameter",
                "tool_choice",
            ),
            (
                json!({"reasoning": {"summary": "concise"}}),
                "unsupported_parameter",
                "reasoning.summary",
            ),
            (
                json!({"reasoning": {"effort": "some"}}),
                "invalid_parameter",
                "reasoning.effort",
            ),
            (
                json!({"include": ["reasoning.encrypted_content"]}),
                "unsupported_parameter",
                "include[0]",
            ),
            (
                json!({"top_logprobs": 1}),
                "invalid_parameter",
                "top_logprobs",
            ),
            (
                json!({"truncation": "some"}),
                "invalid_parameter",
                "truncation",
            ),
            (
                json!({"max_output_tokens": 0}),
                "invalid_parameter",
                "max_output_tokens",
            ),
            (
                json!({"stream": true, "stream_options": {"include_usage": true}}),
                "invalid_parameter",
                "stream_options.include_usage",
            ),
            (json!({"max_tokens": 4}), "invalid_request", "max_tokens"),
            (json!({"n": 2}), "invalid_request", "n"),
        ] {
            let error = check(&fields).unwrap_err();
            assert_eq!(
                (error.code, error.param.as_deref()),
                (code, Some(param)),
                "{fields}: {error:?}"
            );
        }
    }
}
