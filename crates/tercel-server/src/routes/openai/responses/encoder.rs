//! A response, put together and sent in events.

use super::event::{Events, OfCall, OfItem, OfPart, OfText, Place, Standing};
use super::object::{Ending, OutputItem, OutputPart, ResponseObject};
use crate::error::ApiError;
use crate::routes::openai::head::id;
use crate::routes::openai::logprobs::{TokenEntry, entries};
use crate::stream::Encoder;
use crate::work::{Begun, CallPiece, Finished, Piece};

/// Writes events in the order that clients expect: an item is added, then its part, then the text
/// comes, and all three are told whole at their end.
pub(super) struct ResponseEncoder {
    response: ResponseObject,
    /// Whether tokens are told of.
    logprobs: bool,
    events: Events,
    open: Option<Open>,
    /// Tokens whose text is still to come.
    waiting: Vec<TokenEntry>,
}

/// The item that is being made.
struct Open {
    kind: Kind,
    id: String,
    /// Its place in the output.
    index: usize,
    /// What is said or thought, or the arguments of a call.
    text: String,
    /// Of a call.
    called: Option<Begun>,
    logprobs: Vec<TokenEntry>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Thought,
    Message,
    /// One of the reply's calls.
    Call(usize),
}

impl Open {
    fn new(kind: Kind, called: Option<Begun>, index: usize) -> Self {
        let prefix = match kind {
            Kind::Thought => "rs_",
            Kind::Message => "msg_",
            Kind::Call(_) => "fc_",
        };
        Self {
            kind,
            id: id(prefix),
            index,
            text: String::new(),
            called,
            logprobs: Vec::new(),
        }
    }

    fn place(&self) -> Place<'_> {
        Place {
            item_id: &self.id,
            output_index: self.index,
            content_index: 0,
        }
    }

    /// What it consists of; a call is no text.
    fn part(&self) -> Option<OutputPart> {
        let text = self.text.clone();
        match self.kind {
            Kind::Thought => Some(OutputPart::ReasoningText { text }),
            Kind::Message => Some(OutputPart::OutputText {
                text,
                annotations: Vec::new(),
                logprobs: self.logprobs.clone(),
            }),
            Kind::Call(_) => None,
        }
    }

    fn item(&self, content: Vec<OutputPart>, status: &'static str) -> OutputItem {
        let id = self.id.clone();
        match self.kind {
            Kind::Call(_) => {
                let Begun { id: call_id, name } = self.called.clone().unwrap_or_default();
                OutputItem::FunctionCall {
                    id,
                    call_id,
                    name,
                    arguments: self.text.clone(),
                    status,
                }
            }
            Kind::Thought => OutputItem::Reasoning {
                id,
                summary: Vec::new(),
                content,
                status,
            },
            Kind::Message => OutputItem::Message {
                id,
                role: "assistant",
                content,
                status,
            },
        }
    }
}

impl ResponseEncoder {
    pub(super) fn new(response: ResponseObject, logprobs: bool) -> Self {
        let events = Events::default();
        Self {
            response,
            logprobs,
            events,
            open: None,
            waiting: Vec::new(),
        }
    }

    /// The response as far as it is made.
    pub(super) fn response(&self) -> &ResponseObject {
        &self.response
    }

    /// Writes an event about the whole response.
    fn standing(&mut self, name: &str, out: &mut Vec<u8>) {
        self.events.write(
            name,
            Standing {
                response: &self.response,
            },
            out,
        );
    }

    /// Begins an item.
    fn open(&mut self, kind: Kind, called: Option<Begun>, out: &mut Vec<u8>) -> Open {
        let open = Open::new(kind, called, self.response.output.len());
        let item = &open.item(Vec::new(), "in_progress");
        let added = OfItem {
            output_index: open.index,
            item,
        };
        self.events.write("response.output_item.added", added, out);
        if let Some(part) = open.part() {
            let place = open.place();
            let added = OfPart { place, part };
            self.events.write("response.content_part.added", added, out);
        }
        open
    }

    /// Ends an item.
    fn close(&mut self, open: &Open, status: &'static str, out: &mut Vec<u8>) {
        match open.part() {
            Some(part) => self.close_part(open, part, out),
            None => {
                let done = OfCall {
                    item_id: &open.id,
                    output_index: open.index,
                    delta: None,
                    name: open.called.as_ref().map(|it| &*it.name),
                    arguments: Some(&open.text),
                };
                let name = "response.function_call_arguments.done";
                self.events.write(name, done, out);
            }
        }
        let item = open.item(open.part().into_iter().collect(), status);
        let done = OfItem {
            output_index: open.index,
            item: &item,
        };
        self.events.write("response.output_item.done", done, out);
        self.response.output.push(item);
    }

    fn close_part(&mut self, open: &Open, part: OutputPart, out: &mut Vec<u8>) {
        let (place, text) = (open.place(), Some(&*open.text));
        let (name, logprobs) = match open.kind {
            Kind::Thought => ("response.reasoning_text.done", None),
            _ => ("response.output_text.done", Some(&*open.logprobs)),
        };
        self.events.write(
            name,
            OfText {
                place,
                delta: None,
                text,
                logprobs,
            },
            out,
        );
        let done = OfPart { place, part };
        self.events.write("response.content_part.done", done, out);
    }

    /// The open item of this kind; ends one of another kind. A call has a beginning.
    fn open_of(&mut self, kind: Kind, called: Option<Begun>, out: &mut Vec<u8>) -> Open {
        match self.open.take() {
            Some(open) if open.kind == kind => open,
            other => {
                if let Some(other) = other {
                    self.close(&other, "completed", out);
                }
                self.open(kind, called, out)
            }
        }
    }

    /// More text of one kind.
    fn text(&mut self, kind: Kind, text: &str, out: &mut Vec<u8>) {
        let mut open = self.open_of(kind, None, out);
        let tokens = std::mem::take(&mut self.waiting);
        let (name, logprobs) = match kind {
            Kind::Thought => ("response.reasoning_text.delta", None),
            _ => ("response.output_text.delta", Some(&*tokens)),
        };
        let delta = OfText {
            place: open.place(),
            delta: Some(text),
            text: None,
            logprobs,
        };
        self.events.write(name, delta, out);
        open.text.push_str(text);
        if kind == Kind::Message {
            open.logprobs.extend(tokens);
        }
        self.open = Some(open);
    }

    /// More of a call.
    fn call(&mut self, call: CallPiece, out: &mut Vec<u8>) {
        let mut open = self.open_of(Kind::Call(call.index), call.begun, out);
        let delta = OfCall {
            item_id: &open.id,
            output_index: open.index,
            delta: Some(&call.arguments),
            name: None,
            arguments: None,
        };
        let name = "response.function_call_arguments.delta";
        self.events.write(name, delta, out);
        open.text.push_str(&call.arguments);
        self.open = Some(open);
    }

    /// The end of the reply.
    fn finish(&mut self, ending: Ending, out: &mut Vec<u8>) {
        let kind = match &self.open {
            Some(open) if open.kind == Kind::Thought && ending.incomplete.is_some() => {
                Kind::Thought
            }
            Some(open) if matches!(open.kind, Kind::Call(_)) => open.kind,
            // There is a message even where nothing was said, unless the thought was cut off or
            // something was called.
            _ => Kind::Message,
        };
        let mut open = self.open_of(kind, None, out);
        if kind == Kind::Message {
            open.logprobs.append(&mut self.waiting);
        }
        let (status, name) = match ending.incomplete {
            Some(_) => ("incomplete", "response.incomplete"),
            None => ("completed", "response.completed"),
        };
        // A call is whole or not, however the reply ended.
        let called = open.called.as_ref().map(|it| ending.calls.contains(&it.id));
        let item_status = match called {
            Some(true) => "completed",
            Some(false) => "incomplete",
            None => status,
        };
        self.close(&open, item_status, out);
        for item in &mut self.response.output {
            if let OutputItem::FunctionCall {
                call_id, status, ..
            } = item
                && !ending.calls.contains(call_id)
            {
                *status = "incomplete";
            }
        }
        self.response.finish(ending, status);
        self.standing(name, out);
    }
}

impl Encoder for ResponseEncoder {
    fn start(&mut self, out: &mut Vec<u8>) {
        self.standing("response.created", out);
        self.standing("response.in_progress", out);
    }

    fn piece(&mut self, _index: usize, piece: Piece, out: &mut Vec<u8>) {
        match piece {
            Piece::Thinking(text) => self.text(Kind::Thought, &text, out),
            Piece::Text(text) => self.text(Kind::Message, &text, out),
            Piece::Call(call) => self.call(call, out),
            Piece::Logprobs(tokens) if self.logprobs => self.waiting.extend(entries(&tokens)),
            Piece::Logprobs(_) | Piece::Done(_) => {}
        }
    }

    fn done(&mut self, _index: usize, finished: &Finished, out: &mut Vec<u8>) {
        self.finish(Ending::of(finished), out);
    }

    fn end(&mut self, _finished: &[Finished], _out: &mut Vec<u8>) {}

    fn fail(&mut self, error: &ApiError, out: &mut Vec<u8>) {
        self.response.fail(error);
        self.standing("response.failed", out);
    }
}

#[cfg(test)]
mod tests;
