//! Chat templates: Jinja, as the Python ecosystem renders it, from files nobody has vouched for.

mod budget;
mod filters;
mod guard;
mod lexer;
pub mod limits;
mod neutral;
mod prepare;
mod python;
mod runtime;

use std::io;
use std::ops::Range;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, Value};

use crate::error::TextError;
use crate::message::{Message, ToolCall};
use crate::tokenizer::Markers;
use budget::Budget;
use neutral::Neutralizer;

/// The name under which the one template of an environment is kept.
const NAME: &str = "chat";

/// The variable of [`TemplateInput::enable_thinking`].
const ENABLE_THINKING: &str = "enable_thinking";

/// A compiled chat template. `Send + Sync`; rendering changes nothing in it.
pub struct ChatTemplate {
    source: String,
    environment: Environment<'static>,
    /// The strings in the template's code, to tell what it looks for in messages.
    literals: Vec<String>,
    /// The names in the template's code, sorted.
    names: Vec<String>,
}

/// What a template renders.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TemplateInput<'a> {
    /// The conversation, oldest turn first.
    pub messages: &'a [Message],
    /// Whether the prompt ends with the start of the model's turn.
    pub add_generation_prompt: bool,
    /// The text of the begin-of-sequence token; empty where the model has none.
    pub bos_token: &'a str,
    /// The text of the end-of-sequence token; empty where the model has none.
    pub eos_token: &'a str,
    /// Descriptions of the tools the model may call, as OpenAI's chat format writes them. A
    /// template sees an empty list as none.
    pub tools: &'a [serde_json::Value],
    /// Texts to answer from, for the templates that take them, each commonly an object with
    /// `title` and `text`. A template sees an empty list as none.
    pub documents: &'a [serde_json::Value],
    /// Whether the model is to think before it answers, for the templates that ask (see
    /// [`ChatTemplate::reads`]); without, the template decides.
    pub enable_thinking: Option<bool>,
    /// Further variables. A name of those above is ignored.
    pub extra: serde_json::Map<String, serde_json::Value>,
    /// The control tokens of the model, from [`crate::Tokenizer::markers`]. Their texts in
    /// anything but the begin and end tokens stay text.
    pub special_tokens: &'a Markers,
    /// The local time for `strftime_now`, in seconds since 1970 as if the local clock showed UTC;
    /// the current time in UTC without.
    pub local_seconds: Option<i64>,
}

impl<'a> TemplateInput<'a> {
    /// The input for a reply to `messages` by a model with these control tokens.
    pub fn new(messages: &'a [Message], special_tokens: &'a Markers) -> Self {
        Self {
            messages,
            add_generation_prompt: true,
            bos_token: "",
            eos_token: "",
            tools: &[],
            documents: &[],
            enable_thinking: None,
            extra: serde_json::Map::new(),
            special_tokens,
            local_seconds: None,
        }
    }
}

/// A rendered prompt, that knows which of its control tokens the template wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    text: String,
    /// Byte offsets, ascending, that no control token may span.
    breaks: Vec<usize>,
}

impl Rendered {
    /// The prompt as a person would read it, byte for byte as `transformers` renders it.
    ///
    /// A template that picks single characters out of a message may differ where the message
    /// could name a control token: something invisible stands there while the template runs.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Adds text that counts as the template's own. No control token spans its beginning.
    pub fn push(&mut self, text: &str) {
        self.breaks.push(self.text.len());
        self.text.push_str(text);
    }

    /// Whether the template, and nobody else, may have written a token in this byte range.
    pub(crate) fn is_trusted(&self, range: Range<usize>) -> bool {
        let after = self.breaks.partition_point(|at| *at <= range.start);
        self.breaks.get(after).is_none_or(|at| *at >= range.end)
    }
}

impl ChatTemplate {
    /// Compiles a template.
    ///
    /// # Errors
    /// A source that is not Jinja, or longer than [`limits::SOURCE_BYTES`].
    pub fn new(source: &str) -> Result<Self, TextError> {
        if source.len() > limits::SOURCE_BYTES {
            let limit = limits::SOURCE_BYTES;
            let message = format!("the source has {} bytes, at most {limit}", source.len());
            return Err(TextError::Template {
                message,
                line: None,
            });
        }
        let prepared = prepare::prepare(source)?;
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build();
        environment.set_syntax(syntax.map_err(|error| template_error(&error))?);
        environment.set_recursion_limit(limits::DEPTH);
        environment
            .add_template_owned(NAME, prepared.source)
            .map_err(|error| template_error(&error))?;
        Ok(Self {
            source: source.into(),
            environment,
            literals: prepared.literals,
            names: prepared.names,
        })
    }

    /// The source, unchanged.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether the template's code names this variable, or anything else of this name.
    pub fn reads(&self, variable: &str) -> bool {
        self.names
            .binary_search_by(|name| name.as_str().cmp(variable))
            .is_ok()
    }

    /// Renders a conversation.
    ///
    /// # Errors
    /// What the template raises or does wrong, and anything beyond the [`limits`].
    pub fn render(&self, input: &TemplateInput<'_>) -> Result<Rendered, TextError> {
        let sentinel = neutral::unused_character(input.strings())?;
        let guard = Neutralizer::new(input.special_tokens, &self.literals, sentinel);
        let mut environment = self.environment.clone();
        let messages = u64::try_from(input.messages.len()).unwrap_or(u64::MAX);
        let steps = limits::STEPS_PER_MESSAGE.saturating_mul(messages);
        environment.set_fuel(Some(limits::STEPS.saturating_add(steps)));
        let budget = Budget::new(input.work_bytes());
        runtime::install(&mut environment, &budget, input.local_seconds);
        let mut output = Bounded(Vec::new());
        let template = environment
            .get_template(NAME)
            .map_err(|error| template_error(&error))?;
        template
            .render_captured_to(input.variables(&guard), &mut output)
            .map_err(|error| template_error(&error))?;
        Ok(without(sentinel, &String::from_utf8_lossy(&output.0)))
    }
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChatTemplate")
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

impl TemplateInput<'_> {
    /// Every string of the input.
    fn strings(&self) -> impl Iterator<Item = &str> {
        let mut all = vec![self.bos_token, self.eos_token];
        let mut add = |text| all.push(text);
        for message in self.messages {
            add(&message.content);
            let texts = [
                &message.name,
                &message.reasoning_content,
                &message.tool_call_id,
            ];
            texts.into_iter().flatten().for_each(|text| add(text));
            for call in &message.tool_calls {
                call.id.iter().for_each(|id| add(id));
                add(&call.name);
                neutral::strings_of(&call.arguments, &mut add);
            }
            neutral::strings_of_fields(&message.fields, &mut add);
        }
        for value in self.tools.iter().chain(self.documents) {
            neutral::strings_of(value, &mut add);
        }
        neutral::strings_of_fields(&self.extra, &mut add);
        all.into_iter()
    }

    /// What rendering this input may cost.
    fn work_bytes(&self) -> usize {
        let bytes: usize = self.strings().map(str::len).sum();
        let input = bytes.saturating_mul(limits::WORK_PER_INPUT_BYTE);
        let messages = self.messages.len().saturating_mul(limits::WORK_PER_MESSAGE);
        limits::WORK_BYTES
            .saturating_add(input)
            .saturating_add(messages)
    }

    /// The variables that `transformers` gives a template.
    fn variables(&self, guard: &Neutralizer<'_>) -> Value {
        let mut variables: Vec<(&str, Value)> = Vec::new();
        for (name, value) in [("bos_token", self.bos_token), ("eos_token", self.eos_token)] {
            if !value.is_empty() {
                variables.push((name, Value::from(value)));
            }
        }
        let list = |values: &[serde_json::Value]| match values {
            [] => Value::from(()),
            values => values.iter().map(|value| guard.json(value)).collect(),
        };
        for (name, value) in &self.extra {
            variables.push((name, guard.json(value)));
        }
        if let Some(enabled) = self.enable_thinking {
            variables.push((ENABLE_THINKING, Value::from(enabled)));
        }
        let messages = self.messages.iter();
        variables.push((
            "messages",
            messages
                .map(|message| message_value(message, guard))
                .collect(),
        ));
        variables.push(("documents", list(self.documents)));
        variables.push(("tools", list(self.tools)));
        variables.push((
            "add_generation_prompt",
            Value::from(self.add_generation_prompt),
        ));
        Value::from_pairs(variables)
    }
}

fn message_value(message: &Message, guard: &Neutralizer<'_>) -> Value {
    let text = |text: &str| Value::from(guard.text(text));
    let mut fields = vec![
        ("role".to_owned(), Value::from(message.role.name())),
        ("content".to_owned(), text(&message.content)),
    ];
    let optional = [
        ("name", &message.name),
        ("reasoning_content", &message.reasoning_content),
        ("tool_call_id", &message.tool_call_id),
    ];
    for (name, value) in optional {
        fields.extend(value.as_ref().map(|value| (name.to_owned(), text(value))));
    }
    if !message.tool_calls.is_empty() {
        let calls = message
            .tool_calls
            .iter()
            .map(|call| call_value(call, guard));
        fields.push(("tool_calls".to_owned(), calls.collect()));
    }
    let own = |name: &str| OWN_FIELDS.contains(&name);
    let others = message.fields.iter().filter(|(name, _)| !own(name));
    fields.extend(others.map(|(name, value)| (guard.text(name), guard.json(value))));
    Value::from_pairs(fields)
}

fn call_value(call: &ToolCall, guard: &Neutralizer<'_>) -> Value {
    let function = Value::from_pairs([
        ("name", Value::from(guard.text(&call.name))),
        ("arguments", guard.json(&call.arguments)),
    ]);
    let id = call
        .id
        .as_ref()
        .map(|id| ("id", Value::from(guard.text(id))));
    let shell = [
        ("type", Value::from(crate::message::function())),
        ("function", function),
    ];
    Value::from_pairs(id.into_iter().chain(shell))
}

/// The fields of a message that are not of [`Message::fields`].
const OWN_FIELDS: [&str; 6] = [
    "role",
    "content",
    "name",
    "reasoning_content",
    "tool_calls",
    "tool_call_id",
];

/// The prompt without its sentinels, and the places where they were.
fn without(sentinel: char, marked: &str) -> Rendered {
    let mut text = String::with_capacity(marked.len());
    let mut breaks = Vec::new();
    for (index, part) in marked.split(sentinel).enumerate() {
        if index > 0 {
            breaks.push(text.len());
        }
        text.push_str(part);
    }
    Rendered { text, breaks }
}

/// Output up to [`limits::OUTPUT_BYTES`].
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > limits::OUTPUT_BYTES.saturating_sub(self.0.len()) {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One line that says what is wrong, and the line of the template where it is known.
fn template_error(error: &minijinja::Error) -> TextError {
    // The cause of a failure inside a macro or loop is the innermost error.
    let mut innermost = error;
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(cause) = cause.downcast_ref::<minijinja::Error>() {
            innermost = cause;
        }
        source = cause.source();
    }
    let message = match innermost.kind() {
        ErrorKind::OutOfFuel => format!("it runs too long (more than {} steps)", limits::STEPS),
        ErrorKind::WriteFailure => {
            format!(
                "it writes too much (more than {} bytes)",
                limits::OUTPUT_BYTES
            )
        }
        kind => innermost
            .detail()
            .map_or_else(|| kind.to_string(), str::to_owned),
    };
    let mut message = message.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = message.char_indices().nth(400) {
        message.truncate(end);
        message.push_str("..");
    }
    TextError::Template {
        message,
        line: innermost.line().or(error.line()),
    }
}
