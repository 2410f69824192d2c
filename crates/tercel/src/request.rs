//! What is asked of an engine: a prompt in one of three forms, and how to sample.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use tercel_text::grammar::Grammar;
use tercel_text::tools::{Tool, ToolFormat, write_out};
use tercel_text::{
    ChatTemplate, Message, PromptEnd, Rendered, Role, TemplateInput, ThinkTags, Tokenizer,
};

use crate::TokenId;
use crate::context::{ContextOverflow, ContextReport, Fit};
use crate::error::Error;
use crate::job::Terms;
use crate::logprobs::MAX_TOP;
use crate::sampling::{Sampling, sampling_setters};
use crate::thinking::Thinking;
use crate::tools::{ToolChoice, Tools};

/// A request for one reply.
///
/// Setters take any value; [`Engine::generate`](crate::Engine::generate) and
/// [`Engine::stream`](crate::Engine::stream) check them all before anything runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    pub(crate) input: Input,
    pub(crate) sampling: Sampling,
    pub(crate) terms: Terms,
    pub(crate) template: Option<String>,
    /// How many alternatives of each token to tell; nothing is told of them where it is `None`.
    pub(crate) logprobs: Option<usize>,
    /// What the answer must be.
    pub(crate) grammar: Option<Grammar>,
    pub(crate) tools: Tools,
}

/// The forms a prompt comes in.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Input {
    Prompt(String),
    Chat(Vec<Message>),
    Tokens(Vec<TokenId>),
}

impl Request {
    /// Continues `text` as it stands, without a template. A begin token is put before it where the
    /// model wants one; special tokens in it are text.
    pub fn prompt(text: impl Into<String>) -> Self {
        Self::new(Input::Prompt(text.into()))
    }

    /// Replies to a conversation, rendered by the model's chat template.
    pub fn chat(messages: Vec<Message>) -> Self {
        Self::new(Input::Chat(messages))
    }

    /// Continues these tokens exactly: no template, no begin token.
    pub fn tokens(tokens: Vec<TokenId>) -> Self {
        Self::new(Input::Tokens(tokens))
    }

    sampling_setters!();

    /// How urgent it is, by default 0: where requests wait, higher ones go first.
    #[must_use]
    pub fn priority(mut self, priority: i32) -> Self {
        self.terms.priority = priority;
        self
    }

    /// How long it may take from its acceptance to its end, the wait for its turn included. Later,
    /// it ends with what there is and [`StopReason::Timeout`](crate::StopReason::Timeout).
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.terms.deadline = Some(deadline);
        self
    }

    /// How long the first token may take from the start of the work, and each other from the one
    /// before; later, it ends as with [`Request::deadline`].
    #[must_use]
    pub fn token_timeout(mut self, timeout: Duration) -> Self {
        self.terms.token_timeout = Some(timeout);
        self
    }

    /// Whether tokens may be guessed from the text so far and checked several at a time, by default
    /// where that pays. The reply is the same.
    #[must_use]
    pub fn speculation(mut self, speculation: bool) -> Self {
        self.terms.speculation = speculation;
        self
    }

    /// Tells how likely the model held each generated token to be, with the `top` most likely ones
    /// at its place: 0 (the token alone) to 20. See [`Reply::logprobs`](crate::Reply::logprobs).
    #[must_use]
    pub fn logprobs(mut self, top: usize) -> Self {
        self.logprobs = Some(top);
        self
    }

    /// The answer is a JSON object.
    #[must_use]
    pub fn json(self) -> Self {
        self.constrained(Grammar::Json)
    }

    /// The answer is JSON that a schema describes (JSON Schema, draft 2020-12 and before). Keywords
    /// that cannot be kept to are an error.
    #[must_use]
    pub fn json_schema(self, schema: serde_json::Value) -> Self {
        self.constrained(Grammar::JsonSchema(schema))
    }

    /// The answer is a text that a regular expression matches as a whole.
    #[must_use]
    pub fn regex(self, pattern: impl Into<String>) -> Self {
        self.constrained(Grammar::Regex(pattern.into()))
    }

    /// The answer is a text of a context-free grammar, in the form of Lark (which begins at
    /// `start`) or GBNF (which begins at `root`).
    #[must_use]
    pub fn grammar(self, grammar: impl Into<String>) -> Self {
        self.constrained(Grammar::of(grammar))
    }

    /// What the answer must be, from its first character to its last; a thought comes before it,
    /// and is free. Of several the last one counts.
    ///
    /// A reply that ends for another reason than
    /// [`StopReason::Eos`](crate::StopReason::Eos) may be a part of such a text.
    #[must_use]
    pub fn constrained(mut self, grammar: Grammar) -> Self {
        self.grammar = Some(grammar);
        self
    }

    /// Tools that the model may call. It is told of them by the chat template, or in words where
    /// that knows of none; calls come out as [`Reply::tool_calls`](crate::Reply::tool_calls), in the
    /// form of the model's family, and what looks like one and is none stays text.
    ///
    /// Calls of strict tools ([`Tool::with_strict`]) keep to their schemas, and so do all calls where
    /// one is required.
    #[must_use]
    pub fn tools(mut self, tools: impl IntoIterator<Item = Tool>) -> Self {
        self.tools.list = tools.into_iter().collect();
        self
    }

    /// Whether tools are called, by default as the model decides.
    #[must_use]
    pub fn tool_choice(mut self, choice: ToolChoice) -> Self {
        self.tools.choice = choice;
        self
    }

    /// Whether the reply may call several tools, by default true; otherwise it ends with its first
    /// call.
    #[must_use]
    pub fn parallel_tool_calls(mut self, several: bool) -> Self {
        self.tools.several = several;
        self
    }

    /// A chat template (Jinja source) for this conversation, in place of the engine's.
    #[must_use]
    pub fn template(mut self, source: impl Into<String>) -> Self {
        self.template = Some(source.into());
        self
    }

    /// Checks that nothing is asked of a prompt that only a conversation can give, nor too much.
    pub(crate) fn check_form(&self) -> Result<(), Error> {
        if let Some(top) = self.logprobs.filter(|top| *top > MAX_TOP) {
            let range = format!("0 to {MAX_TOP}");
            return Err(Error::invalid_parameter("logprobs", top.to_string(), range));
        }
        let Sampling {
            thinking,
            max_thinking_tokens: most,
            min_answer_tokens: least,
            context_overflow: overflow,
            ..
        } = &self.sampling;
        self.tools.check()?;
        let tools = self.tools.list.len();
        let given = [
            ("tools", (tools > 0).then(|| format!("a list of {tools}"))),
            (
                "context_overflow",
                overflow
                    .filter(|it| *it == ContextOverflow::DropOldestTurns)
                    .map(|it| it.to_string()),
            ),
            (
                "thinking",
                thinking
                    .filter(|it| *it != Thinking::Auto)
                    .map(|it| it.to_string()),
            ),
            ("max_thinking_tokens", most.map(|it| it.to_string())),
            ("min_answer_tokens", least.map(|it| it.to_string())),
        ];
        if self.is_chat() {
            return Ok(());
        }
        match given
            .into_iter()
            .find_map(|(field, value)| Some((field, value?)))
        {
            None => Ok(()),
            Some((field, value)) => Err(Error::invalid_parameter(
                field,
                value,
                "left out for a prompt without a template",
            )),
        }
    }

    /// Whether this is a conversation.
    pub(crate) fn is_chat(&self) -> bool {
        matches!(self.input, Input::Chat(_))
    }

    fn new(input: Input) -> Self {
        Self {
            input,
            sampling: Sampling::default(),
            terms: Terms {
                speculation: true,
                ..Terms::default()
            },
            template: None,
            logprobs: None,
            grammar: None,
            tools: Tools::default(),
        }
    }
}

/// The role with this name, as wire formats and saved conversations write it.
///
/// # Errors
/// [`Error::InvalidRole`] for any other name.
pub fn parse_role(name: &str) -> Result<Role, Error> {
    [Role::System, Role::User, Role::Assistant, Role::Tool]
        .into_iter()
        .find(|role| role.name() == name)
        .ok_or_else(|| Error::InvalidRole {
            role: name.to_owned(),
        })
}

/// What turns requests into tokens.
pub(crate) struct Prompter<'a> {
    pub(crate) tokenizer: &'a Tokenizer,
    pub(crate) template: &'a Template,
    /// What the model is told that it may call.
    pub(crate) tools: &'a [Tool],
    /// How the model marks its thought.
    pub(crate) tags: Option<ThinkTags>,
    /// Tokens the model has.
    pub(crate) vocab_size: usize,
    /// Tokens that prompt and reply may have together.
    pub(crate) max_context: usize,
}

/// The variable by which templates know of tools.
const TOOLS: &str = "tools";

/// A model's chat template, if it has one.
pub(crate) enum Template {
    Missing,
    /// The model's own does not compile; the reason is told when it is needed.
    Broken(String),
    Ready(Box<ChatTemplate>),
}

impl Template {
    /// A template from its source.
    pub(crate) fn compile(source: &str) -> Result<Self, Error> {
        let compiled = ChatTemplate::new(source).map_err(Error::Template)?;
        Ok(Self::Ready(Box::new(compiled)))
    }

    /// Tells templates apart.
    pub(crate) fn identity(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.source().hash(&mut hasher);
        hasher.finish()
    }

    /// How a model with this template writes its calls.
    pub(crate) fn tool_format(&self) -> ToolFormat {
        let found = match self {
            Self::Ready(template) if template.reads(TOOLS) => ToolFormat::find(template.source()),
            _ => None,
        };
        found.unwrap_or(ToolFormat::Json)
    }

    /// The template's source text.
    pub(crate) fn source(&self) -> Option<&str> {
        match self {
            Self::Missing => None,
            Self::Broken(source) => Some(source),
            Self::Ready(template) => Some(template.source()),
        }
    }
}

/// A prompt as the model sees it.
pub(crate) struct Prompt {
    pub(crate) tokens: Vec<TokenId>,
    /// Bytes of the text that no token expresses.
    pub(crate) lost_bytes: usize,
    /// How the reply marks a thought; nothing where none is looked for.
    pub(crate) tags: Option<ThinkTags>,
    pub(crate) end: PromptEnd,
    /// What was cut so that it fits, where something was.
    pub(crate) context: Option<ContextReport>,
    /// What the template took.
    pub(crate) format: Duration,
}

impl Prompter<'_> {
    /// The tokens of a prompt: not empty, inside the vocabulary, with room for a reply.
    pub(crate) fn prompt(
        &self,
        input: Input,
        thinking: Thinking,
        fit: &Fit,
    ) -> Result<Prompt, Error> {
        let (prompt, messages) = self.uncut(input, thinking)?;
        let tokens = prompt.tokens.len();
        if tokens <= fit.room() {
            return Ok(prompt);
        }
        match messages {
            Some(messages) => fit.cut_messages(&messages, thinking, tokens, self),
            None => fit.cut_tokens(prompt, self.tokenizer),
        }
    }

    /// As [`prompt`](Self::prompt), however long it is; with the messages it was made of.
    pub(crate) fn uncut(
        &self,
        input: Input,
        thinking: Thinking,
    ) -> Result<(Prompt, Option<Vec<Message>>), Error> {
        let plain = |tokens, lost_bytes| Prompt {
            tokens,
            lost_bytes,
            tags: None,
            end: PromptEnd::Plain,
            context: None,
            format: Duration::ZERO,
        };
        let (prompt, messages) = match input {
            Input::Prompt(text) => {
                let lost_bytes = self.tokenizer.lost_bytes(&text);
                (plain(self.raw(&text)?, lost_bytes), None)
            }
            Input::Chat(messages) => (self.chat(&messages, thinking)?, Some(messages)),
            Input::Tokens(tokens) => (plain(tokens, 0), None),
        };
        self.check(&prompt.tokens, "tokens")?;
        Ok((prompt, messages))
    }

    /// Checks that there are tokens and that the model has each.
    pub(crate) fn check(&self, tokens: &[TokenId], field: &'static str) -> Result<(), Error> {
        if tokens.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        match tokens
            .iter()
            .find(|&&token| token as usize >= self.vocab_size)
        {
            Some(token) => {
                let range = format!("ids below {}", self.vocab_size);
                Err(Error::invalid_parameter(
                    field,
                    format!("a list with {token}"),
                    range,
                ))
            }
            None => Ok(()),
        }
    }

    /// A text as it stands, after the begin token where the model wants one.
    pub(crate) fn raw(&self, text: &str) -> Result<Vec<TokenId>, Error> {
        if text.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        let mut tokens = Vec::new();
        if self.tokenizer.add_bos() {
            tokens.extend(self.tokenizer.bos());
        }
        tokens.extend(self.tokenizer.encode(text));
        Ok(tokens)
    }

    /// The tokens of a conversation without the start of a reply: what the next turn begins with.
    pub(crate) fn history(&self, messages: &[Message]) -> Result<Vec<TokenId>, Error> {
        let (rendered, _) = self.render(messages, Thinking::Auto, false)?;
        Ok(self.tokenizer.encode_rendered(&rendered))
    }

    /// A conversation, rendered; its prompt may be longer than the context.
    pub(crate) fn chat(&self, messages: &[Message], thinking: Thinking) -> Result<Prompt, Error> {
        let Some(last) = messages.last() else {
            return Err(Error::EmptyMessages);
        };
        // A tool may have nothing to say.
        if last.role != Role::Tool && last.content.trim().is_empty() {
            return Err(Error::EmptyPrompt);
        }
        let started = Instant::now();
        let (rendered, end) = self.to_reply(messages, thinking)?;
        let format = started.elapsed();
        Ok(Prompt {
            tokens: self.tokenizer.encode_rendered(&rendered),
            lost_bytes: self.tokenizer.lost_bytes(rendered.text()),
            tags: self.tags,
            end,
            context: None,
            format,
        })
    }

    /// What the template makes of a conversation that the model is to go on with, and how that ends.
    pub(crate) fn to_reply(
        &self,
        messages: &[Message],
        thinking: Thinking,
    ) -> Result<(Rendered, PromptEnd), Error> {
        let (mut rendered, is_asked) = self.render(messages, thinking, true)?;
        let end = thinking.settle(self.tags, is_asked, &mut rendered)?;
        Ok((rendered, end))
    }

    /// What the template makes of a conversation, and whether it asks for thoughts.
    pub(crate) fn render(
        &self,
        messages: &[Message],
        thinking: Thinking,
        to_reply: bool,
    ) -> Result<(Rendered, bool), Error> {
        let template = match self.template {
            Template::Missing => return Err(Error::NoChatTemplate),
            // It failed before, so it fails again, with the same reason.
            Template::Broken(source) => &ChatTemplate::new(source).map_err(Error::Template)?,
            Template::Ready(template) => template,
        };
        let has_calls = messages.iter().any(|it| !it.tool_calls.is_empty());
        let is_told = template.reads(TOOLS);
        let written = (!is_told && (has_calls || !self.tools.is_empty()))
            .then(|| write_out(messages, self.tools));
        let functions: Vec<_> = match is_told {
            true => self.tools.iter().map(Tool::function).collect(),
            false => Vec::new(),
        };
        let messages = written.as_deref().unwrap_or(messages);
        let name = |id: Option<TokenId>| id.and_then(|id| self.tokenizer.token(id));
        let mut input = TemplateInput::new(messages, self.tokenizer.markers());
        input.tools = &functions;
        input.bos_token = name(self.tokenizer.bos()).unwrap_or_default();
        input.eos_token = name(self.tokenizer.eos()).unwrap_or_default();
        input.enable_thinking = thinking.enabled();
        input.add_generation_prompt = to_reply;
        let rendered = template.render(&input).map_err(Error::Template)?;
        Ok((rendered, template.reads("enable_thinking")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_have_one_name_each() {
        for name in ["system", "user", "assistant", "tool"] {
            assert_eq!(parse_role(name).expect("a role").name(), name);
        }
        for name in ["", "User", "developer"] {
            let error = parse_role(name).expect_err("no role");
            assert_eq!(error.kind(), "invalid_role");
            assert!(error.to_string().starts_with(&format!("role `{name}`")));
        }
    }
}
