//! Grammars of replies that may call tools.

use llguidance::api::{GrammarWithLexer, TopLevelGrammar};
use serde_json::{Value, json};

use super::limits::{MAX_BYTES, MAX_CALLS, MAX_TOOLS};
use super::{Grammar, GrammarError, compile, schema, vocabulary};
use crate::tokenizer::Tokenizer;
use crate::tools::{Tool, ToolFormat};

/// A reply that may call tools, or must: each call is one that [`ToolStream`] reads, its arguments
/// are what the tool's schema says.
///
/// [`ToolStream`]: crate::tools::ToolStream
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ToolGrammar<'a> {
    /// How calls are written.
    pub format: ToolFormat,
    /// What may be called.
    pub tools: &'a [Tool],
    /// Whether anything is called.
    pub calls: Calls,
    /// Whether one reply may have several calls.
    pub several: bool,
    /// What a reply without calls must be; any text where it is `None`.
    pub answer: Option<&'a Grammar>,
}

/// Whether a reply calls tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Calls {
    /// It does not.
    Never,
    /// It may.
    May,
    /// It calls one at least.
    Must,
}

/// What errors call it.
const KIND: &str = "tools";

impl<'a> ToolGrammar<'a> {
    /// Any text in which calls may come.
    pub fn new(format: ToolFormat, tools: &'a [Tool]) -> Self {
        Self {
            format,
            tools,
            calls: Calls::May,
            several: true,
            answer: None,
        }
    }

    pub(super) fn source(&self, tokenizer: &Tokenizer) -> Result<TopLevelGrammar, GrammarError> {
        let mut grammars = Vec::new();
        if let Some(answer) = self.answer {
            let source = compile::source(answer)?;
            grammars.extend(source.grammars.into_iter().map(|it| named("answer", it)));
        }
        if self.calls != Calls::Never {
            self.check()?;
            for (nth, tool) in self.tools.iter().enumerate() {
                let arguments = self.arguments(tool)?;
                grammars.push(named(&name_of(nth), arguments));
            }
        }
        let main = GrammarWithLexer::from_lark(self.rules(tokenizer));
        grammars.insert(0, named("reply", main));
        Ok(TopLevelGrammar {
            grammars,
            max_tokens: None,
        })
    }

    fn check(&self) -> Result<(), GrammarError> {
        let too_large = |problem| GrammarError::TooLarge {
            kind: KIND,
            problem,
        };
        if self.tools.len() > MAX_TOOLS {
            return Err(too_large(format!("there are more than {MAX_TOOLS}")));
        }
        let bytes = self.tools.iter().map(|it| it.parameters.to_string().len());
        if bytes.sum::<usize>() > MAX_BYTES {
            let most = MAX_BYTES >> 10;
            return Err(too_large(format!(
                "their schemas have more than {most} KiB of JSON"
            )));
        }
        for tool in self.tools {
            tool.check()
                .map_err(|(field, range)| about(tool, format!("`{field}` must be {range}")))?;
        }
        if self.tools.is_empty() {
            return Err(GrammarError::Invalid {
                kind: KIND,
                problem: "there are none to call".to_owned(),
            });
        }
        Ok(())
    }

    /// Whether calls are told from the answer by what they say alone.
    fn are_objects_among_others(&self) -> bool {
        self.format == ToolFormat::Llama && self.answer.is_some()
    }

    fn arguments(&self, tool: &Tool) -> Result<GrammarWithLexer, GrammarError> {
        let arguments = Grammar::JsonSchema(tool.arguments());
        let named = |error| about(tool, error);
        let prepared = schema::on_one_line(&arguments, &tool.arguments()).map_err(named)?;
        Ok(GrammarWithLexer::from_json_schema(
            match self.are_objects_among_others() {
                // Beside others it is written as they are.
                true => schema::prepare(&arguments, &whole_call(tool)?).map_err(named)?,
                false => prepared,
            },
        ))
    }

    /// The tool whose schema cannot be kept to, found by `compiles`.
    pub(super) fn blame(
        &self,
        error: GrammarError,
        compiles: impl Fn(&Grammar) -> Result<(), GrammarError>,
    ) -> GrammarError {
        let mut faults = self.tools.iter().filter_map(|tool| {
            let fault = compiles(&Grammar::JsonSchema(tool.arguments())).err()?;
            Some(about(tool, fault))
        });
        faults.next().unwrap_or(error)
    }

    /// The reply, in terms of the arguments and the answer.
    fn rules(&self, tokenizer: &Tokenizer) -> String {
        let writer = Writer {
            tokenizer,
            format: self.format,
            most: if self.several { MAX_CALLS } else { 1 },
            are_whole: self.are_objects_among_others(),
        };
        let mut rules = match (self.calls, self.answer.is_some()) {
            (Calls::Never, _) => "start: tail\n".to_owned(),
            (Calls::Must, _) => "start: called\n".to_owned(),
            (Calls::May, true) => "start: called | tail\n".to_owned(),
            (Calls::May, false) => format!("start: {}\n", writer.mixed()),
        };
        if self.calls != Calls::Never {
            rules.push_str(&writer.called(self.tools));
        }
        match self.answer {
            _ if self.calls == Calls::Must => {}
            Some(_) => rules.push_str("tail: @answer\n"),
            None => rules.push_str(&writer.tail()),
        }
        rules
    }
}

fn about(tool: &Tool, problem: impl std::fmt::Display) -> GrammarError {
    GrammarError::Invalid {
        kind: KIND,
        problem: format!("`{}`: {problem}", tool.name),
    }
}

fn named(name: &str, grammar: GrammarWithLexer) -> GrammarWithLexer {
    GrammarWithLexer {
        name: Some(name.to_owned()),
        ..grammar
    }
}

fn name_of(tool: usize) -> String {
    format!("arguments{tool}")
}

/// A text that has to come.
fn literal(text: &str) -> String {
    // Texts are written as in JSON.
    json!(text).to_string()
}

/// Writes rules for one format.
struct Writer<'a> {
    tokenizer: &'a Tokenizer,
    format: ToolFormat,
    /// Calls in one reply.
    most: usize,
    /// Whether the schema of a tool is that of a whole call.
    are_whole: bool,
}

/// What stands before a call's arguments of its kind, and behind them.
struct Frame {
    before: String,
    after: String,
}

impl Writer<'_> {
    /// A mark: the token of that name, or its text where there is none.
    fn mark(&self, text: &str) -> String {
        match self.token(text) {
            Some(token) => token,
            None => literal(text),
        }
    }

    fn token(&self, text: &str) -> Option<String> {
        let id = self.tokenizer.id(text)?;
        (!vocabulary::is_text(self.tokenizer, id)).then(|| format!("<[{id}]>"))
    }

    /// Whether calls are a name and its arguments, not an object with both.
    fn is_named(&self) -> bool {
        match self.format {
            ToolFormat::Gemma => true,
            // Older vocabularies have no such token.
            ToolFormat::Mistral => self.tokenizer.id("[ARGS]").is_some(),
            ToolFormat::Json | ToolFormat::Xml | ToolFormat::Llama => false,
        }
    }

    fn frame(&self, name: &str) -> Frame {
        let object = |key: &str| Frame {
            before: literal(&format!("{{\"name\": \"{name}\", \"{key}\": ")),
            after: literal("}"),
        };
        match self.format {
            ToolFormat::Llama if self.are_whole => Frame {
                before: String::new(),
                after: String::new(),
            },
            ToolFormat::Llama => object("parameters"),
            ToolFormat::Mistral if self.is_named() => Frame {
                before: format!("{} {}", literal(name), self.mark("[ARGS]")),
                after: String::new(),
            },
            ToolFormat::Json | ToolFormat::Xml | ToolFormat::Mistral => object("arguments"),
            ToolFormat::Gemma => Frame {
                before: literal(&format!("call:{name}")),
                after: String::new(),
            },
        }
    }

    /// The rules of `called`, one call at least from its first mark on, of `block`, what follows
    /// that mark, and of `call`.
    fn called(&self, tools: &[Tool]) -> String {
        let calls = tools.iter().enumerate().map(|(nth, tool)| {
            let Frame { before, after } = self.frame(&tool.name);
            format!("call{nth}: {before} @{} {after}\n", name_of(nth))
        });
        let mut rules: String = calls.collect();
        let names: Vec<String> = (0..tools.len()).map(|nth| format!("call{nth}")).collect();
        rules.push_str(&format!("call: {}\n", names.join(" | ")));
        let more = |separator: &str| match self.most {
            0 | 1 => String::new(),
            most => format!(" ({separator}){{0,{}}}", most - 1),
        };
        let (open, close) = self.format.marks();
        let open = open.map(|open| self.mark(open)).unwrap_or_default();
        let close = close.map(|close| self.mark(close)).unwrap_or_default();
        match self.format {
            ToolFormat::Json | ToolFormat::Xml => {
                let line = literal("\n");
                rules.push_str(&format!("block: {line} call {line} {close}\n"));
                let more = more(&format!("{line} {open} block"));
                rules.push_str(&format!("called: {open} block{more}\n"));
            }
            ToolFormat::Gemma => {
                rules.push_str(&format!("block: call {close}\n"));
                let more = more(&format!("{open} block"));
                rules.push_str(&format!("called: {open} block{more}\n"));
            }
            ToolFormat::Mistral if self.is_named() => {
                let more = more(&format!("{open} call"));
                rules.push_str(&format!("block: call{more}\ncalled: {open} block\n"));
            }
            ToolFormat::Mistral => {
                let more = more(&format!("{} call", literal(", ")));
                let (begin, end) = (literal("["), literal("]"));
                rules.push_str(&format!("block: {begin} call{more} {end}\n"));
                rules.push_str(&format!("called: {open} block\n"));
            }
            ToolFormat::Llama => {
                let more = more(&format!("{} call", literal("; ")));
                rules.push_str(&format!("called: call{more}\n"));
            }
        }
        rules
    }

    /// Text among which calls may come, up to an end without any. Where calls have no mark of their
    /// end, nothing comes behind them.
    fn mixed(&self) -> String {
        let (open, close) = self.format.marks();
        let Some(open) = open else {
            return "called | tail".to_owned();
        };
        let free = match self.token(open) {
            Some(token) => format!("text {token} block"),
            None => "free block".to_owned(),
        };
        match close {
            Some(_) if self.most > 1 => format!("({free}){{0,{}}} tail", self.most),
            _ => format!("{free} | tail"),
        }
    }

    /// The rules of `tail`, a text without a call, of `text`, any text, and of `free`, a text up to
    /// the mark of a call.
    fn tail(&self) -> String {
        const ANY: &str = r"(.|\n)*";
        let Some(open) = self.format.marks().0 else {
            // What begins like an object, or with what may stand before one, is read as a call.
            let tag = pattern("<|python_tag|>");
            return format!("tail: TAIL\nTAIL: /\\s*([^{{\\s]{ANY})?/ & ~/\\s*{tag}{ANY}/\n");
        };
        let mark = pattern(open);
        // Spelled out, a mark would be read as one, even where it is a token.
        let tail = format!("tail: TAIL\nTAIL: /{ANY}/ & ~/{ANY}{mark}{ANY}/\n");
        match self.token(open) {
            Some(_) => format!("{tail}text: TAIL\n"),
            None => format!("{tail}free[lazy]: /{ANY}{mark}/\n"),
        }
    }
}

/// A text as a pattern.
fn pattern(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '<' | '>');
    let escaped = |c| (!is_plain(c)).then_some('\\').into_iter().chain([c]);
    text.chars().flat_map(escaped).collect()
}

/// The schema of a call of Llama 3 as a whole, which shares its beginning with other objects.
fn whole_call(tool: &Tool) -> Result<Value, GrammarError> {
    const DEFINITIONS: [&str; 2] = ["$defs", "definitions"];
    let mut arguments = tool.arguments();
    if refers_elsewhere(&arguments, &DEFINITIONS) {
        let problem = "its `$ref` cannot be kept to beside a schema for the answer";
        return Err(about(tool, problem));
    }
    let definitions: Vec<(&str, Value)> = DEFINITIONS
        .into_iter()
        .filter_map(|key| Some((key, arguments.as_object_mut()?.remove(key)?)))
        .collect();
    let mut call = json!({
        "type": "object",
        "properties": {"name": {"const": tool.name}, "parameters": arguments},
        "required": ["name", "parameters"],
        "additionalProperties": false,
    });
    for (key, value) in definitions {
        call[key] = value;
    }
    Ok(call)
}

/// Whether a schema refers to anything but its definitions.
fn refers_elsewhere(schema: &Value, definitions: &[&str]) -> bool {
    match schema {
        Value::Array(items) => items.iter().any(|it| refers_elsewhere(it, definitions)),
        Value::Object(fields) => fields.iter().any(|(key, value)| {
            let is_elsewhere = |to: &str| {
                let is_in = |key: &&str| to.starts_with(&format!("#/{key}/"));
                !definitions.iter().any(is_in)
            };
            (key == "$ref" && value.as_str().is_some_and(is_elsewhere))
                || refers_elsewhere(value, definitions)
        }),
        _ => false,
    }
}
