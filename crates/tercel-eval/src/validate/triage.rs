//! What passes, and what the shape of a failure says of its cause.

use std::fmt;

use serde::Serialize;

use super::PromptReport;

/// What is asked of a model to pass.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Thresholds {
    /// The largest difference of a logit; `None` where drift is expected.
    pub max_abs: Option<f64>,
    /// Above this share of the spread of the logits a difference is no drift.
    pub relative: f64,
    /// Prompts of up to so many tokens are short.
    pub short_tokens: usize,
    /// The share of positions of a short prompt at which the most likely token must be the same.
    pub match_rate: f64,
    /// What counts as overlap at a position of a long prompt.
    pub overlap: f64,
    /// The share of positions of a long prompt that must overlap so.
    pub overlap_rate: f64,
}

impl Thresholds {
    /// For the same weights in single floats on both sides.
    pub fn exact() -> Self {
        Self {
            max_abs: Some(2e-3),
            ..Self::close()
        }
    }

    /// For weights or arithmetic that differ in precision.
    pub fn close() -> Self {
        Self {
            max_abs: None,
            relative: 0.3,
            short_tokens: 64,
            match_rate: 1.0,
            overlap: 0.8,
            overlap_rate: 0.5,
        }
    }
}

/// What a failure looks like, and so where to look for its cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Triage {
    /// The two tokenizers give other ids.
    IdsDiffer,
    /// Logits that are not numbers.
    NotNumbers,
    /// Logits are off everywhere.
    AllPositions,
    /// The first tokens are right, later ones are not.
    LatePositions,
    /// Some prompts are right, others are not.
    SomePrompts,
    /// A little off everywhere, enough to change ranks.
    Drift,
    /// Differences are tiny, but some ranks change.
    NearTies,
    /// Prompts are right, the tokens that follow are not.
    GreedyOnly,
}

impl Triage {
    /// Where to look.
    pub fn text(self) -> &'static str {
        match self {
            Self::IdsDiffer => {
                "the token ids differ: look at the tokenizer and its normalization; nothing \
                 else was compared"
            }
            Self::NotNumbers => {
                "logits are not numbers: look for an overflow of a narrow type, or damaged scales"
            }
            Self::AllPositions => {
                "logits are off at all positions: look at the mapping of tensors, the order of \
                 layers, the embedding and the head"
            }
            Self::LatePositions => {
                "the first positions are right and later ones are not: look at positions, RoPE \
                 (rope_theta and its scaling), and mask or padding"
            }
            Self::SomePrompts => {
                "some prompts are right and others are not: look at special tokens, truncation \
                 and the format of the prompts"
            }
            Self::Drift => {
                "logits drift and ranks flip: look at the types of weights, norms and \
                 quantization"
            }
            Self::NearTies => {
                "differences are small where ranks differ: rounding near ties, no fault by itself"
            }
            Self::GreedyOnly => {
                "prompts are right and the tokens after them are not: look at the update of the \
                 KV cache, the extension of the mask, and end tokens"
            }
        }
    }
}

impl fmt::Display for Triage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// Why a prompt does not pass; `None` when it does.
pub(crate) fn failure(prompt: &PromptReport, thresholds: &Thresholds) -> Option<&'static str> {
    if !prompt.ids_equal {
        return Some("token ids differ");
    }
    if let Some(reason) = logits_failure(prompt, thresholds) {
        return Some(reason);
    }
    (!greedy_passes(prompt, thresholds)).then_some("greedy continuation differs")
}

/// What the failing prompts have in common; `None` when all pass.
pub fn triage(prompts: &[PromptReport], thresholds: &Thresholds) -> Option<Triage> {
    if prompts.iter().any(|prompt| !prompt.ids_equal) {
        return Some(Triage::IdsDiffer);
    }
    let positions = || prompts.iter().flat_map(|prompt| &prompt.positions);
    if positions().any(|position| !position.is_finite()) {
        return Some(Triage::NotNumbers);
    }
    let fails = |prompt: &&PromptReport| logits_failure(prompt, thresholds).is_some();
    if !prompts.iter().any(|prompt| fails(&prompt)) {
        let greedy = prompts
            .iter()
            .all(|prompt| greedy_passes(prompt, thresholds));
        return (!greedy).then_some(Triage::GreedyOnly);
    }
    let off: Vec<(&PromptReport, usize)> = prompts
        .iter()
        .filter_map(|prompt| {
            let mut positions = prompt.positions.iter();
            let first = positions.position(|position| position.is_off(thresholds))?;
            Some((prompt, first))
        })
        .collect();
    if off.is_empty() {
        // Ranks alone are wrong.
        let mut flips = positions().filter(|position| !position.argmax_equal);
        let tiny = |relative: f64| thresholds.max_abs.is_some() || relative <= SMALL;
        let near = flips.all(|flip| flip.gap <= 2.0 * flip.max_abs && tiny(flip.relative));
        return Some(if near {
            Triage::NearTies
        } else {
            Triage::Drift
        });
    }
    if is_late(prompts, &off) {
        return Some(Triage::LatePositions);
    }
    if off.len() < prompts.len() {
        return Some(Triage::SomePrompts);
    }
    let (n, sum) = positions().fold((0, 0.0), |(n, sum), position| {
        (n + 1, sum + position.relative)
    });
    let mean = sum / f64::from(n.max(1));
    Some(if mean <= Thresholds::close().relative {
        Triage::Drift
    } else {
        Triage::AllPositions
    })
}

/// A difference that is small beside the spread of the logits.
const SMALL: f64 = 0.05;
/// How much nearer the first position is where the cause grows with the position.
const NEARER: f64 = 4.0;

fn logits_failure(prompt: &PromptReport, thresholds: &Thresholds) -> Option<&'static str> {
    if prompt
        .positions
        .iter()
        .any(|position| !position.is_finite())
    {
        return Some("logits are not numbers");
    }
    if thresholds.max_abs.is_some_and(|most| prompt.max_abs > most) {
        return Some("logits differ");
    }
    let short = prompt.tokens <= thresholds.short_tokens;
    if short && prompt.match_rate < thresholds.match_rate {
        return Some("the most likely tokens differ");
    }
    let overlapping = |overlap: f64| overlap >= thresholds.overlap;
    let overlaps = prompt
        .positions
        .iter()
        .filter(|position| overlapping(position.overlap));
    let needed = thresholds.overlap_rate * prompt.positions.len() as f64;
    if !short && (overlaps.count() as f64) < needed {
        return Some("the five most likely tokens differ");
    }
    None
}

/// Equal, or, where drift is expected, parted at a choice as close as the drift is large.
fn greedy_passes(prompt: &PromptReport, thresholds: &Thresholds) -> bool {
    prompt.greedy.as_ref().is_none_or(|greedy| {
        let excused = thresholds.max_abs.is_none() && greedy.gap <= 2.0 * prompt.max_abs;
        greedy.equal || excused
    })
}

/// Whether the beginning of every prompt is right, and no long prompt is right to its end.
fn is_late(prompts: &[PromptReport], off: &[(&PromptReport, usize)]) -> bool {
    let starts_right = |(prompt, first): &(&PromptReport, usize)| {
        let start = prompt
            .positions
            .first()
            .map_or(f64::MAX, |start| start.max_abs);
        *first > 0 && start * NEARER <= prompt.max_abs
    };
    let latest = off.iter().map(|(_, first)| *first).max().unwrap_or(0);
    let longer = prompts
        .iter()
        .filter(|prompt| prompt.positions.len() > latest);
    off.iter().all(starts_right) && longer.count() <= off.len()
}

#[cfg(test)]
mod tests;
