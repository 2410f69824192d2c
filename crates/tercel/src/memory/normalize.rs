//! Parameters out of range, brought into it, with every change told.
//!
//! By default a request with such parameters is refused ([`Sampling::validate`]); this is for
//! callers who opted into leniency.

use serde::Serialize;

use crate::error::Error;
use crate::sampling::Sampling;

/// A value that was changed, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Adjustment {
    /// The parameter, or `prompt_tokens` for a prompt that must be cut, or `context_tokens` and
    /// `batch` for what a fallback lowered.
    pub field: &'static str,
    /// What was asked for.
    pub from: String,
    /// What it became.
    pub to: String,
    /// Why, in words.
    pub reason: &'static str,
}

impl Adjustment {
    pub(super) fn new(
        field: &'static str,
        from: &impl ToString,
        to: &impl ToString,
        reason: &'static str,
    ) -> Self {
        Self {
            field,
            from: from.to_string(),
            to: to.to_string(),
            reason,
        }
    }
}

/// The tokens that a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens that prompt and reply may have together: at least 2.
    pub max_context: usize,
}

/// A request within all ranges.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Normalized {
    /// Parameters that [`Sampling::validate`] accepts, as far as they are numbers.
    pub sampling: Sampling,
    /// What the prompt must be cut to; the caller decides what goes, system text and last turns
    /// stay.
    pub prompt_tokens: usize,
    /// Every change, in the order they were made.
    pub adjustments: Vec<Adjustment>,
}

/// Brings every number that is set into its range, and the request into the context: a reply that
/// has no room becomes shorter, down to one token, and then the prompt has to be cut.
///
/// Values move to the nearest one that is allowed: a `temperature` below 0 becomes 0, which takes
/// the most likely token; a `top_p` above 1 becomes 1, which is off. A `repetition_penalty` of 0 or
/// less becomes 1, off: near 0 it would force repetition. Texts (`stop`) are left as they are.
///
/// # Errors
/// [`Error::InvalidParameter`] for a NaN or an infinity, which no number is near to, and for a
/// context of fewer than 2 tokens.
pub fn normalize(sampling: &Sampling, counts: Counts) -> Result<Normalized, Error> {
    if counts.max_context < 2 {
        let given = counts.max_context.to_string();
        return Err(Error::invalid_parameter("max_context", given, "at least 2"));
    }
    let mut sampling = sampling.clone();
    let mut adjustments = Vec::new();
    for (field, value, bring) in [
        (
            "temperature",
            &mut sampling.temperature,
            (|t: f32| t.clamp(0.0, 2.0)) as fn(f32) -> f32,
        ),
        ("top_p", &mut sampling.top_p, |p| p.clamp(LEAST_SHARE, 1.0)),
        ("min_p", &mut sampling.min_p, |p| {
            p.clamp(0.0, LARGEST_MIN_P)
        }),
        (
            "repetition_penalty",
            &mut sampling.repetition_penalty,
            |p| if p > 0.0 { p.min(2.0) } else { 1.0 },
        ),
        ("presence_penalty", &mut sampling.presence_penalty, |p| {
            p.clamp(-2.0, 2.0)
        }),
        ("frequency_penalty", &mut sampling.frequency_penalty, |p| {
            p.clamp(-2.0, 2.0)
        }),
    ] {
        let Some(given) = *value else { continue };
        if !given.is_finite() {
            let range = "a finite number";
            return Err(Error::invalid_parameter(field, given.to_string(), range));
        }
        let brought = bring(given);
        if brought != given {
            *value = Some(brought);
            adjustments.push(Adjustment::new(field, &given, &brought, OUT_OF_RANGE));
        }
    }
    for (field, value) in [
        ("max_new_tokens", &mut sampling.max_new_tokens),
        ("repetition_window", &mut sampling.repetition_window),
        ("max_thinking_tokens", &mut sampling.max_thinking_tokens),
    ] {
        if *value == Some(0) {
            *value = Some(1);
            adjustments.push(Adjustment::new(field, &0, &1, OUT_OF_RANGE));
        }
    }
    let Counts {
        prompt_tokens,
        max_context,
    } = counts;
    let room = max_context.saturating_sub(prompt_tokens).max(1);
    if let Some(asked) = sampling.max_new_tokens.filter(|asked| *asked > room) {
        sampling.max_new_tokens = Some(room);
        adjustments.push(Adjustment::new("max_new_tokens", &asked, &room, NO_ROOM));
    }
    let kept = prompt_tokens.min(max_context - 1);
    if kept < prompt_tokens {
        let cut = Adjustment::new("prompt_tokens", &prompt_tokens, &kept, NO_ROOM);
        adjustments.push(cut);
    }
    Ok(Normalized {
        sampling,
        prompt_tokens: kept,
        adjustments,
    })
}

const OUT_OF_RANGE: &str = "out of range";
const NO_ROOM: &str = "no room in the context";
/// Small enough that only the most likely token is kept.
const LEAST_SHARE: f32 = 1e-6;
const LARGEST_MIN_P: f32 = 0.999;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROOMY: Counts = Counts {
        prompt_tokens: 10,
        max_context: 4096,
    };

    fn told(normalized: &Normalized) -> Vec<(&str, &str, &str)> {
        let adjustments = normalized.adjustments.iter();
        adjustments
            .map(|one| (one.field, one.from.as_str(), one.to.as_str()))
            .collect()
    }

    #[test]
    fn the_worked_request() {
        let asked = Sampling {
            max_new_tokens: Some(0),
            temperature: Some(-0.3),
            top_p: Some(1.7),
            ..Sampling::default()
        };
        let near_full = Counts {
            prompt_tokens: 4096,
            max_context: 4096,
        };
        let got = normalize(&asked, near_full).expect("all can be brought into range");
        assert_eq!(got.sampling.max_new_tokens, Some(1));
        assert_eq!(got.sampling.temperature, Some(0.0));
        assert_eq!(got.sampling.top_p, Some(1.0));
        assert_eq!(got.prompt_tokens, 4095);
        assert_eq!(
            told(&got),
            [
                ("temperature", "-0.3", "0"),
                ("top_p", "1.7", "1"),
                ("max_new_tokens", "0", "1"),
                ("prompt_tokens", "4096", "4095"),
            ]
        );
        got.sampling.validate().expect("in range now");
    }

    #[test]
    fn what_is_no_number_is_an_error() {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let sampling = Sampling {
                temperature: Some(value),
                ..Sampling::default()
            };
            let error = normalize(&sampling, ROOMY).expect_err("not a number");
            assert_eq!(error.kind(), "invalid_parameter");
            assert!(error.to_string().contains("`temperature`"), "{error}");
        }
        let tiny = Counts {
            prompt_tokens: 1,
            max_context: 1,
        };
        assert!(normalize(&Sampling::default(), tiny).is_err());
    }

    #[test]
    fn every_field_moves_to_its_nearest_value() {
        let asked = Sampling {
            temperature: Some(3.0),
            top_p: Some(0.0),
            min_p: Some(1.0),
            repetition_penalty: Some(-1.0),
            repetition_window: Some(0),
            presence_penalty: Some(2.5),
            frequency_penalty: Some(-7.0),
            max_thinking_tokens: Some(0),
            ..Sampling::default()
        };
        let got = normalize(&asked, ROOMY).expect("numbers");
        assert_eq!(
            told(&got),
            [
                ("temperature", "3", "2"),
                ("top_p", "0", "0.000001"),
                ("min_p", "1", "0.999"),
                ("repetition_penalty", "-1", "1"),
                ("presence_penalty", "2.5", "2"),
                ("frequency_penalty", "-7", "-2"),
                ("repetition_window", "0", "1"),
                ("max_thinking_tokens", "0", "1"),
            ]
        );
    }

    #[test]
    fn the_reply_gives_way_before_the_prompt() {
        for (prompt, asked, kept, reply) in [
            (100, Some(64), 100, Some(64)),
            (3990, Some(512), 3990, Some(106)),
            (4095, Some(512), 4095, Some(1)),
            (9000, Some(512), 4095, Some(1)),
            (4000, None, 4000, None),
        ] {
            let sampling = Sampling {
                max_new_tokens: asked,
                ..Sampling::default()
            };
            let counts = Counts {
                prompt_tokens: prompt,
                max_context: 4096,
            };
            let got = normalize(&sampling, counts).expect("counts");
            assert_eq!(
                (got.prompt_tokens, got.sampling.max_new_tokens),
                (kept, reply)
            );
        }
    }

    proptest! {
        #[test]
        fn whatever_is_finite_is_in_range_afterwards(
            temperature in prop::num::f32::NORMAL,
            top_p in prop::num::f32::NORMAL,
            min_p in -2.0_f32..2.0,
            repetition_penalty in -3.0_f32..3.0,
            presence_penalty in -5.0_f32..5.0,
            max_new_tokens in 0_usize..10_000,
            prompt_tokens in 0_usize..10_000,
            max_context in 2_usize..10_000,
        ) {
            let asked = Sampling {
                temperature: Some(temperature),
                top_p: Some(top_p),
                min_p: Some(min_p),
                repetition_penalty: Some(repetition_penalty),
                presence_penalty: Some(presence_penalty),
                max_new_tokens: Some(max_new_tokens),
                ..Sampling::default()
            };
            let counts = Counts { prompt_tokens, max_context };
            let got = normalize(&asked, counts).expect("finite");
            prop_assert!(got.sampling.validate().is_ok(), "{:?}", got.sampling);
            let reply = got.sampling.max_new_tokens.expect("set");
            prop_assert!(got.prompt_tokens + reply <= max_context);
            // What is in range already is left alone, and nothing changes in silence.
            let again_counts = Counts { prompt_tokens: got.prompt_tokens, max_context };
            let again = normalize(&got.sampling, again_counts).expect("finite");
            prop_assert_eq!(&again.sampling, &got.sampling);
            prop_assert!(again.adjustments.is_empty());
            let changed = got.sampling != asked || got.prompt_tokens != prompt_tokens;
            prop_assert_eq!(changed, !got.adjustments.is_empty());
        }
    }
}
