//! What `infer` and `infer_stream` are given.

use serde_json::Value;
use tercel_text::{Message, Role};

use super::error::JsonError;
use super::params::Params;
use super::start::{Config, read_sampling};
use crate::engine::Engine;
use crate::request::Request;
use crate::sampling::Sampling;
use crate::thinking::Thinking;

/// A request for one reply.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    input: Input,
    system_prompt: Option<String>,
    sampling: Sampling,
    enable_thinking: Option<bool>,
}

#[derive(Clone, Debug)]
enum Input {
    Prompt(String),
    Messages(Vec<Message>),
}

impl Ask {
    /// Takes the request out of `params`, where it stands as it is or as `inputs`: an object, or a
    /// list of one.
    pub(super) fn read(params: &mut Params) -> Result<Self, JsonError> {
        match params.value("inputs") {
            None => Self::read_flat(params),
            Some(Value::Array(mut list)) => match (list.pop(), list.is_empty()) {
                (Some(one), true) => Self::read_inputs(one),
                _ => Err(JsonError::parameter(
                    "inputs",
                    "must hold exactly one request",
                )),
            },
            Some(inputs) => Self::read_inputs(inputs),
        }
    }

    /// The request for an engine.
    pub(super) fn request(self, engine: &Engine, config: &Config) -> Request {
        let mut sampling = self.sampling;
        sampling.thinking = self.enable_thinking.map(|thinks| match thinks {
            false => Thinking::Off,
            true if engine.think_tags().is_some() => Thinking::On,
            // The SDK's default; it asks nothing of a model that does not think.
            true => Thinking::Auto,
        });
        let system = self
            .system_prompt
            .or_else(|| config.default_system_prompt.clone());
        let has_template = engine.info().has_template && !config.is_raw;
        let request = match self.input {
            Input::Prompt(text) if !has_template && system.is_none() => Request::prompt(text),
            Input::Prompt(text) => Request::chat(under(system, vec![Message::user(text)])),
            Input::Messages(messages) => Request::chat(under(system, messages)),
        };
        request.sampling(sampling)
    }

    fn read_inputs(inputs: Value) -> Result<Self, JsonError> {
        let mut params = Params::of("inputs", inputs)?;
        let this = Self::read_flat(&mut params)?;
        params.finish()?;
        Ok(this)
    }

    fn read_flat(params: &mut Params) -> Result<Self, JsonError> {
        let input = match (params.text("prompt")?, params.value("messages")) {
            (Some(prompt), None) => Input::Prompt(prompt),
            (None, Some(messages)) => Input::Messages(read_messages(messages)?),
            (None, None) => return Err(JsonError::parameter("prompt", "is missing")),
            (Some(_), Some(_)) => {
                let problem = "and `prompt` exclude each other";
                return Err(JsonError::parameter("messages", problem));
            }
        };
        let system_prompt = params.text("system_prompt")?;
        if let (Some(_), Input::Messages(messages)) = (&system_prompt, &input)
            && messages
                .first()
                .is_some_and(|first| first.role == Role::System)
        {
            let problem = "is given twice: the messages begin with one";
            return Err(JsonError::parameter("system_prompt", problem));
        }
        Ok(Self {
            input,
            system_prompt,
            sampling: read_sampling(params)?,
            enable_thinking: params.truth("enable_thinking")?,
        })
    }
}

/// The messages under a system message, unless they bring their own.
fn under(system: Option<String>, mut messages: Vec<Message>) -> Vec<Message> {
    let has_own = messages
        .first()
        .is_some_and(|first| first.role == Role::System);
    if let Some(system) = system.filter(|_| !has_own) {
        messages.insert(0, Message::system(system));
    }
    messages
}

fn read_messages(messages: Value) -> Result<Vec<Message>, JsonError> {
    let Value::Array(list) = messages else {
        return Err(JsonError::parameter(
            "messages",
            "must be a list of messages",
        ));
    };
    let read = |(i, value): (usize, Value)| {
        let param = format!("messages[{i}]");
        let role = value.get("role").and_then(Value::as_str).map(str::to_owned);
        match role {
            None => return Err(JsonError::parameter(&param, "has no role")),
            Some(role) => crate::request::parse_role(&role)
                .map_err(|error| JsonError::from(error).with_param(&param))?,
        };
        serde_json::from_value::<Message>(value)
            .map_err(|error| JsonError::parameter(&param, format!("is no message: {error}")))
    };
    list.into_iter().enumerate().map(read).collect()
}
