//! What is asked of a model, whatever the protocol it came by.

use std::time::Duration;

use tercel::{Grammar, Message, Request, Sampling, TokenId, Tool, ToolChoice};

use crate::config::Limits;
use crate::error::ApiError;

/// A question, its fields translated and its own rules checked.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    /// The model by name; `None` is the server's first.
    pub(crate) model: Option<String>,
    pub(crate) input: Input,
    pub(crate) sampling: Sampling,
    /// Log-probabilities of each token, with so many alternatives.
    pub(crate) logprobs: Option<usize>,
    /// How long it may take; the server's own bound holds too.
    pub(crate) deadline: Option<Duration>,
    pub(crate) priority: i32,
    /// What the answer must be.
    pub(crate) grammar: Option<Grammar>,
    pub(crate) tools: ToolsAsked,
    /// A chat template in place of the model's.
    pub(crate) template: Option<String>,
}

/// What the model may call.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ToolsAsked {
    pub(crate) list: Vec<Tool>,
    pub(crate) choice: ToolChoice,
    /// Whether the reply ends with its first call.
    pub(crate) is_single: bool,
}

impl ToolsAsked {
    /// Characters of all that the model is told of them.
    fn chars(&self) -> usize {
        let tools = self.list.iter();
        tools
            .map(|it| it.function().to_string().chars().count())
            .sum()
    }
}

/// The forms of a prompt.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Input {
    /// A conversation, for the chat template.
    Chat(Vec<Message>),
    /// A text that is continued as it stands.
    Text(String),
    /// Tokens that are continued as they stand.
    Tokens(Vec<TokenId>),
}

impl Ask {
    pub(crate) fn new(model: Option<String>, input: Input) -> Self {
        Self {
            model,
            input,
            sampling: Sampling::default(),
            logprobs: None,
            deadline: None,
            priority: 0,
            grammar: None,
            tools: ToolsAsked::default(),
            template: None,
        }
    }

    /// Checks what needs no model.
    pub(crate) fn check(&self, limits: &Limits) -> Result<(), ApiError> {
        let chars = self.input.chars() + self.tools.chars();
        if chars > limits.prompt_chars {
            let message = format!(
                "the prompt has {chars} characters, at most {} are taken",
                limits.prompt_chars
            );
            return Err(ApiError::bad_request("input_too_large", message));
        }
        if let (Some(asked), Some(most)) = (self.sampling.max_new_tokens, limits.max_new_tokens)
            && asked > most
        {
            let message = format!("`max_new_tokens` is {asked}, must be at most {most}");
            return Err(ApiError::invalid("max_new_tokens", message));
        }
        Ok(self.sampling.validate()?)
    }

    /// The engine's request.
    pub(crate) fn request(&self, limits: &Limits) -> Request {
        let mut request = match &self.input {
            Input::Chat(messages) => Request::chat(messages.clone()),
            Input::Text(text) => Request::prompt(text.clone()),
            Input::Tokens(tokens) => Request::tokens(tokens.clone()),
        };
        let mut sampling = self.sampling.clone();
        if sampling.max_new_tokens.is_none() {
            sampling.max_new_tokens = limits.max_new_tokens;
        }
        request = request.sampling(sampling).priority(self.priority);
        let deadline = [self.deadline, limits.deadline].into_iter().flatten().min();
        if let Some(deadline) = deadline {
            request = request.deadline(deadline);
        }
        if let Some(top) = self.logprobs {
            request = request.logprobs(top);
        }
        if let Some(grammar) = &self.grammar {
            request = request.constrained(grammar.clone());
        }
        if !self.tools.list.is_empty() || self.tools.choice != ToolChoice::Auto {
            request = request
                .tools(self.tools.list.iter().cloned())
                .tool_choice(self.tools.choice.clone())
                .parallel_tool_calls(!self.tools.is_single);
        }
        if let Some(template) = &self.template {
            request = request.template(template.clone());
        }
        request
    }
}

impl Input {
    /// Characters of all texts.
    pub(crate) fn chars(&self) -> usize {
        match self {
            Self::Chat(messages) => messages.iter().map(chars).sum(),
            Self::Text(text) => text.chars().count(),
            Self::Tokens(_) => 0,
        }
    }

    /// What hashes and guards look at: the texts, one after the other.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Chat(messages) => {
                let texts: Vec<&str> = messages.iter().map(|it| &*it.content).collect();
                texts.join("\n")
            }
            Self::Text(text) => text.clone(),
            Self::Tokens(tokens) => format!("{tokens:?}"),
        }
    }
}

/// Characters of what is said and called in a turn.
fn chars(message: &Message) -> usize {
    let calls = message.tool_calls.iter();
    let calls = calls.map(|it| it.arguments.to_string().chars().count());
    message.content.chars().count() + calls.sum::<usize>()
}
