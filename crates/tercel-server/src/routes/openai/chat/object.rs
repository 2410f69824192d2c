//! A chat's reply, sent whole.

use serde::Serialize;
use utoipa::ToSchema;

use crate::routes::openai::head::Head;
use crate::routes::openai::logprobs::{ChoiceLogprobs, entries};
use crate::routes::openai::tools::ReplyCall;
use crate::routes::openai::usage::Usage;
use crate::work::{Finished, TercelBlock};

/// A chat's reply.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(in crate::routes::openai) struct ChatCompletion {
    id: String,
    /// `chat.completion`.
    object: &'static str,
    /// In Unix seconds.
    created: u64,
    model: String,
    choices: Vec<Choice>,
    usage: Usage,
    system_fingerprint: Option<String>,
    service_tier: &'static str,
    /// How each choice came about.
    tercel: Blocks,
}

/// How a reply came about: one block, or one for each of several choices.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(in crate::routes::openai) enum Blocks {
    /// Of the only choice.
    One(Box<TercelBlock>),
    /// In the order of the choices.
    Several(Vec<TercelBlock>),
}

/// One reply.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct Choice {
    index: usize,
    message: Message,
    logprobs: Option<ChoiceLogprobs>,
    /// `stop`, `tool_calls`, `length` or `content_filter`.
    finish_reason: &'static str,
}

/// What the model said.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct Message {
    /// `assistant`.
    role: &'static str,
    /// Nothing where it calls tools and says nothing.
    content: Option<String>,
    /// What it calls.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<ReplyCall>,
    /// What it thought before.
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    /// Nothing: models here do not refuse apart from their text.
    refusal: Option<String>,
}

impl Blocks {
    pub(in crate::routes::openai) fn of(finished: &[Finished]) -> Self {
        match finished {
            [one] => Self::One(Box::new(one.block())),
            several => Self::Several(several.iter().map(Finished::block).collect()),
        }
    }
}

impl ChatCompletion {
    pub(super) fn new(head: Head, logprobs: bool, finished: &[Finished]) -> Self {
        let choices = finished.iter().enumerate();
        Self {
            id: head.id,
            object: "chat.completion",
            created: head.created,
            model: head.model,
            choices: choices
                .map(|(index, one)| Choice::new(index, logprobs, one))
                .collect(),
            usage: Usage::of_replies(finished, finished.len().max(1)),
            system_fingerprint: head.fingerprint,
            service_tier: "default",
            tercel: Blocks::of(finished),
        }
    }
}

impl Choice {
    fn new(index: usize, logprobs: bool, finished: &Finished) -> Self {
        let tool_calls: Vec<ReplyCall> = finished.reply.tool_calls.iter().map(Into::into).collect();
        let content = Some(finished.text.clone());
        let tokens = || ChoiceLogprobs::new(entries(&finished.reply.logprobs));
        Self {
            index,
            message: Message {
                role: "assistant",
                content: content.filter(|text| tool_calls.is_empty() || !text.is_empty()),
                tool_calls,
                reasoning_content: finished.reply.thinking.clone(),
                refusal: None,
            },
            logprobs: logprobs.then(tokens),
            finish_reason: finished.finish_reason(),
        }
    }
}
