//! What the log says of a prompt or a reply: hashes and counts, and texts where they are asked for.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::{Value, json};
use tercel::Sampling;

use super::{hash, redact};
use crate::config::LogPolicy;
use crate::work::{Ask, Input};

/// What the log says of a prompt.
pub(super) struct Prompt {
    /// Tells whether a guard changed it; never logged.
    pub(super) mark: u64,
    form: &'static str,
    template_id: String,
    messages: Option<usize>,
    chars: usize,
    text: Text,
    pub(super) has_personal_data: bool,
}

impl Prompt {
    pub(super) fn of(ask: &Ask, policy: &LogPolicy) -> Self {
        let text = ask.input.text();
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let (form, messages) = match &ask.input {
            Input::Chat(messages) => ("chat", Some(messages.len())),
            Input::Text(_) => ("text", None),
            Input::Tokens(_) => ("tokens", None),
        };
        let template_id = match (&ask.template, messages) {
            (Some(template), _) => hash::hash(template, policy.hash_key.as_deref()),
            (None, Some(_)) => "model".to_owned(),
            (None, None) => "none".to_owned(),
        };
        Self {
            mark: hasher.finish(),
            form,
            template_id,
            messages,
            chars: ask.input.chars(),
            has_personal_data: redact::has_personal_data(&text),
            text: Text::of(&text, policy),
        }
    }

    pub(super) fn json(&self, tokens: Option<usize>, cached: Option<usize>) -> Value {
        let mut value = json!({
            "template_id": self.template_id,
            "form": self.form,
            "messages": self.messages,
            "chars": self.chars,
            "prompt_hash": self.text.hash,
            "prompt_excerpt": self.text.excerpt,
            "prompt_preview": self.text.excerpt.as_deref().unwrap_or("[REDACTED_PROMPT]"),
            "input_tokens": tokens,
            "cached_tokens": cached,
        });
        self.text.put_whole("prompt_text", &mut value);
        value
    }
}

/// What may be said of a text.
pub(super) struct Text {
    pub(super) hash: Option<String>,
    pub(super) excerpt: Option<String>,
    whole: Option<String>,
}

impl Text {
    pub(super) fn of(text: &str, policy: &LogPolicy) -> Self {
        let key = policy.hash_key.as_deref();
        Self {
            hash: policy.hashes.then(|| hash::hash(text, key)),
            excerpt: policy.previews.then(|| redact::excerpt(text)),
            whole: policy.prompts_and_outputs.then(|| redact::whole(text)),
        }
    }

    /// The key is there only where the operator asked for whole texts.
    pub(super) fn put_whole(&self, key: &str, value: &mut Value) {
        if let Some(whole) = &self.whole {
            value[key] = json!(whole);
        }
    }
}

/// How a reply is to be made, as far as the request says so.
pub(super) fn asked(sampling: &Sampling, policy: &LogPolicy) -> Value {
    json!({
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "repetition_penalty": sampling.repetition_penalty,
        "max_new_tokens": sampling.max_new_tokens,
        "stop_sequences": sampling.stop.len(),
        "stop_sequences_hash": stops(&sampling.stop, policy),
        "seed": sampling.seed,
    })
}

/// One hash of all stop sequences, which users write.
pub(super) fn stops(stops: &[String], policy: &LogPolicy) -> Option<String> {
    let is_logged = policy.hashes && !stops.is_empty();
    is_logged.then(|| hash::hash(&stops.join("\n"), policy.hash_key.as_deref()))
}

/// How far what the log holds may be read.
pub(super) fn redaction_level(policy: &LogPolicy) -> &'static str {
    match policy {
        LogPolicy {
            prompts_and_outputs: true,
            ..
        } => "scrubbed_text",
        LogPolicy { previews: true, .. } => "scrubbed_excerpt",
        LogPolicy { hashes: true, .. } => "hash_only",
        _ => "counts_only",
    }
}
