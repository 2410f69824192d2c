//! Completions, sent whole; their chunks have the same form.

use serde::Serialize;
use utoipa::ToSchema;

use super::request::Shape;
use crate::routes::openai::chat::Blocks;
use crate::routes::openai::head::Head;
use crate::routes::openai::logprobs::{TextLogprobs, entries};
use crate::routes::openai::usage::Usage;
use crate::work::Finished;

/// Texts that were continued.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(in crate::routes::openai) struct Completion {
    id: String,
    /// `text_completion`.
    object: &'static str,
    /// In Unix seconds.
    created: u64,
    model: String,
    choices: Vec<TextChoice>,
    usage: Usage,
    system_fingerprint: Option<String>,
    /// How each choice came about.
    tercel: Blocks,
}

/// One text.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct TextChoice {
    pub(super) index: usize,
    pub(super) text: String,
    pub(super) logprobs: Option<TextLogprobs>,
    /// `stop`, `length` or `content_filter`.
    pub(super) finish_reason: Option<&'static str>,
}

impl Completion {
    pub(super) fn new(head: Head, shape: &Shape, finished: &[Finished]) -> Self {
        let choices = finished.iter().enumerate();
        Self {
            id: head.id,
            object: "text_completion",
            created: head.created,
            model: head.model,
            choices: choices
                .map(|(index, one)| TextChoice::new(index, shape, one))
                .collect(),
            usage: Usage::of_replies(finished, shape.choices.max(1)),
            system_fingerprint: head.fingerprint,
            tercel: Blocks::of(finished),
        }
    }
}

impl TextChoice {
    fn new(index: usize, shape: &Shape, finished: &Finished) -> Self {
        let tokens = |top| TextLogprobs::new(entries(&finished.reply.logprobs), top > 0, &mut 0);
        Self {
            index,
            text: format!("{}{}", shape.echo(index), finished.text),
            logprobs: shape.logprobs.map(tokens),
            finish_reason: Some(finished.finish_reason()),
        }
    }
}
