//! The events of a response's stream.

use serde::Serialize;

use super::object::{OutputItem, OutputPart, ResponseObject};
use crate::routes::openai::logprobs::TokenEntry;
use crate::stream::Sse;

/// Writes events, each with its name and its number.
#[derive(Debug, Default)]
pub(super) struct Events {
    written: u64,
}

#[derive(Serialize)]
struct Event<'a, T: Serialize> {
    #[serde(rename = "type")]
    name: &'a str,
    sequence_number: u64,
    #[serde(flatten)]
    fields: T,
}

impl Events {
    /// An event with these fields.
    pub(super) fn write(&mut self, name: &str, fields: impl Serialize, out: &mut Vec<u8>) {
        let sequence_number = self.written;
        self.written += 1;
        Sse::event(
            name,
            &Event {
                name,
                sequence_number,
                fields,
            },
            out,
        );
    }
}

/// How the whole response stands.
#[derive(Serialize)]
pub(super) struct Standing<'a> {
    pub(super) response: &'a ResponseObject,
}

/// An item that begins or has ended.
#[derive(Serialize)]
pub(super) struct OfItem<'a> {
    pub(super) output_index: usize,
    pub(super) item: &'a OutputItem,
}

/// Where in the output a text belongs. Each item has one part.
#[derive(Clone, Copy, Serialize)]
pub(super) struct Place<'a> {
    pub(super) item_id: &'a str,
    pub(super) output_index: usize,
    pub(super) content_index: usize,
}

/// A part that begins or has ended.
#[derive(Serialize)]
pub(super) struct OfPart<'a> {
    #[serde(flatten)]
    pub(super) place: Place<'a>,
    pub(super) part: OutputPart,
}

/// More of a call's arguments, or all of them.
#[derive(Serialize)]
pub(super) struct OfCall<'a> {
    pub(super) item_id: &'a str,
    pub(super) output_index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) delta: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) arguments: Option<&'a str>,
}

/// More text, or all of it.
#[derive(Serialize)]
pub(super) struct OfText<'a> {
    #[serde(flatten)]
    pub(super) place: Place<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) delta: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) text: Option<&'a str>,
    /// Of a message, perhaps of no token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) logprobs: Option<&'a [TokenEntry]>,
}
