//! The choice of the next token from one row of logits.
//!
//! The order: bias, penalties, what a constraint leaves, then the most likely token if the
//! temperature is 0, else top-k,
//! temperature, top-p, min-p, and one draw. Probabilities are those of the tokens that top-k left;
//! equally likely tokens rank by id, lowest first.
//!
//! A sampler is pure: the choice depends on the settings, the step, the recent tokens and the
//! logits. Buffers are kept, so a token costs no allocation once the first is through, and no step
//! sorts the vocabulary.

use std::cmp::Ordering;
use std::collections::{HashMap, VecDeque};

use tercel_text::grammar::Mask;

use crate::TokenId;
use crate::rng;
use crate::sampling::Settings;

/// Logits that cannot be drawn from: a NaN, a positive infinity, or no finite value at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the model gave logits that are not numbers")]
pub(crate) struct InvalidLogits;

/// Chooses tokens for one request at a time.
#[derive(Debug, Default)]
pub(crate) struct Sampler {
    settings: Settings,
    recent: Recent,
    /// A copy of the logits with bias, penalties and constraint in it; `(vocab_size)`, only where
    /// there are some.
    adjusted: Vec<f32>,
    candidates: Vec<Candidate>,
}

impl Sampler {
    /// Starts a request: `prompt` counts as recent tokens.
    pub(crate) fn begin(&mut self, settings: &Settings, prompt: &[TokenId]) {
        self.settings.clone_from(settings);
        let window = if penalties_are_on(settings) {
            settings.repetition_window
        } else {
            0
        };
        self.recent.begin(window, prompt);
    }

    /// The token of `step`, counted from 0, for `logits` `(vocab_size)`. Calling it again with the
    /// same arguments gives the same token.
    pub(crate) fn sample(&mut self, step: u64, logits: &[f32]) -> Result<TokenId, InvalidLogits> {
        self.choose(step, logits, None)
    }

    /// As [`sample`](Self::sample), of the tokens that may come.
    pub(crate) fn sample_allowed(
        &mut self,
        step: u64,
        logits: &[f32],
        allowed: &Mask,
    ) -> Result<TokenId, InvalidLogits> {
        self.choose(step, logits, Some(allowed))
    }

    fn choose(
        &mut self,
        step: u64,
        logits: &[f32],
        allowed: Option<&Mask>,
    ) -> Result<TokenId, InvalidLogits> {
        let Self {
            settings,
            recent,
            adjusted,
            candidates,
        } = self;
        let is_penalised = penalties_are_on(settings);
        let is_adjusted = is_penalised || !settings.logit_bias.is_empty() || allowed.is_some();
        let logits = if is_adjusted {
            adjusted.clear();
            adjusted.extend_from_slice(logits);
            apply_bias(adjusted, &settings.logit_bias);
            if is_penalised {
                apply_penalties(adjusted, recent, settings);
            }
            if let Some(allowed) = allowed {
                // A fault of the model stays one where it is at a token that may not come.
                highest(adjusted)?;
                allowed.apply(adjusted);
            }
            adjusted.as_slice()
        } else {
            logits
        };
        let highest = highest(logits)?;
        if settings.temperature == 0.0 {
            let best = logits.iter().position(|&logit| logit == highest);
            return best.map(token_id).ok_or(InvalidLogits);
        }
        keep_top_k(candidates, logits, settings.top_k);
        let temperature = f64::from(settings.temperature);
        for candidate in candidates.iter_mut() {
            let below = f64::from(candidate.logit) - f64::from(highest);
            candidate.weight = (below / temperature).exp();
        }
        if settings.top_p < 1.0 {
            keep_top_p(candidates, f64::from(settings.top_p));
        }
        if settings.min_p > 0.0 {
            // The most likely token weighs exactly 1.
            candidates.retain(|candidate| candidate.weight >= f64::from(settings.min_p));
        }
        draw(candidates, rng::uniform(settings.seed, step)).ok_or(InvalidLogits)
    }

    /// The `k` most likely tokens by `logits` as they are, the most likely first.
    pub(crate) fn most_likely(
        &mut self,
        logits: &[f32],
        k: usize,
    ) -> impl Iterator<Item = TokenId> {
        let candidates = &mut self.candidates;
        candidates.clear();
        if k > 0 {
            keep_top_k(candidates, logits, k);
            if k >= logits.len() {
                candidates.sort_unstable_by(by_rank);
            }
        }
        candidates.iter().map(|candidate| candidate.id)
    }

    /// Notes that `token` is now part of the text.
    pub(crate) fn accept(&mut self, token: TokenId) {
        self.recent.push(token);
    }
}

/// A token that may still be drawn.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    logit: f32,
    id: TokenId,
    /// Its probability relative to the most likely token's.
    weight: f64,
}

/// The latest tokens and how often each occurs among them.
#[derive(Debug, Default)]
struct Recent {
    window: usize,
    tokens: VecDeque<TokenId>,
    counts: HashMap<TokenId, u32>,
}

impl Recent {
    fn begin(&mut self, window: usize, prompt: &[TokenId]) {
        self.window = window;
        self.tokens.clear();
        self.counts.clear();
        for &token in &prompt[prompt.len().saturating_sub(window)..] {
            self.push(token);
        }
    }

    fn push(&mut self, token: TokenId) {
        if self.window == 0 {
            return;
        }
        if self.tokens.len() == self.window
            && let Some(oldest) = self.tokens.pop_front()
            && let Some(count) = self.counts.get_mut(&oldest)
        {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&oldest);
            }
        }
        self.tokens.push_back(token);
        *self.counts.entry(token).or_insert(0) += 1;
    }
}

fn penalties_are_on(settings: &Settings) -> bool {
    settings.repetition_penalty != 1.0
        || settings.presence_penalty != 0.0
        || settings.frequency_penalty != 0.0
}

fn apply_bias(logits: &mut [f32], bias: &[(TokenId, f32)]) {
    for &(token, bias) in bias {
        if let Some(logit) = logits.get_mut(token as usize) {
            *logit += bias;
        }
    }
}

/// The repetition penalty of Keskar et al., "CTRL", 2019, section 4.1, with negative logits
/// multiplied so that the penalty always lowers; then presence and frequency as the OpenAI API
/// defines them.
fn apply_penalties(logits: &mut [f32], recent: &Recent, settings: &Settings) {
    for (&id, &count) in &recent.counts {
        let Some(logit) = logits.get_mut(id as usize) else {
            continue;
        };
        let repeated = if *logit > 0.0 {
            // A tiny penalty must not turn a logit into infinity.
            (*logit / settings.repetition_penalty).min(f32::MAX)
        } else {
            *logit * settings.repetition_penalty
        };
        let count = count as f32;
        *logit = repeated - settings.presence_penalty - count * settings.frequency_penalty;
    }
}

/// The highest logit, which must be finite, with nothing above it that is no number.
fn highest(logits: &[f32]) -> Result<f32, InvalidLogits> {
    // Eight lanes and no branch, so that the loop becomes vector code.
    let mut lanes = [f32::NEG_INFINITY; 8];
    let mut valid = [true; 8];
    let (blocks, rest) = logits.as_chunks::<8>();
    for block in blocks {
        for lane in 0..8 {
            valid[lane] &= block[lane] < f32::INFINITY;
            lanes[lane] = if block[lane] > lanes[lane] {
                block[lane]
            } else {
                lanes[lane]
            };
        }
    }
    let all_valid = valid.iter().all(|&v| v) && rest.iter().all(|&logit| logit < f32::INFINITY);
    let highest = lanes
        .iter()
        .chain(rest)
        .copied()
        .fold(f32::NEG_INFINITY, f32::max);
    if all_valid && highest.is_finite() {
        Ok(highest)
    } else {
        Err(InvalidLogits)
    }
}

/// Fills `candidates` with the `k` highest logits, highest first; with all of them, by id, where
/// `k` is 0 or not below their number.
fn keep_top_k(candidates: &mut Vec<Candidate>, logits: &[f32], k: usize) {
    const BLOCK: usize = 32;

    candidates.clear();
    let of = |(id, &logit): (usize, &f32)| Candidate {
        logit,
        id: token_id(id),
        weight: 0.0,
    };
    if k == 0 || k >= logits.len() {
        candidates.extend(logits.iter().enumerate().map(of));
        return;
    }
    // Collects twice as many as needed, then halves: linear over the vocabulary for any k. Ids
    // rise, so a later logit that only equals the k-th best never replaces it.
    let mut threshold = f32::NEG_INFINITY;
    let halve = |candidates: &mut Vec<Candidate>| {
        candidates.select_nth_unstable_by(k - 1, by_rank);
        candidates.truncate(k);
        candidates[k - 1].logit
    };
    for (block, values) in logits.chunks(BLOCK).enumerate() {
        let best = values
            .iter()
            .fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a });
        if best <= threshold && candidates.len() >= k {
            continue;
        }
        for (offset, logit) in values.iter().enumerate() {
            if candidates.len() >= k && *logit <= threshold {
                continue;
            }
            candidates.push(of((block * BLOCK + offset, logit)));
            if candidates.len() == k.saturating_mul(2) {
                threshold = halve(candidates);
            }
        }
    }
    if candidates.len() > k {
        halve(candidates);
    }
    candidates.sort_unstable_by(by_rank);
}

/// Keeps the fewest candidates, most likely first, whose probabilities add up to `p`.
fn keep_top_p(candidates: &mut Vec<Candidate>, p: f64) {
    let total: f64 = candidates.iter().map(|candidate| candidate.weight).sum();
    let target = p * total;
    // Candidates below this weigh less than `1 - p` together, so the rest reaches `p` without them.
    let least = (1.0 - p) * total / candidates.len() as f64;
    candidates.retain(|candidate| candidate.weight >= least);
    let mut mass = 0.0;
    let mut start = 0;
    // Ranks a small front first: the mass is nearly always reached within it.
    let mut width = 64;
    while start < candidates.len() {
        let end = candidates.len().min(start + width);
        if end < candidates.len() {
            candidates[start..].select_nth_unstable_by(end - start, by_rank);
        }
        candidates[start..end].sort_unstable_by(by_rank);
        for at in start..end {
            mass += candidates[at].weight;
            if mass >= target {
                candidates.truncate(at + 1);
                return;
            }
        }
        start = end;
        width *= 4;
    }
}

/// The candidate at `uniform`, in `[0, 1)`, of their total weight.
fn draw(candidates: &[Candidate], uniform: f64) -> Option<TokenId> {
    let total: f64 = candidates.iter().map(|candidate| candidate.weight).sum();
    let mut left = uniform * total;
    for candidate in candidates {
        left -= candidate.weight;
        if left < 0.0 {
            return Some(candidate.id);
        }
    }
    // Rounding can leave a rest; a token of weight 0 must not get it.
    candidates
        .iter()
        .rev()
        .find(|candidate| candidate.weight > 0.0)
        .map(|candidate| candidate.id)
}

/// Highest logit first, then lowest id.
fn by_rank(a: &Candidate, b: &Candidate) -> Ordering {
    let by_logit = b.logit.partial_cmp(&a.logit).unwrap_or(Ordering::Equal);
    by_logit.then(a.id.cmp(&b.id))
}

/// A position in a row of logits as a token id; vocabularies are far below 2^32.
fn token_id(position: usize) -> TokenId {
    TokenId::try_from(position).unwrap_or(TokenId::MAX)
}

#[cfg(test)]
mod tests;
