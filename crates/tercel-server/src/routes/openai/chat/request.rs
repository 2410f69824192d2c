//! What is asked of a chat, and what of it is to be had.

use serde_json::{Map, Value};
use tercel::Thinking;

use crate::config::Limits;
use crate::error::ApiError;
use crate::routes::openai::format::ResponseFormat;
use crate::routes::openai::messages::{self, ChatMessage};
use crate::routes::openai::sampling::{self, StreamOptions, generation_request, refuse};
use crate::routes::openai::tools::ToolChoiceSpec;
use crate::routes::tools::{self, ToolSpec};
use crate::work::{Ask, Input};

generation_request! {
    /// A conversation, and what its reply is to be like.
    struct ChatRequest {
        /// The turns so far.
        #[schema(min_items = 1)]
        messages: Vec<ChatMessage>,
        /// How many replies.
        #[schema(minimum = 1)]
        n: Option<usize>,
        /// The most tokens to generate, those of a thought included.
        #[schema(minimum = 1)]
        max_completion_tokens: Option<usize>,
        /// The older name of `max_completion_tokens`.
        #[schema(minimum = 1)]
        max_tokens: Option<usize>,
        /// Whether the reply tells how likely its tokens were.
        logprobs: Option<bool>,
        /// How many alternatives it tells of each; needs `logprobs`.
        #[schema(minimum = 0, maximum = 20)]
        top_logprobs: Option<usize>,
        stream_options: Option<StreamOptions>,
        /// Whether the model thinks: not with `none` and `minimal`, else it does.
        reasoning_effort: Option<String>,
        /// `enable_thinking` alone: whether the model thinks.
        chat_template_kwargs: Option<Map<String, Value>>,
        /// Ends a thought once it has so many tokens.
        #[schema(minimum = 1)]
        max_thinking_tokens: Option<usize>,
        /// Tokens that a thought leaves to the answer.
        min_answer_tokens: Option<usize>,
        response_format: Option<ResponseFormat>,
        /// What the model may call.
        tools: Option<Vec<ToolSpec>>,
        tool_choice: Option<ToolChoiceSpec>,
        /// Must be empty.
        functions: Option<Vec<Value>>,
        /// `none` alone.
        function_call: Option<Value>,
        /// Whether a reply may have several calls, by default true.
        parallel_tool_calls: Option<bool>,
        /// `["text"]` alone.
        modalities: Option<Vec<String>>,
        /// `medium` alone.
        verbosity: Option<String>,
        /// Must be absent.
        audio: Option<Value>,
        /// Must be absent.
        prediction: Option<Value>,
        /// Must be absent.
        moderation: Option<Value>,
        /// Must be absent.
        web_search_options: Option<Value>,
    }
}

/// A request that was checked.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) ask: Ask,
    pub(super) choices: usize,
    pub(super) stream: bool,
    pub(super) include_usage: bool,
    /// What the client calls the most tokens to generate.
    pub(super) length_word: &'static str,
}

impl ChatRequest {
    /// Checks what needs no model.
    pub(super) fn check(self, limits: &Limits) -> Result<Checked, ApiError> {
        self.check_unsupported()?;
        let stream = self.stream == Some(true);
        let (length, length_word) = self.length()?;
        let choices = sampling::choices(self.n, limits.choices)?;
        let include_usage = StreamOptions::usage(self.stream_options, stream)?;
        let mut ask = self.ask(Input::Chat(Vec::new()))?;
        ask.sampling.max_new_tokens = length;
        ask.sampling.thinking = self.thinking()?;
        ask.sampling.max_thinking_tokens = self.max_thinking_tokens;
        ask.sampling.min_answer_tokens = self.min_answer_tokens;
        ask.logprobs = self.logprobs()?;
        let format = self.response_format.map(ResponseFormat::grammar);
        ask.grammar = format.transpose()?.flatten();
        ask.tools.list = tools::read(self.tools)?;
        let choice = self.tool_choice.map(ToolChoiceSpec::read).transpose()?;
        ask.tools.choice = choice.unwrap_or_default();
        ask.tools.is_single = self.parallel_tool_calls == Some(false);
        ask.input = Input::Chat(messages::conversation(self.messages)?);
        ask.check(limits)
            .map_err(|error| sampling::in_word(error, length_word))?;
        Ok(Checked {
            ask,
            choices,
            stream,
            include_usage,
            length_word,
        })
    }

    /// Refuses what would change the reply and is not to be had.
    fn check_unsupported(&self) -> Result<(), ApiError> {
        let is_some = |list: &Option<Vec<Value>>| list.as_ref().is_some_and(|it| !it.is_empty());
        let is_more = |value: &Option<Value>, plain: &Value| {
            value.as_ref().is_some_and(|value| value != plain)
        };
        let none = Value::from("none");
        let other_modality = |list: &Vec<String>| *list != ["text"];
        for (field, is_set, why) in [
            ("functions", is_some(&self.functions), "use `tools`"),
            (
                "function_call",
                is_more(&self.function_call, &none),
                "use `tool_choice`",
            ),
            (
                "modalities",
                self.modalities.as_ref().is_some_and(other_modality),
                "replies are `[\"text\"]`",
            ),
            (
                "verbosity",
                self.verbosity.as_ref().is_some_and(|it| it != "medium"),
                "it is `medium`",
            ),
            ("audio", self.audio.is_some(), "replies are text"),
            (
                "prediction",
                self.prediction.is_some(),
                "texts are not predicted by clients",
            ),
            (
                "moderation",
                self.moderation.is_some(),
                "there is no such model",
            ),
            (
                "web_search_options",
                self.web_search_options.is_some(),
                "nothing is searched",
            ),
        ] {
            refuse(field, is_set, why)?;
        }
        Ok(())
    }

    /// The most tokens to generate, and what the client calls it.
    fn length(&self) -> Result<(Option<usize>, &'static str), ApiError> {
        match (self.max_completion_tokens, self.max_tokens) {
            (Some(new), Some(old)) if new != old => {
                let message =
                    format!("`max_tokens` is {old}, but `max_completion_tokens` is {new}");
                Err(ApiError::invalid("max_tokens", message))
            }
            (Some(new), _) => Ok((Some(new), "max_completion_tokens")),
            (None, old) => Ok((old, "max_tokens")),
        }
    }

    /// Alternatives to tell of each token; `None` tells nothing.
    fn logprobs(&self) -> Result<Option<usize>, ApiError> {
        let top = self.top_logprobs.unwrap_or_default();
        if top > 20 {
            let message = format!("`top_logprobs` is {top}, must be 0 to 20");
            return Err(ApiError::invalid("top_logprobs", message));
        }
        if self.logprobs == Some(true) {
            return Ok(Some(top));
        }
        if top > 0 {
            let message = "`top_logprobs` needs `logprobs` to be true";
            return Err(ApiError::invalid("top_logprobs", message));
        }
        Ok(None)
    }

    /// Whether the model is to think.
    fn thinking(&self) -> Result<Option<Thinking>, ApiError> {
        let effort = self.reasoning_effort.as_deref();
        let effort = effort.map(|effort| sampling::thinking(effort, "reasoning_effort"));
        let mut thinking = effort.transpose()?;
        for (key, value) in self.chat_template_kwargs.iter().flatten() {
            let field = format!(
                "chat_template_kwargs.{}",
                crate::routes::openai::texts::short(key)
            );
            if key != "enable_thinking" {
                let message = format!("`{field}` is not supported, only `enable_thinking` is");
                return Err(ApiError::unsupported(field, message));
            }
            let own = match value {
                Value::Null => continue,
                Value::Bool(true) => Thinking::On,
                Value::Bool(false) => Thinking::Off,
                _ => {
                    return Err(ApiError::invalid(
                        field.clone(),
                        format!("`{field}` must be a boolean"),
                    ));
                }
            };
            if thinking.is_some_and(|thinking| thinking != own) {
                let message = format!("`{field}` contradicts `reasoning_effort`");
                return Err(ApiError::invalid(field, message));
            }
            thinking = Some(own);
        }
        Ok(thinking)
    }
}

#[cfg(test)]
mod tests;
