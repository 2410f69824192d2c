//! `POST /v1/chat` (8.1 to 8.3, 13.5): one question or a conversation, answered at once or as lines
//! of JSON.

use std::time::Duration;

use axum::Json as JsonReply;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tercel::{ContextOverflow, Error, Message, Role, parse_role};
use utoipa::ToSchema;

use super::drops::{self, Drops};
use super::lines::{CONTENT_TYPE, Ending, Footer, Lines};
use super::{MAX_NEW_TOKENS, MAX_PROMPT_CHARS, NEW_TOKENS, Refusals, Stops, Usage};
use crate::app::Shared;
use crate::body::Json;
use crate::error::ApiError;
use crate::gate::Caller;
use crate::routes::backend::Backend;
use crate::stream;
use crate::work::{Ask, Input, TercelBlock, begin};

/// Pieces that may wait for a reader where some may be dropped.
const QUEUE_CAPACITY: usize = 32;
const MIN_QUEUE_CAPACITY: usize = 16;
const MAX_QUEUE_CAPACITY: usize = 64;
/// A day: whatever takes longer needs no deadline.
const MAX_DEADLINE_MS: u64 = 86_400_000;

/// A question. Either `prompt` or `messages` is given.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = tercel::ChatRequest)]
#[serde(deny_unknown_fields)]
pub(super) struct ChatRequest {
    /// The model by name, by default the server's first.
    model: Option<String>,
    /// What the user says.
    #[schema(min_length = 1, max_length = 4000)]
    prompt: Option<String>,
    /// A conversation.
    #[schema(min_items = 1)]
    messages: Option<Vec<Turn>>,
    /// Instructions, where `messages` has none.
    system: Option<String>,
    /// The most tokens to generate.
    #[schema(minimum = 1, maximum = 256, default = 128)]
    max_new_tokens: Option<i64>,
    /// 0 takes the most likely token.
    #[schema(minimum = 0, maximum = 2)]
    temperature: Option<f32>,
    /// Above 0; 1 is off.
    #[schema(exclusive_minimum = 0, maximum = 1)]
    top_p: Option<f32>,
    /// The same seed and question give the same reply.
    seed: Option<u64>,
    stop: Option<Stops>,
    /// What becomes of a prompt that is too long, by default an error.
    context_overflow: Option<Overflow>,
    /// How long it may take. Later, it ends with what there is and the reason `timeout`.
    #[schema(minimum = 1, maximum = 86_400_000)]
    deadline_ms: Option<u64>,
    /// Whether the reply comes as it is made, as lines of JSON.
    stream: Option<bool>,
    /// What happens to a stream whose reader is slow; by default the model waits for it.
    drop_policy: Option<DropPolicy>,
    /// Pieces of a stream that may wait; for policies that drop.
    #[schema(minimum = 16, maximum = 64, default = 32)]
    queue_capacity: Option<usize>,
}

/// A turn of a conversation.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = tercel::Turn)]
#[serde(deny_unknown_fields)]
pub(super) struct Turn {
    /// `system`, `user`, `assistant` or `tool`.
    #[schema(pattern = "^(system|user|assistant|tool)$")]
    role: String,
    content: String,
    /// Who speaks, or the tool whose result this is.
    name: Option<String>,
}

/// What happens to a stream whose reader is slow (8.2).
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, ToSchema)]
#[schema(as = tercel::DropPolicy)]
#[serde(rename_all = "snake_case")]
enum DropPolicy {
    /// The model waits; nothing is lost.
    #[default]
    Pause,
    /// The piece goes that has waited longest.
    DropOldest,
    /// The piece goes that comes.
    DropNewest,
    /// Pieces are joined.
    Coalesce,
}

/// What becomes of a prompt that is too long for the context; what is cut is in
/// `tercel.truncation`.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[schema(as = tercel::Overflow)]
#[serde(rename_all = "snake_case")]
enum Overflow {
    /// It is refused with the counts.
    Error,
    /// Whole turns go, the oldest first.
    DropOldestTurns,
    /// The most recent tokens stay.
    SlidingWindow,
    /// The longest messages lose their middle.
    TruncateMiddle,
}

/// A whole reply.
#[derive(Serialize, ToSchema)]
#[schema(as = tercel::ChatReply)]
struct ChatReply {
    #[serde(flatten)]
    ending: Ending,
    /// What the model thought before it answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking: Option<String>,
    usage: Usage,
    tercel: TercelBlock,
}

/// Answers a question.
///
/// With `stream`, the lines are `{"delta": "..."}`, or `{"thinking": "..."}` for thoughts that come
/// before the answer, at most one `{"type": "stream_warning", "reason": "dropped_chunks"}`, and last
/// the footer, or an error.
#[utoipa::path(
    post,
    path = "/v1/chat",
    tag = "tercel",
    operation_id = "tercel_chat",
    request_body = ChatRequest,
    responses(
        (status = 200, description = "The answer, or what there was of it at the deadline", content(
            (ChatReply = "application/json"),
            (Footer = "application/x-ndjson"),
        )),
        Refusals,
    )
)]
pub(super) async fn chat(
    State(app): State<Shared>,
    caller: Caller,
    Json(body): Json<ChatRequest>,
) -> Result<Response, ApiError> {
    let (ask, delivery) = body.check()?;
    let running = begin(&app, &caller, ask).await?;
    let backend = Backend::of(&running);
    let response = match delivery {
        Delivery::Paced => stream::respond(CONTENT_TYPE, vec![running], Lines),
        Delivery::Dropping(drops, capacity) => drops::respond(&app, running, drops, capacity),
        Delivery::Whole => {
            let finished = running.finish().await?;
            let reply = ChatReply {
                ending: Ending::of(&finished),
                usage: Usage::of(&finished),
                tercel: finished.block(),
                thinking: finished.reply.thinking,
            };
            JsonReply(reply).into_response()
        }
    };
    Ok(backend.on(response))
}

/// How the reply gets to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Delivery {
    /// In one piece.
    Whole,
    /// As it is made, no faster than it is read.
    Paced,
    /// As it is made, through a queue of so many pieces.
    Dropping(Drops, usize),
}

impl ChatRequest {
    fn check(self) -> Result<(Ask, Delivery), ApiError> {
        let delivery = self.delivery()?;
        let messages = conversation(self.system, self.prompt, self.messages)?;
        let mut ask = Ask::new(self.model, Input::Chat(messages));
        let tokens = self
            .max_new_tokens
            .map_or(Some(NEW_TOKENS), |it| usize::try_from(it).ok());
        let tokens = tokens.filter(|tokens| (1..=MAX_NEW_TOKENS).contains(tokens));
        if tokens.is_none() {
            return Err(ApiError::invalid(
                "max_new_tokens",
                "max_new_tokens out of range",
            ));
        }
        ask.sampling.max_new_tokens = tokens;
        ask.sampling.temperature = self.temperature;
        ask.sampling.top_p = self.top_p;
        ask.sampling.seed = self.seed;
        ask.sampling.stop = self.stop.map(Stops::into_list).unwrap_or_default();
        ask.sampling.context_overflow = self.context_overflow.map(ContextOverflow::from);
        ask.deadline = match self.deadline_ms {
            Some(ms) if !(1..=MAX_DEADLINE_MS).contains(&ms) => {
                let message = format!("`deadline_ms` is {ms}, must be 1 to {MAX_DEADLINE_MS}");
                return Err(ApiError::invalid("deadline_ms", message));
            }
            ms => ms.map(Duration::from_millis),
        };
        Ok((ask, delivery))
    }

    fn delivery(&self) -> Result<Delivery, ApiError> {
        let range = MIN_QUEUE_CAPACITY..=MAX_QUEUE_CAPACITY;
        let capacity = self.queue_capacity.unwrap_or(QUEUE_CAPACITY);
        if !range.contains(&capacity) {
            let (least, most) = range.into_inner();
            let message = format!("`queue_capacity` is {capacity}, must be {least} to {most}");
            return Err(ApiError::invalid("queue_capacity", message));
        }
        let drops = match self.drop_policy.unwrap_or_default() {
            DropPolicy::Pause => None,
            DropPolicy::DropOldest => Some(Drops::Oldest),
            DropPolicy::DropNewest => Some(Drops::Newest),
            DropPolicy::Coalesce => Some(Drops::Coalesce),
        };
        match (self.stream.unwrap_or_default(), drops) {
            (true, Some(drops)) => Ok(Delivery::Dropping(drops, capacity)),
            (false, Some(_)) => Err(ApiError::unsupported(
                "drop_policy",
                "pieces are dropped of a stream alone; set `stream`",
            )),
            (_, None) if self.queue_capacity.is_some() => Err(ApiError::unsupported(
                "queue_capacity",
                "there is such a queue only where `drop_policy` drops",
            )),
            (true, None) => Ok(Delivery::Paced),
            (false, None) => Ok(Delivery::Whole),
        }
    }
}

fn conversation(
    system: Option<String>,
    prompt: Option<String>,
    turns: Option<Vec<Turn>>,
) -> Result<Vec<Message>, ApiError> {
    let messages = match (prompt, turns) {
        (Some(prompt), None) => {
            if prompt.trim().is_empty() {
                return Err(ApiError::from(Error::EmptyPrompt).about("prompt"));
            }
            if prompt.chars().count() > MAX_PROMPT_CHARS {
                return Err(
                    ApiError::bad_request("input_too_large", "Prompt too long").about("prompt")
                );
            }
            vec![Message::user(prompt)]
        }
        (None, Some(turns)) => messages(turns)?,
        (Some(_), Some(_)) => {
            let message = "give `prompt` or `messages`, not both";
            return Err(ApiError::bad_request("invalid_request", message).about("messages"));
        }
        (None, None) => {
            let message = "`prompt` or `messages` is missing";
            return Err(ApiError::bad_request("invalid_request", message).about("prompt"));
        }
    };
    let Some(system) = system else {
        return Ok(messages);
    };
    if messages.iter().any(|message| message.role == Role::System) {
        let message = "give `system` or a message of this role, not both";
        return Err(ApiError::bad_request("invalid_request", message).about("system"));
    }
    Ok([vec![Message::system(system)], messages].concat())
}

/// The turns as messages.
///
/// # Errors
/// 400 `empty_messages`, and 400 `invalid_role` with the place.
pub(super) fn messages(turns: Vec<Turn>) -> Result<Vec<Message>, ApiError> {
    if turns.is_empty() {
        return Err(ApiError::from(Error::EmptyMessages).about("messages"));
    }
    let turns = turns.into_iter().enumerate();
    let messages = turns.map(|(index, turn)| {
        let role = parse_role(&turn.role)
            .map_err(|error| ApiError::from(error).about(format!("messages[{index}].role")))?;
        let message = Message::new(role, turn.content);
        Ok(match turn.name {
            Some(name) => message.with_name(name),
            None => message,
        })
    });
    messages.collect()
}

impl From<Overflow> for ContextOverflow {
    fn from(overflow: Overflow) -> Self {
        match overflow {
            Overflow::Error => Self::Error,
            Overflow::DropOldestTurns => Self::DropOldestTurns,
            Overflow::SlidingWindow => Self::SlidingWindow,
            Overflow::TruncateMiddle => Self::TruncateMiddle,
        }
    }
}

#[cfg(test)]
mod tests;
