//! What Ollama's clients ask of a model: a turn of a conversation, or the rest of a text.

use serde::Deserialize;
use serde_json::{Map, Value};
use tercel::{ContextOverflow, Error, Grammar, Message, Role, Thinking, ToolCall, parse_role};
use utoipa::ToSchema;

use super::keep_alive::{KeepAlive, Stay};
use super::options::Options;
use crate::config::Config;
use crate::error::ApiError;
use crate::guard::OutputFilter;
use crate::routes::ranges;
use crate::routes::tools::{self, ToolSpec, is_function};
use crate::work::{Ask, Input};

/// A question to `/api/chat`.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[schema(as = ollama::ChatRequest)]
#[serde(deny_unknown_fields)]
pub(super) struct ChatRequest {
    model: String,
    /// Without any, the model is loaded, or unloaded where `keep_alive` is 0.
    messages: Option<Vec<ChatMessage>>,
    /// What the model may call.
    tools: Option<Vec<ToolSpec>>,
    options: Option<Options>,
    /// What the answer must be: `json`, or JSON that this schema describes.
    format: Option<Value>,
    /// By default true.
    stream: Option<bool>,
    keep_alive: Option<KeepAlive>,
    think: Option<Think>,
    logprobs: Option<bool>,
    /// Alternatives to each token.
    top_logprobs: Option<usize>,
    /// Whether turns that are too many are left out, the oldest first; by default they are an
    /// error.
    truncate: Option<bool>,
    /// Must not be true.
    shift: Option<bool>,
}

/// A question to `/api/generate`.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[schema(as = ollama::GenerateRequest)]
#[serde(deny_unknown_fields)]
pub(super) struct GenerateRequest {
    model: String,
    /// Without one, the model is loaded, or unloaded where `keep_alive` is 0.
    prompt: Option<String>,
    system: Option<String>,
    /// A chat template (Jinja) in place of the model's.
    template: Option<String>,
    /// Whether the prompt is continued as it stands.
    raw: Option<bool>,
    /// Must be empty.
    suffix: Option<String>,
    /// Must be empty.
    images: Option<Vec<Value>>,
    /// Must be empty.
    context: Option<Vec<Value>>,
    options: Option<Options>,
    /// What the answer must be: `json`, or JSON that this schema describes.
    format: Option<Value>,
    /// By default true.
    stream: Option<bool>,
    keep_alive: Option<KeepAlive>,
    think: Option<Think>,
    logprobs: Option<bool>,
    /// Alternatives to each token.
    top_logprobs: Option<usize>,
    /// Without effect: a prompt that is too long is an error in any case.
    #[expect(
        dead_code,
        reason = "a prompt that is too long is an error in any case"
    )]
    truncate: Option<bool>,
    /// Must not be true.
    shift: Option<bool>,
}

/// One turn.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[schema(as = ollama::ChatMessage)]
#[serde(deny_unknown_fields)]
pub(super) struct ChatMessage {
    /// `system`, `user`, `assistant` or `tool`.
    role: String,
    content: Option<String>,
    /// What the model thought before it said this.
    thinking: Option<String>,
    /// Must be empty.
    images: Option<Vec<Value>>,
    /// The tools that the model called in this turn.
    tool_calls: Option<Vec<Call>>,
    /// The tool whose result this is.
    tool_name: Option<String>,
    /// The call that this answers.
    tool_call_id: Option<String>,
}

/// A call of a tool by the model, in an earlier turn.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[schema(as = ollama::Call)]
#[serde(deny_unknown_fields)]
pub(super) struct Call {
    id: Option<String>,
    /// `function`.
    #[serde(rename = "type")]
    kind: Option<String>,
    function: CalledFunction,
}

/// What was called.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[schema(as = ollama::CalledFunction)]
#[serde(deny_unknown_fields)]
pub(super) struct CalledFunction {
    #[expect(dead_code, reason = "the order of calls says the same")]
    index: Option<u64>,
    name: String,
    arguments: Map<String, Value>,
}

/// Whether the model is to think before it answers; left out, as its template has it.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(
    untagged,
    expecting = "a boolean or one of \"low\", \"medium\", \"high\""
)]
pub(super) enum Think {
    Whether(bool),
    /// `low`, `medium` or `high`, between which no difference is made.
    Level(String),
}

/// What a request comes to.
#[derive(Clone, Debug)]
pub(super) enum Asked {
    /// There is nothing to answer: the model is to be loaded, or unloaded.
    Presence {
        model: String,
        is_wanted: bool,
        adjustments: Vec<String>,
    },
    Question(Box<Question>),
}

/// A question, checked as far as it can be without its model.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) ask: Ask,
    pub(super) is_streamed: bool,
    /// The context that the client counts on.
    pub(super) num_ctx: Option<usize>,
    /// The prompt, for a model without a chat template.
    pub(super) without_template: Option<String>,
    /// What the client must be told.
    pub(super) adjustments: Vec<String>,
}

impl ChatRequest {
    /// What it comes to.
    ///
    /// # Errors
    /// What is not supported or out of range, by name.
    pub(super) fn read(self, config: &Config) -> Result<Asked, ApiError> {
        let tools = tools::read(self.tools)?;
        let manner = Manner {
            options: self.options,
            format: self.format,
            stream: self.stream,
            keep_alive: self.keep_alive,
            think: self.think,
            logprobs: self.logprobs,
            top_logprobs: self.top_logprobs,
            shift: self.shift,
        };
        let turns = self.messages.unwrap_or_default();
        if turns.is_empty() {
            return manner.presence(self.model, config);
        }
        let mut messages = Vec::with_capacity(turns.len());
        for (index, turn) in turns.into_iter().enumerate() {
            messages.push(turn.read(index)?);
        }
        if messages
            .last()
            .is_some_and(|last| last.role == Role::Assistant)
        {
            return Err(ApiError::unsupported(
                "messages",
                "the last message must not be the model's: a reply that is begun is not supported",
            ));
        }
        let mut question = manner.question(self.model, Input::Chat(messages), config)?;
        question.ask.tools.list = tools;
        if self.truncate == Some(true) {
            question.ask.sampling.context_overflow = Some(ContextOverflow::DropOldestTurns);
        }
        Ok(Asked::Question(Box::new(question)))
    }
}

impl GenerateRequest {
    /// What it comes to.
    ///
    /// # Errors
    /// What is not supported or out of range, by name.
    pub(super) fn read(self, config: &Config) -> Result<Asked, ApiError> {
        refuse_filled("images", self.images.as_deref())?;
        refuse_filled("context", self.context.as_deref())?;
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        if given(self.suffix).is_some() {
            return Err(ApiError::unsupported("suffix", "`suffix` is not supported"));
        }
        let (system, template) = (given(self.system), given(self.template));
        let manner = Manner {
            options: self.options,
            format: self.format,
            stream: self.stream,
            keep_alive: self.keep_alive,
            think: self.think,
            logprobs: self.logprobs,
            top_logprobs: self.top_logprobs,
            shift: self.shift,
        };
        let Some(prompt) = given(self.prompt) else {
            return manner.presence(self.model, config);
        };
        if self.raw == Some(true) {
            for (name, is_given) in [
                ("system", system.is_some()),
                ("template", template.is_some()),
            ] {
                if is_given {
                    let message = format!("`{name}` has no meaning with `raw`");
                    return Err(ApiError::unsupported(name, message));
                }
            }
            let question = manner.question(self.model, Input::Text(prompt), config)?;
            return Ok(Asked::Question(Box::new(question)));
        }
        let is_alone = system.is_none() && template.is_none();
        let without_template = is_alone.then(|| prompt.clone());
        let system = system.map(Message::system);
        let messages = system.into_iter().chain([Message::user(prompt)]).collect();
        let mut question = manner.question(self.model, Input::Chat(messages), config)?;
        question.ask.template = template;
        question.without_template = without_template;
        Ok(Asked::Question(Box::new(question)))
    }
}

/// What both requests have.
struct Manner {
    options: Option<Options>,
    format: Option<Value>,
    stream: Option<bool>,
    keep_alive: Option<KeepAlive>,
    think: Option<Think>,
    logprobs: Option<bool>,
    top_logprobs: Option<usize>,
    shift: Option<bool>,
}

impl Manner {
    fn question(self, model: String, input: Input, config: &Config) -> Result<Question, ApiError> {
        let grammar = self.format.map(grammar).transpose()?.flatten();
        if self.shift == Some(true) {
            return Err(ApiError::unsupported(
                "shift",
                "`shift` is not supported: a reply ends where the context is full",
            ));
        }
        let stay = self.keep_alive.map(|it| it.read()).transpose()?;
        let mut adjustments: Vec<String> = stay
            .and_then(|stay| stay.note(config.idle_ttl))
            .into_iter()
            .collect();
        let options = self.options.unwrap_or_default();
        let num_ctx = options.num_ctx;
        let mut ask = Ask::new(Some(model), input);
        ask.sampling = options.into_sampling(config.limits.max_new_tokens)?;
        if let Some(think) = &self.think {
            let (thinking, note) = think.read()?;
            ask.sampling.thinking = Some(thinking);
            adjustments.extend(note.map(str::to_owned));
        }
        ask.logprobs = logprobs(self.logprobs, self.top_logprobs, config)?;
        ask.grammar = grammar;
        Ok(Question {
            ask,
            is_streamed: self.stream.unwrap_or(true),
            num_ctx,
            without_template: None,
            adjustments,
        })
    }

    /// The model is to be there, or not, which Ollama's clients say by asking nothing.
    fn presence(self, model: String, config: &Config) -> Result<Asked, ApiError> {
        let stay = self.keep_alive.as_ref().map(KeepAlive::read).transpose()?;
        let is_wanted = !stay.is_some_and(Stay::is_zero);
        // What it says beside that is checked like any question.
        let question = self.question(model.clone(), Input::Text(String::new()), config)?;
        Ok(Asked::Presence {
            model,
            is_wanted,
            adjustments: if is_wanted {
                question.adjustments
            } else {
                Vec::new()
            },
        })
    }
}

impl ChatMessage {
    fn read(self, index: usize) -> Result<Message, ApiError> {
        let at = |field: &str| format!("messages[{index}].{field}");
        refuse_filled(&at("images"), self.images.as_deref())?;
        let role = parse_role(&self.role);
        let role = role.map_err(|error: Error| ApiError::from(error).about(at("role")))?;
        let mut message = Message::new(role, self.content.unwrap_or_default());
        message.name = self.tool_name.filter(|name| !name.is_empty());
        message.tool_call_id = self.tool_call_id;
        for (nth, call) in self.tool_calls.into_iter().flatten().enumerate() {
            let field = format!("tool_calls[{nth}]");
            if role != Role::Assistant {
                let message = "only an `assistant` calls tools";
                return Err(ApiError::invalid(at(&field), message));
            }
            is_function(call.kind.as_deref(), &at(&format!("{field}.type")))?;
            let CalledFunction {
                name, arguments, ..
            } = call.function;
            let mut called = ToolCall::new(name, Value::Object(arguments));
            called.id = call.id;
            message.tool_calls.push(called);
        }
        message.reasoning_content = self.thinking.filter(|thought| !thought.is_empty());
        Ok(message)
    }
}

impl Think {
    /// What it means, and what the client must be told.
    fn read(&self) -> Result<(Thinking, Option<&'static str>), ApiError> {
        match self {
            Self::Whether(true) => Ok((Thinking::On, None)),
            Self::Whether(false) => Ok((Thinking::Off, None)),
            Self::Level(level) if matches!(&**level, "low" | "medium" | "high") => Ok((
                Thinking::On,
                Some("think: no difference is made between levels, the model thinks"),
            )),
            Self::Level(_) => Err(ApiError::invalid(
                "think",
                "`think` must be a boolean or one of `low`, `medium`, `high`",
            )),
        }
    }
}

/// What an answer in this format must be.
fn grammar(format: Value) -> Result<Option<Grammar>, ApiError> {
    match format {
        Value::Null => Ok(None),
        Value::String(format) if format.is_empty() => Ok(None),
        Value::String(format) if format == "json" => Ok(Some(Grammar::Json)),
        Value::Object(_) => Ok(Some(Grammar::JsonSchema(format))),
        _ => Err(ApiError::invalid(
            "format",
            "`format` must be `json` or a JSON schema",
        )),
    }
}

/// How many alternatives are told of each token, if anything is.
fn logprobs(
    whether: Option<bool>,
    top: Option<usize>,
    config: &Config,
) -> Result<Option<usize>, ApiError> {
    const MOST: usize = 20;
    let top_or_none = top.unwrap_or(0);
    if top_or_none > MOST {
        return Err(ranges::out_of_range(
            "top_logprobs",
            top_or_none,
            "at most 20",
        ));
    }
    if whether != Some(true) {
        return match top {
            None | Some(0) => Ok(None),
            Some(_) => Err(ApiError::invalid(
                "top_logprobs",
                "`top_logprobs` needs `logprobs` to be true",
            )),
        };
    }
    if OutputFilter::of(&config.guard).is_some() {
        return Err(ApiError::unsupported(
            "logprobs",
            "`logprobs` would tell what the filter of replies takes out",
        ));
    }
    Ok(Some(top_or_none))
}

fn refuse_filled(name: &str, list: Option<&[Value]>) -> Result<(), ApiError> {
    match list {
        None | Some([]) => Ok(()),
        Some(_) => {
            let field = name.rsplit('.').next().unwrap_or(name);
            Err(ApiError::unsupported(
                name,
                format!("`{field}` is not supported"),
            ))
        }
    }
}

#[cfg(test)]
mod tests;
