//! What Anthropic's clients ask.

use serde::Deserialize;
use serde_json::Value;
use tercel::{Sampling, Thinking};
use utoipa::ToSchema;

use super::content::{Content, Turn, conversation};
use super::tools::{self, ToolChoiceSpec, ToolSpec};
use crate::error::ApiError;
use crate::routes::ranges;
use crate::work::{Ask, Input};

/// A question to `/v1/messages`.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[schema(as = anthropic::MessagesRequest)]
#[serde(deny_unknown_fields)]
pub(super) struct MessagesRequest {
    model: String,
    /// The most tokens to generate, thoughts included; at least 1.
    max_tokens: usize,
    messages: Vec<Turn>,
    system: Option<Content>,
    /// 0 to 1.
    temperature: Option<f32>,
    /// Above 0, up to 1.
    top_p: Option<f32>,
    /// 0 is off.
    top_k: Option<usize>,
    /// At most 16 strings of 1 to 256 bytes.
    stop_sequences: Option<Vec<String>>,
    stream: Option<bool>,
    thinking: Option<ThinkingConfig>,
    /// Accepted without effect.
    #[expect(dead_code, reason = "it is for the bookkeeping of the service")]
    metadata: Option<Value>,
    /// Accepted without effect.
    #[expect(dead_code, reason = "there is one tier")]
    service_tier: Option<ServiceTier>,
    /// Accepted without effect: what begins alike is kept anyway.
    #[expect(dead_code, reason = "the cache needs no marks")]
    cache_control: Option<Value>,
    /// What the model may call.
    tools: Option<Vec<ToolSpec>>,
    tool_choice: Option<ToolChoiceSpec>,
    /// Must be left out.
    output_config: Option<Value>,
}

/// A question to `/v1/messages/count_tokens`.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[schema(as = anthropic::CountTokensRequest)]
#[serde(deny_unknown_fields)]
pub(super) struct CountTokensRequest {
    model: String,
    messages: Vec<Turn>,
    system: Option<Content>,
    thinking: Option<ThinkingConfig>,
    /// Accepted without effect.
    #[expect(dead_code, reason = "the cache needs no marks")]
    cache_control: Option<Value>,
    /// What the model may call.
    tools: Option<Vec<ToolSpec>>,
    tool_choice: Option<ToolChoiceSpec>,
    /// Must be left out.
    output_config: Option<Value>,
}

/// Whether the model is to think before it answers; left out, as its template has it.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[schema(as = anthropic::ThinkingConfig)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum ThinkingConfig {
    /// It thinks.
    Enabled {
        /// The most tokens of the thought; at least 1, below `max_tokens`.
        budget_tokens: usize,
        display: Option<Display>,
    },
    /// It answers at once.
    Disabled {},
    /// As its template has it.
    Adaptive { display: Option<Display> },
}

/// What is shown of a thought: all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[schema(as = anthropic::Display)]
#[serde(rename_all = "snake_case")]
pub(super) enum Display {
    /// The thought as the model gave it.
    Summarized,
    /// Not supported.
    Omitted,
}

/// Tiers of the public service.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[schema(as = anthropic::ServiceTier)]
#[serde(rename_all = "snake_case")]
pub(super) enum ServiceTier {
    Auto,
    StandardOnly,
}

/// Tercel's names and Anthropic's, where they differ.
const NAMES: [(&str, &str); 3] = [
    ("max_new_tokens", "max_tokens"),
    ("max_thinking_tokens", "thinking.budget_tokens"),
    ("stop", "stop_sequences"),
];

impl MessagesRequest {
    pub(super) fn is_streamed(&self) -> bool {
        self.stream.unwrap_or(false)
    }

    /// What is asked of the model.
    ///
    /// # Errors
    /// What is not supported or out of range, by name.
    pub(super) fn into_ask(self) -> Result<Ask, ApiError> {
        let tools = tools::read(self.tools, self.tool_choice)?;
        refuse_output_config(self.output_config.as_ref())?;
        let messages = conversation(self.system, self.messages)?;
        if let Some(temperature) = self.temperature
            && !(0.0..=1.0).contains(&temperature)
        {
            return Err(ranges::out_of_range("temperature", temperature, "0 to 1"));
        }
        let mut ask = Ask::new(Some(self.model), Input::Chat(messages));
        ask.tools = tools;
        let sampling = &mut ask.sampling;
        sampling.max_new_tokens = Some(self.max_tokens);
        sampling.temperature = self.temperature;
        sampling.top_p = self.top_p;
        sampling.top_k = self.top_k;
        sampling.stop = self.stop_sequences.unwrap_or_default();
        if let Some(thinking) = self.thinking {
            thinking.apply(sampling)?;
        }
        ranges::check(sampling, &NAMES)?;
        if let (Some(budget), most) = (sampling.max_thinking_tokens, self.max_tokens)
            && budget >= most
        {
            let range = format!("below `max_tokens`, which is {most}");
            return Err(ranges::out_of_range(
                "thinking.budget_tokens",
                budget,
                &range,
            ));
        }
        Ok(ask)
    }
}

impl CountTokensRequest {
    /// The question whose tokens are counted.
    ///
    /// # Errors
    /// As [`MessagesRequest::into_ask`].
    pub(super) fn into_ask(self) -> Result<Ask, ApiError> {
        let tools = tools::read(self.tools, self.tool_choice)?;
        refuse_output_config(self.output_config.as_ref())?;
        let messages = conversation(self.system, self.messages)?;
        let mut ask = Ask::new(Some(self.model), Input::Chat(messages));
        ask.tools = tools;
        if let Some(thinking) = self.thinking {
            thinking.apply(&mut ask.sampling)?;
        }
        ranges::check(&ask.sampling, &NAMES)?;
        Ok(ask)
    }
}

impl ThinkingConfig {
    fn apply(&self, sampling: &mut Sampling) -> Result<(), ApiError> {
        let (thinking, budget, display) = match self {
            Self::Enabled {
                budget_tokens,
                display,
            } => (Thinking::On, Some(*budget_tokens), *display),
            Self::Disabled {} => (Thinking::Off, None, None),
            Self::Adaptive { display } => (Thinking::Auto, None, *display),
        };
        if display == Some(Display::Omitted) {
            return Err(ApiError::unsupported(
                "thinking.display",
                "`omitted` is not supported: a thought is shown where there is one",
            ));
        }
        sampling.thinking = Some(thinking);
        sampling.max_thinking_tokens = budget;
        Ok(())
    }
}

fn refuse_output_config(config: Option<&Value>) -> Result<(), ApiError> {
    match config {
        None | Some(Value::Null) => Ok(()),
        Some(Value::Object(fields)) if fields.values().all(Value::is_null) => Ok(()),
        Some(_) => Err(ApiError::unsupported(
            "output_config",
            "neither an effort nor a format of the reply is supported",
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tercel::Message;

    use super::*;
    use crate::body;

    fn ask(changes: &Value) -> Result<Ask, ApiError> {
        let mut request = json!({
            "model": "small",
            "max_tokens": 100,
            "messages": [{"role": "user", "content": "a"}],
        });
        for (name, value) in changes.as_object().into_iter().flatten() {
            request[name] = value.clone();
        }
        body::parse::<MessagesRequest>(request.to_string().as_bytes(), 32)?.into_ask()
    }

    #[test]
    fn fields_become_the_question() {
        let all = ask(&json!({
            "temperature": 1.0, "top_p": 0.5, "top_k": 7, "stop_sequences": ["x", "y"],
            "metadata": {"user_id": "u"}, "service_tier": "auto", "tools": [],
            "tool_choice": {"type": "auto"}, "cache_control": {"type": "ephemeral"},
            "thinking": {"type": "enabled", "budget_tokens": 64, "display": "summarized"},
        }));
        let all = all.expect("a question");
        assert_eq!(all.model.as_deref(), Some("small"));
        assert_eq!(all.input, Input::Chat(vec![Message::user("a")]));
        let mut expected = Sampling::default();
        expected.max_new_tokens = Some(100);
        expected.temperature = Some(1.0);
        expected.top_p = Some(0.5);
        expected.top_k = Some(7);
        expected.stop = vec!["x".to_owned(), "y".to_owned()];
        expected.thinking = Some(Thinking::On);
        expected.max_thinking_tokens = Some(64);
        assert_eq!(all.sampling, expected);

        for (thinking, expected) in [
            (json!({"type": "disabled"}), Some(Thinking::Off)),
            (json!({"type": "adaptive"}), Some(Thinking::Auto)),
            (Value::Null, None),
        ] {
            let asked = ask(&json!({"thinking": thinking})).expect("a question");
            assert_eq!(asked.sampling.thinking, expected);
        }
    }

    #[test]
    fn refusals_name_the_field() {
        for (changes, code, param) in [
            (json!({"max_tokens": 0}), "invalid_parameter", "max_tokens"),
            (json!({"max_tokens": -1}), "invalid_request", "max_tokens"),
            (json!({"max_tokens": null}), "invalid_request", "max_tokens"),
            (
                json!({"temperature": 1.1}),
                "invalid_parameter",
                "temperature",
            ),
            (
                json!({"temperature": -0.1}),
                "invalid_parameter",
                "temperature",
            ),
            (
                json!({"temperature": 1e300}),
                "invalid_parameter",
                "temperature",
            ),
            (json!({"top_p": 1.5}), "invalid_parameter", "top_p"),
            (json!({"top_k": -1}), "invalid_request", "top_k"),
            (
                json!({"stop_sequences": [""]}),
                "invalid_parameter",
                "stop_sequences",
            ),
            (
                json!({"stop_sequences": "x"}),
                "invalid_request",
                "stop_sequences",
            ),
            (
                json!({"service_tier": "fast"}),
                "invalid_request",
                "service_tier",
            ),
            (
                json!({"tools": [{"name": "t", "type": "web_search_20250305"}]}),
                "unsupported_parameter",
                "tools[0].type",
            ),
            (
                json!({"tool_choice": {"type": "any", "other": 1}}),
                "invalid_request",
                "tool_choice",
            ),
            (
                json!({"output_config": {"effort": "low"}}),
                "unsupported_parameter",
                "output_config",
            ),
            (json!({"container": "c"}), "invalid_request", "container"),
            (
                json!({"thinking": {"type": "other"}}),
                "invalid_request",
                "thinking",
            ),
            (
                json!({"thinking": {"type": "enabled", "budget_tokens": 100}}),
                "invalid_parameter",
                "thinking.budget_tokens",
            ),
            (
                json!({"thinking": {"type": "enabled", "budget_tokens": 0}}),
                "invalid_parameter",
                "thinking.budget_tokens",
            ),
            (
                json!({"thinking": {"type": "adaptive", "display": "omitted"}}),
                "unsupported_parameter",
                "thinking.display",
            ),
        ] {
            let error = ask(&changes).unwrap_err();
            let param_of = error.param.clone().unwrap_or_default();
            assert_eq!(error.code, code, "{changes}: {}", error.message);
            assert!(param_of.starts_with(param), "{changes}: {param_of}");
        }
    }

    #[test]
    fn counts_are_asked_without_a_length() {
        let body =
            br#"{"model": "m", "messages": [{"role": "user", "content": "a"}], "system": "s",
            "thinking": {"type": "enabled", "budget_tokens": 2048}}"#;
        let request: CountTokensRequest = body::parse(body, 8).expect("a request");
        let ask = request.into_ask().expect("a question");
        assert_eq!(
            ask.input,
            Input::Chat(vec![Message::system("s"), Message::user("a")])
        );
        let body = br#"{"model": "m", "messages": [], "max_tokens": 3}"#;
        assert!(body::parse::<CountTokensRequest>(body, 8).is_err());
    }
}
