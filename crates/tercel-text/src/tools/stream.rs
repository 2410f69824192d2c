//! Calls and text, told apart while both come.

use std::sync::Arc;

use serde_json::Value;

use super::body::{self, Call};
use super::partial;
use super::{Tool, ToolFormat};
use crate::thinking::unfinished;

/// More of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallDelta {
    /// Which call of the reply, from 0.
    pub index: usize,
    /// The tool's name, in the first delta of a call.
    pub name: Option<String>,
    /// More of the arguments' JSON; may be empty.
    pub arguments: String,
}

/// What a push to a [`ToolStream`] sets free.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ToolPiece {
    /// More text; may be empty.
    pub text: String,
    /// More of calls, in their order.
    pub calls: Vec<CallDelta>,
}

/// Tells the calls of a reply from its text.
///
/// However the text is cut, the calls are the same, and so is the text. Of a call that is still
/// coming the arguments are told as far as they are there, where the format has them as JSON. A block
/// that is no call is text as it stands, and [`ToolStream::error`] says why, even where a part of it
/// was told as a call already.
#[derive(Debug, Clone)]
pub struct ToolStream {
    format: ToolFormat,
    tools: Arc<[Tool]>,
    /// Whether calls are at the beginning of the reply or nowhere.
    is_at_start: bool,
    phase: Phase,
    /// What cannot be told yet: a mark that may be beginning, or the block so far.
    held: String,
    /// Bytes of the block that were searched for its end.
    searched: usize,
    /// The first mark in the block that may end it.
    first_end: Option<usize>,
    /// Calls that are whole.
    calls: Vec<Call>,
    /// What number each of them was told by.
    numbers: Vec<usize>,
    /// Calls that were told, or begun to be.
    begun: usize,
    /// How much was told of the arguments of the call that is coming.
    told: Option<usize>,
    error: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing but white space came.
    Start,
    Text,
    Block,
    /// Behind a block nothing but white space came: it is nobody's where another block follows.
    Between,
}

impl ToolStream {
    /// The stream of a reply in which calls of these tools may come.
    pub fn new(format: ToolFormat, tools: Arc<[Tool]>) -> Self {
        Self {
            format,
            tools,
            is_at_start: false,
            phase: Phase::Start,
            held: String::new(),
            searched: 0,
            first_end: None,
            calls: Vec::new(),
            numbers: Vec::new(),
            begun: 0,
            told: None,
            error: None,
        }
    }

    /// The same, of a reply that calls something or says something else: marks behind the beginning
    /// are text.
    #[must_use]
    pub fn at_start(mut self) -> Self {
        self.is_at_start = true;
        self
    }

    /// The [`CallDelta::index`] of each of [`ToolStream::calls`]: calls that broke have numbers too.
    pub fn numbers(&self) -> &[usize] {
        &self.numbers
    }

    /// The calls that are whole: names, and arguments as objects.
    pub fn calls(&self) -> &[(String, Value)] {
        &self.calls
    }

    /// Why a block was no call, where one was none.
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Takes more of the reply.
    pub fn push(&mut self, text: &str) -> ToolPiece {
        let mut out = ToolPiece::default();
        self.held.push_str(text);
        while self.go_on(&mut out) {}
        out
    }

    /// Ends the stream: whatever was held back. The stream is of no use afterwards.
    pub fn finish(&mut self) -> ToolPiece {
        let mut out = ToolPiece::default();
        let held = std::mem::take(&mut self.held);
        match self.phase {
            Phase::Start | Phase::Text => out.text = held,
            Phase::Block => {
                self.end_block(&held, "", &mut out);
            }
            Phase::Between => {}
        }
        out
    }

    /// Tells what can be told; whether there may be more.
    fn go_on(&mut self, out: &mut ToolPiece) -> bool {
        let (open, close) = self.format.marks();
        match (self.phase, open) {
            (Phase::Start, Some(open)) if self.is_at_start => {
                let start = self.held.trim_start();
                if open.starts_with(start) && open != start {
                    return false;
                }
                self.phase = Phase::Text;
                if start.starts_with(open) {
                    let mark = self.held.len() - start.len() + open.len();
                    self.held.drain(..mark);
                    self.phase = Phase::Block;
                }
                true
            }
            (Phase::Text, Some(_)) if self.is_at_start => {
                out.text.push_str(&std::mem::take(&mut self.held));
                false
            }
            (Phase::Start | Phase::Text, Some(open)) => {
                let found = self.held.find(open);
                let text = found.unwrap_or_else(|| unfinished(&self.held, open));
                out.text.extend(self.held.drain(..text));
                self.phase = Phase::Text;
                if found.is_some() {
                    self.held.drain(..open.len());
                    self.phase = Phase::Block;
                }
                found.is_some()
            }
            (Phase::Start, None) => {
                let start = self.held.trim_start();
                if start.is_empty() {
                    return false;
                }
                let may_be_call = start.starts_with('{') || start.starts_with(PYTHON_TAG);
                if !may_be_call && PYTHON_TAG.starts_with(start) {
                    return false;
                }
                self.phase = if may_be_call {
                    Phase::Block
                } else {
                    Phase::Text
                };
                true
            }
            (Phase::Text, None) => {
                out.text.push_str(&std::mem::take(&mut self.held));
                false
            }
            (Phase::Between, _) => {
                let start = self.held.trim_start();
                let is_next = open.is_some_and(|open| start.starts_with(open));
                if !is_next && open.is_some_and(|open| open.starts_with(start)) {
                    return false;
                }
                self.phase = Phase::Text;
                if is_next {
                    let blank = self.held.len() - start.len();
                    self.held.drain(..blank);
                    self.phase = Phase::Start;
                }
                true
            }
            (Phase::Block, _) => {
                let end = close.and_then(|close| Some((self.end_of_block(close)?, close)));
                let Some((at, close)) = end else {
                    let is_none = self.tell_partial(out);
                    if is_none {
                        self.phase = Phase::Text;
                    }
                    return is_none;
                };
                let rest = self.held.split_off(at + close.len());
                let mut block = std::mem::replace(&mut self.held, rest);
                block.truncate(at);
                (self.searched, self.first_end) = (0, None);
                self.phase = match self.end_block(&block, close, out) {
                    true => Phase::Between,
                    false => Phase::Text,
                };
                true
            }
        }
    }

    /// Where the block ends: at the first mark that makes it whole. Where none does, at the first one,
    /// unless that stands in a text of the arguments, which may go on.
    fn end_of_block(&mut self, close: &str) -> Option<usize> {
        // A mark that was tried once need not be tried again.
        let from = self.searched;
        self.searched = unfinished(&self.held, close).max(from);
        let ends = self.held[from..].match_indices(close);
        let ends: Vec<usize> = ends.map(|(at, _)| from + at).collect();
        self.first_end = self.first_end.or(ends.first().copied());
        if let Some(last) = ends.last() {
            self.searched = self.searched.max(last + close.len());
        }
        let is_whole =
            |at: &usize| body::calls(self.format, &self.held[..*at], &self.tools).is_ok();
        if let Some(whole) = ends.into_iter().find(is_whole) {
            return Some(whole);
        }
        let first = self.first_end?;
        let is_too_long = self.held.len() > body::MOST_BYTES;
        (is_too_long || !self.format.is_in_text(&self.held[..first])).then_some(first)
    }

    /// Tells what a whole block is; whether that is calls.
    fn end_block(&mut self, block: &str, close: &str, out: &mut ToolPiece) -> bool {
        let told = self.told.take();
        match self.calls_of(block) {
            Ok((calls, rest)) => {
                for (nth, call) in calls.into_iter().enumerate() {
                    let early = told.filter(|_| nth == 0);
                    let delta = match early {
                        // It is told to its end as the model writes it.
                        Some(told) => CallDelta {
                            index: self.begun - 1,
                            name: None,
                            arguments: early_arguments(block)
                                .get(told..)
                                .unwrap_or_default()
                                .to_owned(),
                        },
                        None => CallDelta {
                            index: self.begun,
                            name: Some(call.0.clone()),
                            arguments: call.1.to_string(),
                        },
                    };
                    self.begun += usize::from(early.is_none());
                    self.numbers.push(delta.index);
                    if delta.name.is_some() || !delta.arguments.is_empty() {
                        out.calls.push(delta);
                    }
                    self.calls.push(call);
                }
                out.text.push_str(rest);
                true
            }
            Err(problem) => {
                // An object is no more than that where nothing marks calls.
                let is_marked = self.format.marks().0.is_some() || block.contains(PYTHON_TAG);
                if is_marked || told.is_some() {
                    self.error.get_or_insert(problem);
                }
                let open = self.format.marks().0.unwrap_or_default();
                out.text.extend([open, block, close]);
                false
            }
        }
    }

    /// The calls of a block, and what stands behind them.
    fn calls_of<'b>(&self, block: &'b str) -> Result<(Vec<Call>, &'b str), String> {
        let (calls, rest) = body::calls(self.format, block, &self.tools)?;
        if self.format.marks().0.is_none()
            && let Some((name, _)) = calls.iter().find(|(name, _)| !self.is_tool(name))
        {
            return Err(format!("there is no tool `{name}`"));
        }
        // What could be told early is what it says to whoever reads all of it.
        let early = partial::read(block);
        if let (Some(name), Some(arguments)) = (early.name, early.arguments) {
            let arguments = serde_json::from_str::<Value>(arguments).ok();
            let is_same = calls
                .first()
                .is_some_and(|first| first.0 == name && arguments.as_ref() == Some(&first.1));
            if !is_same {
                return Err("a call says one thing twice".to_owned());
            }
        }
        Ok((calls, rest))
    }

    fn is_tool(&self, name: &str) -> bool {
        self.tools.is_empty() || self.tools.iter().any(|tool| tool.name == name)
    }

    /// Tells what is known of a call that is not whole yet; whether it can be none any more.
    fn tell_partial(&mut self, out: &mut ToolPiece) -> bool {
        let has_json = match self.format {
            ToolFormat::Json | ToolFormat::Xml | ToolFormat::Llama => true,
            ToolFormat::Mistral | ToolFormat::Gemma => false,
        };
        if !has_json || self.held.len() > body::MOST_BYTES {
            return false;
        }
        let found = partial::read(&self.held);
        if self.format.marks().0.is_none() && self.told.is_none() {
            let is_other = found
                .name
                .as_deref()
                .is_some_and(|name| !self.is_tool(name));
            if is_other || found.has_others {
                return true;
            }
        }
        let (Some(name), Some(arguments)) = (found.name, found.arguments) else {
            return false;
        };
        let told = self.told.replace(arguments.len());
        let more = arguments.get(told.unwrap_or(0)..).unwrap_or_default();
        self.begun += usize::from(told.is_none());
        if told.is_none() || !more.is_empty() {
            out.calls.push(CallDelta {
                index: self.begun - 1,
                name: told.is_none().then_some(name),
                arguments: more.to_owned(),
            });
        }
        false
    }
}

/// What Llama 3 may write before a call.
const PYTHON_TAG: &str = "<|python_tag|>";

fn early_arguments(block: &str) -> &str {
    partial::read(block).arguments.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The text, the calls as they are told, and what is wrong, of a reply that comes in pieces of so
    /// many characters.
    fn read(format: ToolFormat, reply: &str, size: usize) -> (String, Vec<(String, Value)>, bool) {
        let mut stream = ToolStream::new(format, Vec::new().into());
        let mut text = String::new();
        let mut told: Vec<(String, String)> = Vec::new();
        let characters: Vec<char> = reply.chars().collect();
        let pieces = characters
            .chunks(size)
            .map(|it| it.iter().collect::<String>());
        let mut out: Vec<ToolPiece> = pieces.map(|piece| stream.push(&piece)).collect();
        out.push(stream.finish());
        for piece in out {
            text.push_str(&piece.text);
            for delta in piece.calls {
                if let Some(name) = delta.name {
                    assert_eq!(delta.index, told.len());
                    told.push((name, String::new()));
                }
                assert_eq!(delta.index + 1, told.len());
                told.last_mut()
                    .expect("a call")
                    .1
                    .push_str(&delta.arguments);
            }
        }
        let calls = told.into_iter().map(|(name, arguments)| {
            let arguments = serde_json::from_str(&arguments).expect("JSON");
            (name, arguments)
        });
        let calls: Vec<(String, Value)> = calls.collect();
        assert_eq!(calls, stream.calls());
        (text, calls, stream.error().is_some())
    }

    #[test]
    fn calls_and_text_are_told_apart_however_they_are_cut() {
        let one = || vec![("f".to_owned(), json!({"a": "x y", "b": [1, {"c": null}]}))];
        let written = r#"{"name": "f", "arguments": {"a": "x y", "b": [1, {"c": null}]}}"#;
        let cases = [
            (ToolFormat::Json, "just text <b>".to_owned(), "just text <b>", vec![]),
            (ToolFormat::Json, format!("<tool_call>\n{written}\n</tool_call>"), "", one()),
            (
                ToolFormat::Json,
                format!("I look. <tool_call>{written}</tool_call>\n<tool_call>{written}</tool_call> Done."),
                "I look.  Done.",
                [one(), one()].concat(),
            ),
            (
                ToolFormat::Json,
                "<tool_call>{\"name\": \"g\", \"arguments\": {\"t\": \"</tool_call>\"}}</tool_call>".into(),
                "",
                vec![("g".to_owned(), json!({"t": "</tool_call>"}))],
            ),
            (
                ToolFormat::Json,
                format!("<tool_call>[{written}, {{\"name\": \"g\"}}]</tool_call>"),
                "",
                [one(), vec![("g".to_owned(), json!({}))]].concat(),
            ),
            (
                ToolFormat::Xml,
                "<tool_call>\n<function=f>\n<parameter=a>\nx y\n</parameter>\n<parameter=b>\n[1, {\"c\": null}]\n</parameter>\n</function>\n</tool_call>".into(),
                "",
                one(),
            ),
            (ToolFormat::Llama, written.replace("arguments", "parameters"), "", one()),
            (ToolFormat::Llama, " The answer is {}.".into(), " The answer is {}.", vec![]),
            (ToolFormat::Llama, "<b>".into(), "<b>", vec![]),
            (
                ToolFormat::Llama,
                format!("<|python_tag|>{}\nI called it.", written.replace("arguments", "parameters")),
                "\nI called it.",
                one(),
            ),
            (
                ToolFormat::Xml,
                "<tool_call><function=f><parameter=a>x</tool_call>y</parameter></function></tool_call>".into(),
                "",
                vec![("f".to_owned(), json!({"a": "x</tool_call>y"}))],
            ),
            (ToolFormat::Mistral, format!("[TOOL_CALLS][{written}]"), "", one()),
            (
                ToolFormat::Gemma,
                "<start_function_call>call:f{a:<escape>x y<escape>,b:[1,{c:null}]}<end_function_call>".into(),
                "",
                one(),
            ),
        ];
        for (format, reply, text, calls) in cases {
            for size in [1, 2, 7, 1000] {
                let found = read(format, &reply, size);
                assert_eq!(
                    found,
                    (text.to_owned(), calls.clone(), false),
                    "{reply}, {size}"
                );
            }
        }
    }

    #[test]
    fn what_is_no_call_stays_text_and_is_told() {
        for (format, reply) in [
            (ToolFormat::Json, "a <tool_call>nothing</tool_call> b"),
            (ToolFormat::Json, "a <tool_call>{\"name\": \"f\""),
            (
                ToolFormat::Json,
                "<tool_call>{\"name\": \"f\", \"arguments\": \"</tool_call>",
            ),
            (ToolFormat::Xml, "<tool_call><function=f></tool_call>"),
            (ToolFormat::Mistral, "[TOOL_CALLS]what?"),
            (
                ToolFormat::Gemma,
                "<start_function_call>f()<end_function_call>",
            ),
        ] {
            for size in [1, 3, 1000] {
                let found = read(format, reply, size);
                assert_eq!(found, (reply.to_owned(), Vec::new(), true), "{size}");
            }
        }
    }

    #[test]
    fn arguments_are_told_while_they_come() {
        let mut stream = ToolStream::new(ToolFormat::Json, Vec::new().into());
        let piece = stream.push("<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"long");
        assert_eq!(piece.calls.len(), 1);
        assert_eq!(piece.calls[0].name.as_deref(), Some("f"));
        assert_eq!(piece.calls[0].arguments, "{\"a\": \"long");
        let piece = stream.push(" text");
        assert_eq!(
            (piece.calls[0].name.as_deref(), &*piece.calls[0].arguments),
            (None, " text")
        );
        let piece = stream.push("\"}}</tool_call>");
        assert_eq!(piece.calls[0].arguments, "\"}");
        assert_eq!(stream.calls().len(), 1);
    }

    #[test]
    fn a_call_that_breaks_keeps_what_was_told_and_its_number() {
        let broken = "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}</tool_call> then <tool_call>{\"name\": \"g\"}</tool_call>";
        let mut stream = ToolStream::new(ToolFormat::Json, Vec::new().into());
        let (mut text, mut named) = (String::new(), Vec::new());
        let pieces = broken
            .as_bytes()
            .chunks(5)
            .map(|it| str::from_utf8(it).unwrap());
        let mut out: Vec<ToolPiece> = pieces.map(|piece| stream.push(piece)).collect();
        out.push(stream.finish());
        for piece in out {
            text.push_str(&piece.text);
            named.extend(
                piece
                    .calls
                    .into_iter()
                    .filter_map(|it| Some((it.index, it.name?))),
            );
        }
        assert_eq!(named, [(0, "f".to_owned()), (1, "g".to_owned())]);
        let left = "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}</tool_call> then ";
        assert_eq!((text.as_str(), stream.calls().len()), (left, 1));
        assert_eq!(stream.numbers(), [1]);
        assert!(stream.error().is_some());

        let mut stream = ToolStream::new(ToolFormat::Json, Vec::new().into());
        let broken =
            "<tool_call>{\"name\": \"f\", \"arguments\": {\"t\": \"5\" tall\"}}</tool_call> long";
        let early = stream.push(broken).text;
        assert_eq!(early + &stream.finish().text, broken);
        assert!(stream.error().is_some() && stream.calls().is_empty());
    }

    #[test]
    fn an_object_that_is_no_call_is_an_answer_at_once() {
        let tools: Arc<[Tool]> = vec![Tool::new("f", Value::Null)].into();
        for (reply, is_early) in [
            ("{\"answer\": {\"a\": 42}}", true),
            ("{\"name\": \"Bob\", \"parameters\": {}}", true),
            ("{\"name\": \"f\"}", false),
        ] {
            let mut stream = ToolStream::new(ToolFormat::Llama, Arc::clone(&tools));
            let early = stream.push(reply).text;
            assert_eq!(early == reply, is_early, "{reply}");
            let is_call = !is_early;
            let rest = stream.finish().text;
            assert_eq!(early + &rest == reply, !is_call, "{reply}");
            assert_eq!(
                (stream.error(), stream.calls().len()),
                (None, usize::from(is_call))
            );
        }
    }

    #[test]
    fn marks_may_count_at_the_beginning_alone() {
        let call = "<tool_call>{\"name\": \"f\"}</tool_call>";
        for (reply, text, calls) in [
            (format!(" {call}\n{call}"), String::new(), 2),
            (
                format!("{{\"a\": \"{call}\"}}"),
                format!("{{\"a\": \"{call}\"}}"),
                0,
            ),
            (format!("{call} then {call}"), format!(" then {call}"), 1),
        ] {
            for size in [1, 1000] {
                let tools = Vec::new().into();
                let mut stream = ToolStream::new(ToolFormat::Json, tools).at_start();
                let mut said = String::new();
                for piece in reply.as_bytes().chunks(size) {
                    said += &stream.push(str::from_utf8(piece).unwrap()).text;
                }
                said += &stream.finish().text;
                assert_eq!((said, stream.calls().len()), (text.clone(), calls));
            }
        }
    }

    #[test]
    fn what_is_said_twice_is_no_call() {
        for (first, second) in [
            (
                "{\"name\": \"f\", \"arguments\": {\"a\": 1}",
                ", \"parameters\": {}}",
            ),
            (
                "{\"name\": \"f\", \"arguments\": {\"a\": 1}",
                ", \"arguments\": {}}",
            ),
            (
                "{\"name\": \"f\", \"arguments\": {\"a\": 1}",
                ", \"name\": \"g\"}",
            ),
        ] {
            let mut stream = ToolStream::new(ToolFormat::Json, Vec::new().into());
            assert_eq!(stream.push(&format!("<tool_call>{first}")).calls.len(), 1);
            stream.push(&format!("{second}</tool_call>"));
            assert!(
                stream.error().is_some() && stream.calls().is_empty(),
                "{second}"
            );
        }
    }

    #[test]
    fn a_block_without_an_end_costs_no_square() {
        let mut stream = ToolStream::new(ToolFormat::Json, Vec::new().into());
        stream.push("<tool_call>{\"name\": \"f\", \"arguments\": {\"t\": \"");
        for _ in 0..20_000 {
            stream.push("</tool_call>");
        }
        stream.finish();
        assert!(stream.error().is_some());
    }

    const FRAGMENTS: [&str; 24] = [
        "<tool_call>",
        "</tool_call>",
        "<tool_",
        "{\"name\": \"f\"",
        ", \"arguments\": {",
        ", \"parameters\": {",
        "\"a\": \"",
        "\"a\": 1",
        "\"",
        "}",
        "}}",
        "\n",
        " ",
        ";",
        "[TOOL_CALLS]",
        "f[ARGS]{",
        "[{\"name\": \"f\"}]",
        "<function=f>",
        "<parameter=a>",
        "</parameter>",
        "</function>",
        "<start_function_call>call:f{a:<escape>",
        "<escape>}<end_function_call>",
        "\u{e9}\\",
    ];

    proptest::proptest! {
        #[test]
        fn cuts_change_nothing(
            parts in proptest::collection::vec(0..FRAGMENTS.len(), 1..20),
            size in 1..9_usize,
        ) {
            let reply: String = parts.into_iter().map(|it| FRAGMENTS[it]).collect();
            let characters: Vec<char> = reply.chars().collect();
            for format in [
                ToolFormat::Json,
                ToolFormat::Xml,
                ToolFormat::Llama,
                ToolFormat::Mistral,
                ToolFormat::Gemma,
            ] {
                let read = |size: usize| {
                    let mut stream = ToolStream::new(format, Vec::new().into());
                    let mut text = String::new();
                    for piece in characters.chunks(size) {
                        text += &stream.push(&piece.iter().collect::<String>()).text;
                    }
                    text += &stream.finish().text;
                    (text, stream)
                };
                let ((whole, one), (cut, other)) = (read(usize::MAX), read(size));
                assert_eq!(one.calls(), other.calls(), "{format:?}");
                assert_eq!(one.error(), other.error(), "{format:?}");
                assert_eq!(whole, cut, "{format:?}");
            }
        }
    }
}
