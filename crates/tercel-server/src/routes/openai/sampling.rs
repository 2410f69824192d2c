//! The fields that all requests for replies share, and what becomes of them.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};
use tercel::{ContextOverflow, Thinking, TokenId};
use utoipa::ToSchema;

pub(super) use super::texts::TextOr;
use super::texts::short;
use crate::error::ApiError;

/// A request for replies: its own fields, and those that all share. Serde's `flatten` would do
/// without a macro, but not name the fields that are wrong or unknown.
macro_rules! generation_request {
    ($(#[$about:meta])* struct $name:ident { $($own:tt)* }) => {
        $(#[$about])*
        #[derive(Clone, Debug, serde::Deserialize, utoipa::ToSchema)]
        #[serde(deny_unknown_fields)]
        pub(in crate::routes::openai) struct $name {
            $($own)*
            /// The model; the server's first where none is named.
            model: Option<String>,
            /// Whether the reply is sent while it is made.
            stream: Option<bool>,
            /// 0 takes the most likely token.
            #[schema(minimum = 0, maximum = 2)]
            temperature: Option<f32>,
            /// Draws among the most likely tokens that together reach this probability.
            #[schema(exclusive_minimum = 0, maximum = 1)]
            top_p: Option<f32>,
            /// Draws among so many most likely tokens; 0 is off.
            top_k: Option<usize>,
            /// Draws among tokens at least this fraction as likely as the most likely one.
            #[schema(minimum = 0, exclusive_maximum = 1)]
            min_p: Option<f32>,
            /// Makes recent tokens less likely (above 1) or more (below).
            #[schema(exclusive_minimum = 0, maximum = 2)]
            repetition_penalty: Option<f32>,
            /// How many of the latest tokens the penalties look at.
            #[schema(minimum = 1)]
            repetition_window: Option<usize>,
            /// Lowers the logit of every recent token.
            #[schema(minimum = -2, maximum = 2)]
            presence_penalty: Option<f32>,
            /// Lowers the logit of every recent token once per occurrence.
            #[schema(minimum = -2, maximum = 2)]
            frequency_penalty: Option<f32>,
            /// Added to the logits of tokens, by their ids: -100 to 100 each.
            logit_bias: Option<std::collections::BTreeMap<String, f32>>,
            /// The same seed and request give the same reply.
            #[schema(value_type = Option<i64>)]
            seed: Option<crate::routes::openai::sampling::Seed>,
            /// A text, or up to 16, before which the reply ends.
            #[schema(inline)]
            stop: Option<crate::routes::openai::texts::TextOr<String>>,
            /// Whether to go on after an end token, for measurements.
            ignore_eos: Option<bool>,
            /// What becomes of a prompt that is too long: `error`, `drop_oldest_turns`,
            /// `sliding_window` or `truncate_middle`.
            context_overflow: Option<String>,
            /// Tokens that the prompt leaves to the reply.
            #[schema(minimum = 1)]
            reserve_tokens: Option<usize>,
            /// First tokens that stay where a prompt is cut.
            keep_first_tokens: Option<usize>,
            /// Where requests wait, higher ones go first.
            priority: Option<i32>,
            /// How long the reply may take; later, it ends with what there is.
            #[schema(minimum = 1)]
            deadline_ms: Option<u64>,
            /// Must not be true: nothing is kept here.
            store: Option<bool>,
            /// `auto` or `default`.
            service_tier: Option<String>,
            /// Without effect.
            #[expect(dead_code, reason = "it is accepted and has no effect")]
            user: Option<String>,
            /// Without effect.
            #[expect(dead_code, reason = "it is accepted and has no effect")]
            metadata: Option<serde_json::Map<String, serde_json::Value>>,
            /// Without effect.
            #[expect(dead_code, reason = "it is accepted and has no effect")]
            safety_identifier: Option<String>,
            /// Without effect: whoever shares a prefix shares what is computed of it.
            #[expect(dead_code, reason = "it is accepted and has no effect")]
            prompt_cache_key: Option<String>,
            /// Without effect.
            #[expect(dead_code, reason = "it is accepted and has no effect")]
            prompt_cache_retention: Option<String>,
            /// Without effect.
            #[expect(dead_code, reason = "it is accepted and has no effect")]
            prompt_cache_options: Option<serde_json::Value>,
        }

        impl $name {
            /// What is asked, as far as the shared fields say it.
            fn ask(&self, input: crate::work::Input) -> Result<crate::work::Ask, crate::error::ApiError> {
                use crate::routes::openai::sampling as shared;
                shared::refuse("store", self.store == Some(true), "nothing is kept here")?;
                shared::check_tier(self.service_tier.as_deref())?;
                let mut ask = crate::work::Ask::new(self.model.clone(), input);
                ask.priority = self.priority.unwrap_or_default();
                ask.deadline = shared::deadline(self.deadline_ms)?;
                let sampling = &mut ask.sampling;
                sampling.temperature = self.temperature;
                sampling.top_p = self.top_p;
                sampling.top_k = self.top_k;
                sampling.min_p = self.min_p;
                sampling.repetition_penalty = self.repetition_penalty;
                sampling.repetition_window = self.repetition_window;
                sampling.presence_penalty = self.presence_penalty;
                sampling.frequency_penalty = self.frequency_penalty;
                sampling.logit_bias = shared::biases(self.logit_bias.as_ref())?;
                sampling.seed = self.seed.map(|seed| seed.0);
                let stop = self.stop.clone();
                sampling.stop = stop.map(shared::TextOr::into_list).unwrap_or_default();
                sampling.ignore_eos = self.ignore_eos;
                sampling.context_overflow = shared::overflow(self.context_overflow.as_deref())?;
                sampling.reserve_tokens = self.reserve_tokens;
                sampling.keep_first_tokens = self.keep_first_tokens;
                Ok(ask)
            }
        }
    };
}
pub(super) use generation_request;

/// A seed. Below 0 it is read as its 64 bits, so that every number is a seed of its own.
#[derive(Clone, Copy, Debug, PartialEq, ToSchema)]
#[schema(value_type = i64)]
pub(super) struct Seed(pub(super) u64);

impl<'de> Deserialize<'de> for Seed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bits;
        impl Visitor<'_> for Bits {
            type Value = Seed;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number of 64 bits")
            }

            fn visit_u64<E: Error>(self, seed: u64) -> Result<Seed, E> {
                Ok(Seed(seed))
            }

            fn visit_i64<E: Error>(self, seed: i64) -> Result<Seed, E> {
                Ok(Seed(seed.cast_unsigned()))
            }
        }
        deserializer.deserialize_any(Bits)
    }
}

/// Refuses a field that is set to what is not to be had.
pub(super) fn refuse(field: &str, is_set: bool, why: &str) -> Result<(), ApiError> {
    if is_set {
        let message = format!("`{field}` is not supported: {why}");
        return Err(ApiError::unsupported(field, message));
    }
    Ok(())
}

/// What a reply may be like of which nothing special is asked.
pub(super) fn check_tier(tier: Option<&str>) -> Result<(), ApiError> {
    let is_usual = matches!(tier, None | Some("auto" | "default"));
    refuse("service_tier", !is_usual, "there is one tier, `default`")
}

/// How long a request may take.
pub(super) fn deadline(ms: Option<u64>) -> Result<Option<Duration>, ApiError> {
    if ms == Some(0) {
        return Err(ApiError::invalid(
            "deadline_ms",
            "`deadline_ms` is 0, must be at least 1",
        ));
    }
    Ok(ms.map(Duration::from_millis))
}

/// The policy of this name.
pub(super) fn overflow(name: Option<&str>) -> Result<Option<ContextOverflow>, ApiError> {
    let policy = name.map(|name| short(name).parse::<ContextOverflow>());
    Ok(policy.transpose()?)
}

/// The biases by token.
pub(super) fn biases(
    biases: Option<&BTreeMap<String, f32>>,
) -> Result<Vec<(TokenId, f32)>, ApiError> {
    let mut all = BTreeMap::new();
    for (key, bias) in biases.into_iter().flatten() {
        let id = key
            .parse::<TokenId>()
            .ok()
            .filter(|id| id.to_string() == *key);
        let Some(id) = id else {
            let message = format!(
                "`logit_bias` has the key `{}`, must be a token id",
                short(key)
            );
            return Err(ApiError::invalid("logit_bias", message));
        };
        all.insert(id, *bias);
    }
    Ok(all.into_iter().collect())
}

/// Whether the model is to think, of the effort that it is to make.
pub(super) fn thinking(effort: &str, field: &str) -> Result<Thinking, ApiError> {
    match effort {
        "none" | "minimal" => Ok(Thinking::Off),
        "low" | "medium" | "high" | "xhigh" | "max" => Ok(Thinking::On),
        other => {
            let message = format!(
                "`{field}` is `{}`, must be none, minimal, low, medium, high, xhigh or max",
                short(other)
            );
            Err(ApiError::invalid(field, message))
        }
    }
}

/// The number of choices, within the server's bound.
pub(super) fn choices(n: Option<usize>, most: usize) -> Result<usize, ApiError> {
    let n = n.unwrap_or(1);
    if n == 0 || n > most {
        let message = format!("`n` is {n}, must be 1 to {most}");
        return Err(ApiError::invalid("n", message));
    }
    Ok(n)
}

/// An error about the length of the reply, in the word that the client used for it.
pub(super) fn in_word(mut error: ApiError, word: &'static str) -> ApiError {
    if error.param.as_deref() == Some("max_new_tokens") {
        error.param = Some(word.to_owned());
        error.message = error.message.replace("max_new_tokens", word);
    }
    error
}

/// What a stream has beside the reply.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StreamOptions {
    /// Whether a last chunk tells the token counts.
    pub(super) include_usage: Option<bool>,
    /// Must not be true: nothing is put in to hide the lengths of tokens.
    pub(super) include_obfuscation: Option<bool>,
}

impl StreamOptions {
    /// Whether the counts are told.
    pub(super) fn usage(options: Option<Self>, stream: bool) -> Result<bool, ApiError> {
        let Some(options) = options else {
            return Ok(false);
        };
        if !stream {
            let message = "`stream_options` is for replies with `stream`";
            return Err(ApiError::invalid("stream_options", message));
        }
        let hides = options.include_obfuscation == Some(true);
        let why = "the lengths of tokens are not hidden";
        refuse("stream_options.include_obfuscation", hides, why)?;
        Ok(options.include_usage == Some(true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::parse;

    #[test]
    fn every_whole_number_is_a_seed_of_its_own() {
        for (body, want) in [
            ("0", Ok(0)),
            ("42", Ok(42)),
            ("-1", Ok(u64::MAX)),
            ("-9223372036854775808", Ok(1 << 63)),
            ("18446744073709551615", Ok(u64::MAX)),
            ("1.5", Err(())),
            ("18446744073709551616", Err(())),
            ("\"1\"", Err(())),
        ] {
            let seed = parse::<Seed>(body.as_bytes(), 4).map(|seed| seed.0);
            assert_eq!(seed.map_err(drop), want, "{body}");
        }
    }

    #[test]
    fn biases_are_by_token_id() {
        let read = |body: &str| {
            let map: BTreeMap<String, f32> = serde_json::from_str(body).unwrap();
            biases(Some(&map))
        };
        assert_eq!(
            read(r#"{"10": -1, "9": 100}"#),
            Ok(vec![(9, 100.0), (10, -1.0)])
        );
        assert_eq!(biases(None), Ok(vec![]));
        for body in [
            r#"{"a": 1}"#,
            r#"{"-1": 1}"#,
            r#"{"01": 1}"#,
            r#"{"+1": 1}"#,
            r#"{"": 1}"#,
        ] {
            assert_eq!(
                read(body).unwrap_err().param.as_deref(),
                Some("logit_bias"),
                "{body}"
            );
        }
    }

    #[test]
    fn lengths_are_told_in_the_clients_word() {
        let error = ApiError::invalid("max_new_tokens", "`max_new_tokens` is 0");
        let error = in_word(error, "max_tokens");
        assert_eq!(
            (error.param.as_deref(), &*error.message),
            (Some("max_tokens"), "`max_tokens` is 0")
        );
        let other = ApiError::invalid("n", "max_new_tokens");
        assert_eq!(in_word(other.clone(), "max_tokens"), other);
    }

    #[test]
    fn options_of_a_stream_need_one() {
        let usage = StreamOptions {
            include_usage: Some(true),
            include_obfuscation: Some(false),
        };
        let hidden = StreamOptions {
            include_obfuscation: Some(true),
            ..usage
        };
        assert_eq!(StreamOptions::usage(None, true), Ok(false));
        assert_eq!(StreamOptions::usage(Some(usage), true), Ok(true));
        assert!(StreamOptions::usage(Some(usage), false).is_err());
        assert!(StreamOptions::usage(Some(hidden), true).is_err());
    }
}
