//! What a request gives back: events while it runs, a reply at its end.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use tercel_nn::Miss;
use tercel_text::ToolCall;

use crate::TokenId;
use crate::context::ContextReport;
use crate::logprobs::TokenLogprob;
use crate::memory::Outcome;
use crate::sampling::Settings;

/// One event of a running request.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
#[expect(
    clippy::large_enum_variant,
    reason = "it is moved once per token; a box helps nobody"
)]
pub enum Event {
    /// More of the model's thought, which comes before its answer. Joined, these are
    /// [`Reply::thinking`].
    Thinking {
        /// Whole characters, never empty.
        text: String,
        /// The index, from 0, of the generated token that completed this text.
        token_index: usize,
    },
    /// More text. The deltas of a request, joined, are the text of its reply.
    Delta {
        /// Whole characters, never empty.
        text: String,
        /// The index, from 0, of the generated token that completed this text.
        token_index: usize,
    },
    /// More of a call of a tool: see [`Request::tools`](crate::Request::tools). The calls that are
    /// whole at the end are [`Reply::tool_calls`].
    ToolCall {
        /// Which call of the reply, from 0.
        index: usize,
        /// What ties a result to the call; in its first event.
        id: Option<String>,
        /// The tool; in the call's first event.
        name: Option<String>,
        /// More of the arguments' JSON; may be empty.
        arguments: String,
        /// The index, from 0, of the generated token that completed this.
        token_index: usize,
    },
    /// What a tool returned, where a chat runs them: see [`Chat::tools`](crate::Chat::tools).
    ToolResult {
        /// What ties it to the call.
        id: Option<String>,
        /// The tool.
        name: String,
        /// What the model is told.
        content: String,
    },
    /// How likely the model held the next tokens of the reply to be, where that was asked for: just
    /// before the event that completes them. Joined, these are [`Reply::logprobs`].
    Logprobs {
        /// One for each token, never empty.
        logprobs: Vec<TokenLogprob>,
        /// The index, from 0, of the generated token that the first is of.
        first_token_index: usize,
    },
    /// The end; nothing follows.
    Done(Reply),
}

/// A finished reply, with how it came about.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Reply {
    /// The generated text, without the thought and the stop sequence.
    pub text: String,
    /// What the model thought before it answered, where it did. Stop sequences are not looked for
    /// in it.
    pub thinking: Option<String>,
    /// The tools that the model calls, whole ones, in their order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// Why what looked like a call was none, where that happened; it is in the text as it stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_parse_error: Option<String>,
    /// The generated token ids, the end token included where there was one.
    pub tokens: Vec<TokenId>,
    /// How likely the model held each of them to be, where that was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub logprobs: Vec<TokenLogprob>,
    /// Why it ended.
    pub stop_reason: StopReason,
    /// The stop string that ended it, where one did.
    pub stop_sequence: Option<String>,
    /// Token counts.
    pub usage: Usage,
    /// What was cut of the prompt so that it fits the context, where something was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<ContextReport>,
    /// What was changed so that the request could be done, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Where the time went.
    pub timings: Timings,
    /// The sampling values it ran with, the seed among them.
    pub settings: Settings,
    /// What computed it, such as `cpu-avx2`.
    pub backend: String,
    /// Compute threads.
    pub threads: usize,
}

/// Why a reply ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StopReason {
    /// The model gave an end token.
    Eos,
    /// The model called tools, and waits for their results.
    ToolCall,
    /// A stop string appeared.
    StopSequence,
    /// `max_new_tokens` were generated.
    MaxNewTokens,
    /// Prompt and reply fill the context.
    ContextFull,
    /// The caller cancelled, or dropped the stream or the engine: the reply is incomplete.
    Cancelled,
    /// The request's deadline passed, or a token took too long: the reply is incomplete.
    Timeout,
    /// The memory that the engine may take was used up: the reply is incomplete.
    ResourceLimit,
}

impl StopReason {
    /// The name in events, JSON and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Eos => "eos",
            Self::ToolCall => "tool_call",
            Self::StopSequence => "stop_sequence",
            Self::MaxNewTokens => "max_new_tokens",
            Self::ContextFull => "context_full",
            Self::Cancelled => "cancelled",
            Self::Timeout => "timeout",
            Self::ResourceLimit => "resource_limit",
        }
    }
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Token counts of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// How many of them the engine still held from before, and did not compute again.
    pub cached_tokens: usize,
    /// Why there are none of those, or fewer than earlier prompts and replies share with it.
    pub cache_miss: Option<CacheMiss>,
    /// Tokens generated, the end token included.
    pub generated_tokens: usize,
    /// How many of them belong to the thought, its marks included, those too that were put in to
    /// end it.
    pub thinking_tokens: usize,
    /// Tokens that were guessed and put to the test.
    pub drafted_tokens: usize,
    /// How many of the guesses were right. Each saved a pass; none changed the reply.
    pub accepted_draft_tokens: usize,
    /// Bytes of the prompt that the model's vocabulary cannot express and that were left out, such
    /// as some control characters; usually 0.
    pub lost_bytes: usize,
}

/// Why a prompt could not go on from what the engine computed before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CacheMiss {
    /// The prefix cache is off.
    Disabled,
    /// Nothing that it holds begins like this prompt.
    NotCached,
    /// Something does, but was made with another template.
    TemplateChanged,
    /// Less is shared than the cache is to bother about.
    TooShort,
    /// Layers with a sliding window no longer hold what the next token would see.
    WindowEvicted,
    /// The state of recurrent layers at that point was not kept.
    StateEvicted,
}

impl CacheMiss {
    /// The name in events, JSON and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::NotCached => "not_cached",
            Self::TemplateChanged => "template_changed",
            Self::TooShort => "too_short",
            Self::WindowEvicted => "window_evicted",
            Self::StateEvicted => "state_evicted",
        }
    }
}

impl From<Miss> for CacheMiss {
    fn from(miss: Miss) -> Self {
        match miss {
            Miss::Disabled => Self::Disabled,
            Miss::OtherIdentity => Self::TemplateChanged,
            Miss::TooShort => Self::TooShort,
            Miss::WindowGone => Self::WindowEvicted,
            Miss::StateGone => Self::StateEvicted,
            _ => Self::NotCached,
        }
    }
}

/// Where the time of a request went, in seconds. What did not happen is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Timings {
    /// Rendering the chat template.
    pub format_seconds: f64,
    /// Turning the prompt into tokens, and cutting it where it is too long.
    pub tokenize_seconds: f64,
    /// From the prompt's tokens to the start of the work.
    pub queue_seconds: f64,
    /// The model's work on the prompt, up to the logits of the first token.
    pub prefill_seconds: f64,
    /// From the first generated token to the last, waits for a slow reader included.
    pub decode_seconds: f64,
    /// Drawing tokens from logits, a part of decode but for the first.
    pub sampling_seconds: f64,
    /// Turning tokens into text and looking for stop sequences, a part of decode.
    pub detokenize_seconds: f64,
    /// From acceptance to the first generated token.
    pub time_to_first_token: f64,
    /// From acceptance to the end.
    pub total_seconds: f64,
    prefill_tokens_per_second: f64,
    tokens_per_second: f64,
}

impl Timings {
    /// Computed prompt tokens per second of prefill; 0 where nothing was computed.
    pub fn prefill_tokens_per_second(&self) -> f64 {
        self.prefill_tokens_per_second
    }

    /// Tokens after the first per second after the first; 0 with fewer than two tokens.
    pub fn tokens_per_second(&self) -> f64 {
        self.tokens_per_second
    }

    /// Notes that the work began, or was given up, so long after acceptance.
    pub(crate) fn set_start(&mut self, after: Duration) {
        let prompt = self.format_seconds + self.tokenize_seconds;
        self.queue_seconds = (after.as_secs_f64() - prompt).max(0.0);
    }

    /// Seconds from acceptance to the start of the work.
    pub(crate) fn start(&self) -> f64 {
        self.format_seconds + self.tokenize_seconds + self.queue_seconds
    }

    /// Fills in the rates, once the seconds are final.
    pub(crate) fn set_rates(&mut self, usage: &Usage) {
        let rate = |tokens: usize, seconds: f64| {
            if seconds > 0.0 {
                tokens as f64 / seconds
            } else {
                0.0
            }
        };
        // Without a first token, the seconds of prefill cover an unknown part of the prompt.
        if usage.generated_tokens > 0 {
            let computed = usage.prompt_tokens.saturating_sub(usage.cached_tokens);
            self.prefill_tokens_per_second = rate(computed, self.prefill_seconds);
        }
        self.tokens_per_second = rate(
            usage.generated_tokens.saturating_sub(1),
            self.decode_seconds,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_count_computed_prompt_tokens_and_tokens_after_the_first() {
        let mut timings = Timings {
            prefill_seconds: 2.0,
            decode_seconds: 0.5,
            ..Timings::default()
        };
        timings.set_rates(&Usage {
            prompt_tokens: 30,
            cached_tokens: 10,
            generated_tokens: 11,
            ..Usage::default()
        });
        assert_eq!(timings.prefill_tokens_per_second(), 10.0);
        assert_eq!(timings.tokens_per_second(), 20.0);

        let mut timings = Timings {
            prefill_seconds: 2.0,
            ..Timings::default()
        };
        timings.set_rates(&Usage {
            prompt_tokens: 30,
            cached_tokens: 0,
            generated_tokens: 1,
            ..Usage::default()
        });
        assert_eq!(timings.tokens_per_second(), 0.0);
    }

    #[test]
    fn events_are_tagged_and_names_agree_with_the_vocabulary() {
        let delta = Event::Delta {
            text: "a".into(),
            token_index: 3,
        };
        let json = serde_json::to_value(delta).expect("serializes");
        assert_eq!(
            json,
            serde_json::json!({"type": "delta", "text": "a", "token_index": 3})
        );
        for reason in [
            StopReason::Eos,
            StopReason::ToolCall,
            StopReason::StopSequence,
            StopReason::MaxNewTokens,
            StopReason::ContextFull,
            StopReason::Cancelled,
            StopReason::Timeout,
            StopReason::ResourceLimit,
        ] {
            assert_eq!(
                serde_json::to_value(reason).expect("serializes"),
                reason.name()
            );
            assert_eq!(reason.to_string(), reason.name());
        }
    }
}
