//! The calls of one reply while it is written.

use std::sync::Arc;

use tercel_text::ToolCall;
use tercel_text::tools::{CallDelta, Tool, ToolFormat, ToolPiece, ToolStream};

use crate::TokenId;
use crate::reply::Event;
use crate::rng;

/// Tells calls from text, and gives them ids.
#[derive(Debug)]
pub(crate) struct Calls {
    format: ToolFormat,
    stream: ToolStream,
    several: bool,
    /// What the ids are made of.
    seed: u64,
}

impl Calls {
    /// `is_answer_bound` says whether a reply without calls keeps to a grammar, in which marks are
    /// text.
    pub(super) fn new(
        format: ToolFormat,
        tools: Arc<[Tool]>,
        several: bool,
        is_answer_bound: bool,
    ) -> Self {
        let stream = ToolStream::new(format, tools);
        Self {
            format,
            stream: match is_answer_bound {
                true => stream.at_start(),
                false => stream,
            },
            several,
            seed: 0,
        }
    }

    /// How calls are written.
    pub(crate) fn format(&self) -> ToolFormat {
        self.format
    }

    /// Begins a reply: its ids are the same for the same seed and prompt, and no others'.
    pub(crate) fn begin(&mut self, seed: u64, prompt: &[TokenId]) {
        self.seed = rng::fold(seed, prompt);
    }

    /// Takes more of the answer's text. Gives what of it is text, and all events.
    pub(crate) fn push(&mut self, text: &str, token_index: usize) -> (String, Vec<Event>) {
        let piece = self.stream.push(text);
        self.told(piece, token_index)
    }

    /// The same for what was held back until the end.
    pub(crate) fn finish(&mut self, token_index: usize) -> (String, Vec<Event>) {
        let piece = self.stream.finish();
        self.told(piece, token_index)
    }

    /// Whether the reply has all the calls it may have.
    pub(crate) fn are_enough(&self) -> bool {
        !self.several && !self.stream.calls().is_empty()
    }

    /// The calls that are whole.
    pub(crate) fn whole(&self) -> Vec<ToolCall> {
        let calls = self.stream.calls().iter().zip(self.stream.numbers());
        let most = if self.several { usize::MAX } else { 1 };
        calls
            .take(most)
            .map(|((name, arguments), number)| {
                ToolCall::new(name.clone(), arguments.clone()).with_id(self.id(*number))
            })
            .collect()
    }

    /// Why what looked like a call was none, or was left out, where that happened.
    pub(crate) fn error(&self) -> Option<String> {
        let error = self.stream.error().map(str::to_owned);
        let count = self.stream.calls().len();
        error.or_else(|| {
            let is_more = !self.several && count > 1;
            is_more.then(|| format!("one call was to come: {} more were left out", count - 1))
        })
    }

    fn told(&self, piece: ToolPiece, token_index: usize) -> (String, Vec<Event>) {
        let most = match self.stream.numbers().first() {
            Some(first) if !self.several => *first,
            _ => usize::MAX,
        };
        let event = |delta: CallDelta| Event::ToolCall {
            index: delta.index,
            id: delta.name.is_some().then(|| self.id(delta.index)),
            name: delta.name,
            arguments: delta.arguments,
            token_index,
        };
        // What a call that began earlier goes on with comes before a text behind it.
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for call in piece.calls.into_iter().filter(|call| call.index <= most) {
            let is_going_on = call.name.is_none() && after.is_empty();
            let events = if is_going_on { &mut before } else { &mut after };
            events.push(event(call));
        }
        let text = piece.text;
        if !text.is_empty() {
            before.push(Event::Delta {
                text: text.clone(),
                token_index,
            });
        }
        before.append(&mut after);
        (text, before)
    }

    /// Nine letters and digits, which is what the strictest templates take.
    fn id(&self, call: usize) -> String {
        const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        let digit = |place: u64| {
            let draw = rng::uniform(self.seed, call as u64 * 9 + place);
            char::from(DIGITS[(draw * DIGITS.len() as f64) as usize])
        };
        (0..9).map(digit).collect()
    }
}
