//! How a reply is made: what a caller may set, the defaults, and the ranges.

use serde::{Deserialize, Serialize};

use crate::TokenId;
use crate::context::ContextOverflow;
use crate::error::Error;
use crate::rng;
use crate::thinking::Thinking;

/// What a caller has set. Everything left out comes from the model's own defaults, then Tercel's.
///
/// Values are checked when a request is made, not here: see [`Settings`] for meanings, and the
/// setters of [`Request`](crate::Request) for ranges.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Sampling {
    /// The most tokens to generate, at least 1.
    pub max_new_tokens: Option<usize>,
    /// 0 to 2; 0 takes the most likely token.
    pub temperature: Option<f32>,
    /// 0 is off.
    pub top_k: Option<usize>,
    /// Above 0, up to 1; 1 is off.
    pub top_p: Option<f32>,
    /// 0 to below 1; 0 is off.
    pub min_p: Option<f32>,
    /// Above 0, up to 2; 1 is off.
    pub repetition_penalty: Option<f32>,
    /// At least 1.
    pub repetition_window: Option<usize>,
    /// -2 to 2; 0 is off.
    pub presence_penalty: Option<f32>,
    /// -2 to 2; 0 is off.
    pub frequency_penalty: Option<f32>,
    /// At most 1024 tokens of the vocabulary with -100 to 100 each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub logit_bias: Vec<(TokenId, f32)>,
    /// Any; left out, a random one is drawn and reported.
    pub seed: Option<u64>,
    /// At most 16 strings of 1 to 256 bytes.
    pub stop: Vec<String>,
    /// Whether to go on after an end token.
    pub ignore_eos: Option<bool>,
    /// Whether the model is to think; for conversations alone.
    pub thinking: Option<Thinking>,
    /// At least 1; for conversations alone.
    pub max_thinking_tokens: Option<usize>,
    /// Any; for conversations alone.
    pub min_answer_tokens: Option<usize>,
    /// What becomes of a prompt that is too long.
    pub context_overflow: Option<ContextOverflow>,
    /// At least 1, below the context.
    pub reserve_tokens: Option<usize>,
    /// Any.
    pub keep_first_tokens: Option<usize>,
}

impl Sampling {
    /// Fills what `self` leaves out from `fallback`. A non-empty `stop` or `logit_bias` replaces
    /// the other's.
    #[must_use]
    pub fn or(self, fallback: &Self) -> Self {
        Self {
            max_new_tokens: self.max_new_tokens.or(fallback.max_new_tokens),
            temperature: self.temperature.or(fallback.temperature),
            top_k: self.top_k.or(fallback.top_k),
            top_p: self.top_p.or(fallback.top_p),
            min_p: self.min_p.or(fallback.min_p),
            repetition_penalty: self.repetition_penalty.or(fallback.repetition_penalty),
            repetition_window: self.repetition_window.or(fallback.repetition_window),
            presence_penalty: self.presence_penalty.or(fallback.presence_penalty),
            frequency_penalty: self.frequency_penalty.or(fallback.frequency_penalty),
            logit_bias: if self.logit_bias.is_empty() {
                fallback.logit_bias.clone()
            } else {
                self.logit_bias
            },
            seed: self.seed.or(fallback.seed),
            stop: if self.stop.is_empty() {
                fallback.stop.clone()
            } else {
                self.stop
            },
            ignore_eos: self.ignore_eos.or(fallback.ignore_eos),
            thinking: self.thinking.or(fallback.thinking),
            max_thinking_tokens: self.max_thinking_tokens.or(fallback.max_thinking_tokens),
            min_answer_tokens: self.min_answer_tokens.or(fallback.min_answer_tokens),
            context_overflow: self.context_overflow.or(fallback.context_overflow),
            reserve_tokens: self.reserve_tokens.or(fallback.reserve_tokens),
            keep_first_tokens: self.keep_first_tokens.or(fallback.keep_first_tokens),
        }
    }

    /// Checks every value that is set.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] for the first value out of range.
    pub fn validate(&self) -> Result<(), Error> {
        at_least_one("max_new_tokens", self.max_new_tokens)?;
        at_least_one("max_thinking_tokens", self.max_thinking_tokens)?;
        at_least_one("reserve_tokens", self.reserve_tokens)?;
        in_range("temperature", self.temperature, "0 to 2", |t| {
            (0.0..=2.0).contains(&t)
        })?;
        in_range("top_p", self.top_p, "above 0, up to 1", |p| {
            p > 0.0 && p <= 1.0
        })?;
        in_range("min_p", self.min_p, "0 to below 1", |p| {
            (0.0..1.0).contains(&p)
        })?;
        let penalty = |p: f32| p > 0.0 && p <= 2.0;
        in_range(
            "repetition_penalty",
            self.repetition_penalty,
            "above 0, up to 2",
            penalty,
        )?;
        at_least_one("repetition_window", self.repetition_window)?;
        let around_zero = |p: f32| (-2.0..=2.0).contains(&p);
        in_range(
            "presence_penalty",
            self.presence_penalty,
            "-2 to 2",
            around_zero,
        )?;
        in_range(
            "frequency_penalty",
            self.frequency_penalty,
            "-2 to 2",
            around_zero,
        )?;
        let range = "at most 1024 tokens with -100 to 100 each";
        if self.logit_bias.len() > MAX_BIASES {
            let count = format!("a list of {}", self.logit_bias.len());
            return Err(Error::invalid_parameter("logit_bias", count, range));
        }
        for (token, bias) in &self.logit_bias {
            // A NaN is in no range.
            if !(-100.0..=100.0).contains(bias) {
                let found = format!("{bias} for token {token}");
                return Err(Error::invalid_parameter("logit_bias", found, range));
            }
        }
        if self.stop.len() > MAX_STOPS {
            let count = format!("a list of {}", self.stop.len());
            return Err(Error::invalid_parameter(
                "stop",
                count,
                "at most 16 strings",
            ));
        }
        for stop in &self.stop {
            if stop.is_empty() || stop.len() > MAX_STOP_BYTES {
                let found = format!("a string of {} bytes", stop.len());
                return Err(Error::invalid_parameter(
                    "stop",
                    found,
                    "strings of 1 to 256 bytes",
                ));
            }
        }
        Ok(())
    }

    /// The values a request runs with: what is set here, else `model`'s, else Tercel's.
    pub(crate) fn resolve(self, model: &Self) -> Result<Settings, Error> {
        let set = self.or(model);
        set.validate()?;
        let tercel = Settings::default();
        Ok(Settings {
            max_new_tokens: set.max_new_tokens.unwrap_or(tercel.max_new_tokens),
            temperature: set.temperature.unwrap_or(tercel.temperature),
            top_k: set.top_k.unwrap_or(tercel.top_k),
            top_p: set.top_p.unwrap_or(tercel.top_p),
            min_p: set.min_p.unwrap_or(tercel.min_p),
            repetition_penalty: set.repetition_penalty.unwrap_or(tercel.repetition_penalty),
            repetition_window: set.repetition_window.unwrap_or(tercel.repetition_window),
            presence_penalty: set.presence_penalty.unwrap_or(tercel.presence_penalty),
            frequency_penalty: set.frequency_penalty.unwrap_or(tercel.frequency_penalty),
            logit_bias: set.logit_bias,
            seed: set.seed.unwrap_or_else(rng::fresh_seed),
            stop: set.stop,
            ignore_eos: set.ignore_eos.unwrap_or(tercel.ignore_eos),
            thinking: set.thinking.unwrap_or(tercel.thinking),
            max_thinking_tokens: set.max_thinking_tokens,
            min_answer_tokens: set.min_answer_tokens.unwrap_or(tercel.min_answer_tokens),
            context_overflow: set.context_overflow.unwrap_or(tercel.context_overflow),
            reserve_tokens: set.reserve_tokens,
            keep_first_tokens: set.keep_first_tokens.unwrap_or(tercel.keep_first_tokens),
        })
    }
}

/// The values a request ran with, every default filled in. Reported in each
/// [`Reply`](crate::Reply), so that a reply can be replayed exactly.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Settings {
    /// The most tokens to generate.
    pub max_new_tokens: usize,
    /// Divides the logits before the draw; 0 takes the most likely token.
    pub temperature: f32,
    /// Keeps the `top_k` most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps the fewest most likely tokens that together reach this probability; 1 keeps all.
    pub top_p: f32,
    /// Keeps tokens at least this fraction as likely as the most likely one; 0 keeps all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of recent tokens; 1 is off.
    pub repetition_penalty: f32,
    /// How many of the latest tokens, prompt included, the three penalties look at.
    pub repetition_window: usize,
    /// Subtracted from the logit of each recent token.
    pub presence_penalty: f32,
    /// Subtracted from the logit of each recent token once per occurrence.
    pub frequency_penalty: f32,
    /// Added to the logits of some tokens, before all else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logit_bias: Vec<(TokenId, f32)>,
    /// The seed of the draws.
    pub seed: u64,
    /// Texts that end the reply; none of them is part of it.
    pub stop: Vec<String>,
    /// Whether an end token lets the reply go on (it still gives no text).
    pub ignore_eos: bool,
    /// Whether the model was asked to think.
    pub thinking: Thinking,
    /// The most tokens of a thought, before the ones that end it; `None` is no limit.
    pub max_thinking_tokens: Option<usize>,
    /// Tokens of `max_new_tokens` that a thought leaves to the answer; 0 is off.
    pub min_answer_tokens: usize,
    /// What becomes of a prompt that is too long.
    pub context_overflow: ContextOverflow,
    /// Tokens that the prompt leaves to the reply; `None` is as [`ContextOverflow`] has it.
    pub reserve_tokens: Option<usize>,
    /// First tokens that stay where [`ContextOverflow::SlidingWindow`] cuts.
    pub keep_first_tokens: usize,
}

impl Settings {
    /// Checks what depends on the number of tokens that there are.
    pub(crate) fn check_tokens(&self, vocab_size: usize) -> Result<(), Error> {
        let mut tokens = self.logit_bias.iter().map(|(token, _)| token);
        match tokens.find(|token| **token as usize >= vocab_size) {
            Some(token) => Err(Error::invalid_parameter(
                "logit_bias",
                format!("a list with {token}"),
                format!("ids below {vocab_size}"),
            )),
            None => Ok(()),
        }
    }

    /// Takes back what concerns thoughts, for a reply in which none is looked for.
    pub(crate) fn forget_thinking(&mut self) {
        let defaults = Self::default();
        self.thinking = defaults.thinking;
        self.max_thinking_tokens = defaults.max_thinking_tokens;
        self.min_answer_tokens = defaults.min_answer_tokens;
    }
}

impl Default for Settings {
    /// Tercel's own defaults, with seed 0.
    fn default() -> Self {
        Self {
            max_new_tokens: 512,
            temperature: 0.7,
            top_k: 20,
            top_p: 0.9,
            min_p: 0.0,
            repetition_penalty: 1.0,
            repetition_window: 64,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: 0,
            stop: Vec::new(),
            ignore_eos: false,
            thinking: Thinking::Auto,
            max_thinking_tokens: None,
            min_answer_tokens: 0,
            context_overflow: ContextOverflow::Error,
            reserve_tokens: None,
            keep_first_tokens: 4,
        }
    }
}

/// The setters that `Request` and `Chat` share, over a field named `sampling`.
macro_rules! sampling_setters {
    () => {
        /// Replaces everything that was set so far.
        #[must_use]
        pub fn sampling(mut self, sampling: $crate::Sampling) -> Self {
            self.sampling = sampling;
            self
        }

        /// The most tokens to generate: at least 1, by default 512.
        #[must_use]
        pub fn max_new_tokens(mut self, tokens: usize) -> Self {
            self.sampling.max_new_tokens = Some(tokens);
            self
        }

        /// How freely tokens are drawn: 0 (always the most likely) to 2, by default 0.7.
        #[must_use]
        pub fn temperature(mut self, temperature: f32) -> Self {
            self.sampling.temperature = Some(temperature);
            self
        }

        /// Draw among this many most likely tokens: 0 is off, by default 20.
        #[must_use]
        pub fn top_k(mut self, tokens: usize) -> Self {
            self.sampling.top_k = Some(tokens);
            self
        }

        /// Draw among the most likely tokens that together reach this probability: above 0, up to
        /// 1 (off), by default 0.9.
        #[must_use]
        pub fn top_p(mut self, probability: f32) -> Self {
            self.sampling.top_p = Some(probability);
            self
        }

        /// Draw among tokens at least this fraction as likely as the most likely one: 0 (off) to
        /// below 1, by default 0.
        #[must_use]
        pub fn min_p(mut self, fraction: f32) -> Self {
            self.sampling.min_p = Some(fraction);
            self
        }

        /// Makes recent tokens less likely (above 1) or more (below): above 0, up to 2, by
        /// default 1 (off).
        #[must_use]
        pub fn repetition_penalty(mut self, penalty: f32) -> Self {
            self.sampling.repetition_penalty = Some(penalty);
            self
        }

        /// How many of the latest tokens, prompt included, the three penalties look at: at least
        /// 1, by default 64.
        #[must_use]
        pub fn repetition_window(mut self, tokens: usize) -> Self {
            self.sampling.repetition_window = Some(tokens);
            self
        }

        /// Lowers the logit of every recent token: -2 to 2, by default 0 (off).
        #[must_use]
        pub fn presence_penalty(mut self, penalty: f32) -> Self {
            self.sampling.presence_penalty = Some(penalty);
            self
        }

        /// Lowers the logit of every recent token once per occurrence: -2 to 2, by default 0
        /// (off).
        #[must_use]
        pub fn frequency_penalty(mut self, penalty: f32) -> Self {
            self.sampling.frequency_penalty = Some(penalty);
            self
        }

        /// Added to the logits of these tokens before all else: -100 to 100 each, where -100 all
        /// but bans a token and 100 all but forces it; at most 1024 tokens.
        #[must_use]
        pub fn logit_bias(mut self, bias: Vec<($crate::TokenId, f32)>) -> Self {
            self.sampling.logit_bias = bias;
            self
        }

        /// The seed of the draws: the same seed and request give the same tokens. Without one, a
        /// random seed is drawn and reported in the reply.
        #[must_use]
        pub fn seed(mut self, seed: u64) -> Self {
            self.sampling.seed = Some(seed);
            self
        }

        /// Ends the reply before this text, which is not part of the reply. May be given up to 16
        /// times, 1 to 256 bytes each.
        #[must_use]
        pub fn stop(mut self, text: impl Into<String>) -> Self {
            self.sampling.stop.push(text.into());
            self
        }

        /// Goes on after an end token, up to `max_new_tokens` or the context: for measurements.
        #[must_use]
        pub fn ignore_eos(mut self, ignore: bool) -> Self {
            self.sampling.ignore_eos = Some(ignore);
            self
        }

        /// Whether the model is to think before it answers, by default as its template has it.
        /// For conversations alone: a prompt that is continued as it stands has no say in it.
        #[must_use]
        pub fn thinking(mut self, thinking: $crate::Thinking) -> Self {
            self.sampling.thinking = Some(thinking);
            self
        }

        /// Ends a thought once it has this many tokens, at least 1, and lets the answer follow. By
        /// default there is no limit but `max_new_tokens`, which thought and answer share.
        #[must_use]
        pub fn max_thinking_tokens(mut self, tokens: usize) -> Self {
            self.sampling.max_thinking_tokens = Some(tokens);
            self
        }

        /// Ends a thought early enough to leave this many of `max_new_tokens` to the answer, by
        /// default 0 (off).
        #[must_use]
        pub fn min_answer_tokens(mut self, tokens: usize) -> Self {
            self.sampling.min_answer_tokens = Some(tokens);
            self
        }

        /// What becomes of a prompt that is too long for the context, by default an error.
        #[must_use]
        pub fn context_overflow(mut self, policy: $crate::ContextOverflow) -> Self {
            self.sampling.context_overflow = Some(policy);
            self
        }

        /// Tokens of the context that the prompt leaves to the reply: at least 1, below the
        /// context; by default as [`ContextOverflow`](crate::ContextOverflow) has it.
        #[must_use]
        pub fn reserve_tokens(mut self, tokens: usize) -> Self {
            self.sampling.reserve_tokens = Some(tokens);
            self
        }

        /// First tokens that stay where a sliding window cuts, by default 4.
        #[must_use]
        pub fn keep_first_tokens(mut self, tokens: usize) -> Self {
            self.sampling.keep_first_tokens = Some(tokens);
            self
        }
    };
}
pub(crate) use sampling_setters;

const MAX_BIASES: usize = 1024;
const MAX_STOPS: usize = 16;
const MAX_STOP_BYTES: usize = 256;

fn in_range(
    field: &'static str,
    value: Option<f32>,
    range: &'static str,
    holds: impl Fn(f32) -> bool,
) -> Result<(), Error> {
    match value {
        // A NaN is in no range.
        Some(value) if !holds(value) => {
            Err(Error::invalid_parameter(field, value.to_string(), range))
        }
        _ => Ok(()),
    }
}

fn at_least_one(field: &'static str, value: Option<usize>) -> Result<(), Error> {
    match value {
        Some(0) => Err(Error::invalid_parameter(
            field,
            "0".to_owned(),
            "at least 1",
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The message of the error that `change` leads to.
    fn refused(change: impl FnOnce(&mut Sampling)) -> String {
        let mut sampling = Sampling::default();
        change(&mut sampling);
        let error = sampling
            .resolve(&Sampling::default())
            .expect_err("out of range");
        assert_eq!(error.kind(), "invalid_parameter");
        error.to_string()
    }

    #[test]
    fn values_out_of_range_are_refused_with_the_field_and_the_range() {
        for t in [-0.1, 2.1, f32::NAN, f32::INFINITY] {
            let message = refused(|s| s.temperature = Some(t));
            assert_eq!(message, format!("`temperature` is {t}, must be 0 to 2"));
        }
        for p in [0.0, 1.001, -1.0, f32::NAN] {
            assert!(refused(|s| s.top_p = Some(p)).contains("`top_p`"));
        }
        for p in [1.0, -0.001, f32::NAN] {
            assert!(refused(|s| s.min_p = Some(p)).contains("`min_p`"));
        }
        for p in [0.0, 2.1, -1.0, f32::NAN] {
            assert!(refused(|s| s.repetition_penalty = Some(p)).contains("`repetition_penalty`"));
        }
        for p in [-2.1, 2.1, f32::NAN, f32::NEG_INFINITY] {
            assert!(refused(|s| s.presence_penalty = Some(p)).contains("`presence_penalty`"));
            assert!(refused(|s| s.frequency_penalty = Some(p)).contains("`frequency_penalty`"));
        }
        assert!(refused(|s| s.max_new_tokens = Some(0)).contains("`max_new_tokens` is 0"));
        assert!(
            refused(|s| s.max_thinking_tokens = Some(0)).contains("`max_thinking_tokens` is 0")
        );
        assert!(refused(|s| s.repetition_window = Some(0)).contains("`repetition_window`"));
        for bias in [-100.1, 100.1, f32::NAN, f32::INFINITY] {
            let message = refused(|s| s.logit_bias = vec![(1, 5.0), (7, bias)]);
            assert!(message.starts_with(&format!("`logit_bias` is {bias} for token 7, must be")));
        }
        assert!(refused(|s| s.logit_bias = vec![(1, 0.0); 1025]).contains("list of 1025"));
        assert!(refused(|s| s.stop = vec!["x".into(); 17]).contains("list of 17"));
        assert!(refused(|s| s.stop = vec![String::new()]).contains("0 bytes"));
        assert!(refused(|s| s.stop = vec!["x".repeat(257)]).contains("257 bytes"));
    }

    #[test]
    fn the_ends_of_the_ranges_are_accepted() {
        for (low, high) in [(0.0, 2.0), (f32::MIN_POSITIVE, 1.0)] {
            for value in [low, high] {
                let sampling = Sampling {
                    temperature: Some(value),
                    top_p: Some(value.clamp(f32::MIN_POSITIVE, 1.0)),
                    min_p: Some(value.min(0.999)),
                    repetition_penalty: Some(value.max(f32::MIN_POSITIVE)),
                    presence_penalty: Some(-value),
                    frequency_penalty: Some(value),
                    top_k: Some(0),
                    stop: vec!["x".repeat(256); 16],
                    logit_bias: [(3, 50.0 * value), (4, -50.0 * value)].repeat(512),
                    ..Sampling::default()
                };
                sampling.validate().expect("in range");
            }
        }
    }

    #[test]
    fn the_request_wins_over_the_model_and_the_model_over_tercel() {
        let request = Sampling {
            top_k: Some(1),
            stop: vec!["a".into()],
            ..Sampling::default()
        };
        let model = Sampling {
            top_k: Some(2),
            top_p: Some(0.5),
            stop: vec!["b".into()],
            logit_bias: vec![(1, 2.0)],
            ..Sampling::default()
        };
        let other = Sampling {
            logit_bias: vec![(3, 4.0)],
            ..Sampling::default()
        };
        assert_eq!(other.or(&model).logit_bias, [(3, 4.0)]);
        let settings = request.resolve(&model).expect("valid");
        assert_eq!(
            (settings.top_k, settings.top_p, settings.temperature),
            (1, 0.5, 0.7)
        );
        assert_eq!(settings.stop, ["a"]);
        assert_eq!(settings.logit_bias, [(1, 2.0)]);
    }

    #[test]
    fn a_seed_is_kept_and_a_missing_one_is_drawn() {
        let resolve = |seed| {
            let sampling = Sampling {
                seed,
                ..Sampling::default()
            };
            sampling.resolve(&Sampling::default()).expect("valid").seed
        };
        assert_eq!(resolve(Some(42)), 42);
        assert_ne!(resolve(None), resolve(None));
    }
}
