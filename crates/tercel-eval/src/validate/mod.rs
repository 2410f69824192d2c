//! A model against a reference: logits at every position, and the greedy continuation.
//!
//! Both sides see the same ids at positions counted from 0, under a causal mask and without
//! padding: what is left to differ is the model.

mod metrics;
mod reference;
mod triage;

use std::ops::ControlFlow;

use serde::Serialize;
use tercel::{BareModel, BareOptions, ModelFiles, TokenId, Tokenizer};

pub use metrics::{PositionReport, TOP, compare};
pub use reference::ReferenceFile;
pub use triage::{Thresholds, Triage, triage};

use crate::EvalError;
use metrics::argmax;

/// What a model is compared with.
#[derive(Debug)]
#[non_exhaustive]
pub enum Reference<'a> {
    /// Another model, of any packaging.
    Model(&'a ModelFiles),
    /// Logits that were computed elsewhere.
    File(&'a ReferenceFile),
}

/// How to compare.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ValidateOptions {
    /// Compute with single floats throughout, and expect the same numbers. By default so against
    /// a reference file, which holds what such arithmetic gives.
    pub exact: Option<bool>,
    /// Quantize the model, not the reference, to this type as it is loaded.
    pub quantize: Option<String>,
    /// Tokens of the longest prompt and its continuation together.
    pub max_context: usize,
    /// Tokens to continue each prompt with; a reference file says itself how many it has.
    pub greedy_tokens: usize,
    /// The largest difference of a logit, in place of the usual one.
    pub max_abs: Option<f64>,
    /// Compute threads; by default the number of physical cores.
    pub threads: Option<usize>,
}

impl Default for ValidateOptions {
    fn default() -> Self {
        Self {
            exact: None,
            quantize: None,
            max_context: 256,
            greedy_tokens: 32,
            max_abs: None,
            threads: None,
        }
    }
}

/// What a comparison found.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Validation {
    /// Whether every prompt passed.
    pub passed: bool,
    /// Where to look, if not.
    pub triage: Option<Triage>,
    /// `triage` in words.
    pub advice: Option<&'static str>,
    /// Whether single floats were used throughout.
    pub exact: bool,
    /// What was asked for.
    pub thresholds: Thresholds,
    /// The largest difference of a logit anywhere.
    pub max_abs: f64,
    /// The mean squared difference over all positions.
    pub mse: f64,
    /// The share of all positions with the same most likely token.
    pub match_rate: f64,
    /// The mean share of the five most likely tokens that is common.
    pub avg_overlap: f64,
    /// Each prompt.
    pub prompts: Vec<PromptReport>,
    /// What the reader should know: what could not be compared, and why.
    pub notes: Vec<String>,
}

/// One prompt, compared.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PromptReport {
    /// The prompt, or what stands for it.
    pub prompt: String,
    /// Its tokens.
    pub tokens: usize,
    /// Whether both tokenizers give the same ids; nothing else is compared if not.
    pub ids_equal: bool,
    /// Why it does not pass.
    pub failure: Option<&'static str>,
    /// The largest difference of a logit.
    pub max_abs: f64,
    /// The mean squared difference.
    pub mse: f64,
    /// The share of positions with the same most likely token.
    pub match_rate: f64,
    /// The mean share of the five most likely tokens that is common.
    pub avg_overlap: f64,
    /// Every position.
    pub positions: Vec<PositionReport>,
    /// The tokens that follow.
    pub greedy: Option<GreedyReport>,
}

/// A greedy continuation, compared. End tokens do not end it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct GreedyReport {
    /// Tokens that were compared.
    pub tokens: usize,
    /// Whether all are the same.
    pub equal: bool,
    /// The first that differs, from 0.
    pub differs_at: Option<usize>,
    /// How close the choice was there: the best logit less the second.
    pub gap: f64,
}

/// The prompts of a comparison, but for the long one.
pub const PROMPTS: [&str; 6] = [
    "The capital of France is",
    "Wait... what is 3.14 rounded to 2 decimals?",
    "Summarize: The cat sat on the mat.",
    "Compute: (12*7) - 5 =",
    "Repeat: ha ha ha ha ha",
    "Q: 2+2?\nA:",
];

/// Repeated until it fills the context.
const PARAGRAPH: &str = "A small computer at the edge of the network reads a sensor, decides what \
    matters, and sends a short note home. It has little memory and less power, so every word \
    counts. ";

/// Compares a model with a reference. `on_prompt` hears of each prompt, and may stop.
///
/// # Errors
/// A model that cannot be loaded, options out of range, a reference file of another model, a
/// failure of the computation, or [`EvalError::Cancelled`].
pub fn validate(
    model: &ModelFiles,
    reference: &Reference<'_>,
    options: &ValidateOptions,
    mut on_prompt: impl FnMut(&PromptReport) -> ControlFlow<()>,
) -> Result<Validation, EvalError> {
    let by_file = matches!(reference, Reference::File(_));
    let exact = options
        .exact
        .unwrap_or(by_file && options.quantize.is_none());
    let mut thresholds = if exact {
        Thresholds::exact()
    } else {
        Thresholds::close()
    };
    thresholds.max_abs = options.max_abs.or(thresholds.max_abs);
    let mut notes = Vec::new();
    let mut prompts = Vec::new();
    let mut done = |mut prompt: PromptReport| {
        prompt.summarize();
        prompt.failure = triage::failure(&prompt, &thresholds);
        let flow = on_prompt(&prompt);
        prompts.push(prompt);
        match flow {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(EvalError::Cancelled),
        }
    };
    match reference {
        Reference::File(file) => {
            let context = file.input_ids.len() + file.greedy_ids.len();
            let mut model = BareModel::load(model, &bare(options, exact, context.max(2)))?;
            if model.summary().vocab_size != file.vocab_size {
                return Err(EvalError::Reference {
                    path: file.path.clone(),
                    problem: format!(
                        "has logits of {} tokens, the model has {}: it belongs to another model",
                        file.vocab_size,
                        model.summary().vocab_size
                    ),
                });
            }
            done(against_file(&mut model, file)?)?;
        }
        Reference::Model(other) => {
            let inputs = Inputs::new(model, other, options, &mut notes)?;
            let mut model = BareModel::load(model, &bare(options, exact, inputs.context))?;
            let plain = ValidateOptions {
                quantize: None,
                ..options.clone()
            };
            let mut other = BareModel::load(other, &bare(&plain, exact, inputs.context))?;
            for prompt in &inputs.prompts {
                done(against_model(&mut model, &mut other, prompt, options)?)?;
            }
        }
    }
    let triage = triage(&prompts, &thresholds);
    let positions = || prompts.iter().flat_map(|prompt| &prompt.positions);
    Ok(Validation {
        passed: prompts.iter().all(|prompt| prompt.failure.is_none()),
        triage,
        advice: triage.map(Triage::text),
        exact,
        thresholds,
        max_abs: largest(positions().map(|position| position.max_abs)),
        mse: mean(positions().map(|position| position.mse)),
        match_rate: mean(positions().map(|position| f64::from(position.argmax_equal))),
        avg_overlap: mean(positions().map(|position| position.overlap)),
        prompts,
        notes,
    })
}

impl PromptReport {
    fn summarize(&mut self) {
        let positions = &self.positions;
        self.max_abs = largest(positions.iter().map(|position| position.max_abs));
        self.mse = mean(positions.iter().map(|position| position.mse));
        let equal = positions
            .iter()
            .map(|position| f64::from(position.argmax_equal));
        self.match_rate = mean(equal);
        self.avg_overlap = mean(positions.iter().map(|position| position.overlap));
    }
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (n, sum) = values.fold((0_u32, 0.0), |(n, sum), value| (n + 1, sum + value));
    sum / f64::from(n.max(1))
}

/// The largest value, or what is no number where there is such.
fn largest(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(0.0, |most, value| {
        if value > most || value.is_nan() {
            value
        } else {
            most
        }
    })
}

fn bare(options: &ValidateOptions, exact: bool, context: usize) -> BareOptions {
    let mut settings = BareOptions::default();
    settings.max_context = Some(context);
    settings.threads = options.threads;
    settings.exact = exact;
    settings.quantize.clone_from(&options.quantize);
    settings
}

fn against_file(model: &mut BareModel, file: &ReferenceFile) -> Result<PromptReport, EvalError> {
    let mut report = PromptReport {
        prompt: "the ids of the reference".to_owned(),
        tokens: file.input_ids.len(),
        ids_equal: true,
        ..PromptReport::default()
    };
    let mut last = Vec::new();
    model.append(&file.input_ids, |i, row| {
        report.positions.push(compare(i, file.row(i), row));
        if i + 1 == file.input_ids.len() {
            last = row.to_vec();
        }
    })?;
    if file.greedy_ids.is_empty() {
        return Ok(report);
    }
    let mut differs_at = None;
    for (i, expected) in file.greedy_ids.iter().enumerate() {
        if argmax(&last) != *expected as usize {
            differs_at = Some(i);
            break;
        }
        model.append(&[*expected], |_, row| last = row.to_vec())?;
    }
    report.greedy = Some(GreedyReport::new(file.greedy_ids.len(), differs_at, &last));
    Ok(report)
}

impl GreedyReport {
    /// `row` is what the last choice was made of.
    fn new(tokens: usize, differs_at: Option<usize>, row: &[f32]) -> Self {
        Self {
            tokens,
            equal: differs_at.is_none(),
            differs_at,
            gap: compare(0, row, row).gap,
        }
    }
}

fn against_model(
    model: &mut BareModel,
    other: &mut BareModel,
    prompt: &Prompt,
    options: &ValidateOptions,
) -> Result<PromptReport, EvalError> {
    let mut report = PromptReport {
        prompt: prompt.text.clone(),
        tokens: prompt.ids.len(),
        ids_equal: prompt.ids_equal,
        ..PromptReport::default()
    };
    if !prompt.ids_equal {
        return Ok(report);
    }
    model.clear()?;
    other.clear()?;
    let mut rows = (Vec::new(), Vec::new());
    // As many rows at a time as a pass gives, so that the logits of a prompt are never all there.
    for (chunk, ids) in prompt.ids.chunks(CHUNK).enumerate() {
        let mut of_other: Vec<f32> = Vec::new();
        other.append(ids, |_, row| of_other.extend_from_slice(row))?;
        let width = of_other.len() / ids.len().max(1);
        let start = report.positions.len();
        model.append(ids, |i, row| {
            let of_other = &of_other[i * width..(i + 1) * width];
            let common = width.min(row.len());
            let position = chunk * CHUNK + i;
            report
                .positions
                .push(compare(position, &of_other[..common], &row[..common]));
            if start + i + 1 == prompt.ids.len() {
                rows = (row.to_vec(), of_other.to_vec());
            }
        })?;
    }
    let mut differs_at = None;
    for i in 0..options.greedy_tokens {
        let (row, of_other) = &rows;
        let next = argmax(of_other);
        let token = TokenId::try_from(next).unwrap_or(TokenId::MAX);
        if argmax(row) != next {
            differs_at = Some(i);
            break;
        }
        model.append(&[token], |_, row| rows.0 = row.to_vec())?;
        other.append(&[token], |_, row| rows.1 = row.to_vec())?;
    }
    report.greedy = Some(GreedyReport::new(
        options.greedy_tokens,
        differs_at,
        &rows.1,
    ));
    Ok(report)
}

/// Rows of logits that are held at once.
const CHUNK: usize = 32;

/// A prompt of both sides.
struct Prompt {
    text: String,
    ids: Vec<TokenId>,
    ids_equal: bool,
}

/// What both models are asked.
struct Inputs {
    prompts: Vec<Prompt>,
    /// Tokens that the longest prompt and its continuation have.
    context: usize,
}

impl Inputs {
    fn new(
        model: &ModelFiles,
        other: &ModelFiles,
        options: &ValidateOptions,
        notes: &mut Vec<String>,
    ) -> Result<Self, EvalError> {
        let summaries = (model.inspect(None)?.model, other.inspect(None)?.model);
        let (ours, theirs) = (summaries.0.vocab_size, summaries.1.vocab_size);
        if ours != theirs {
            notes.push(format!(
                "the model has {ours} tokens, the reference {theirs}; the first {} are compared",
                ours.min(theirs)
            ));
        }
        let trained = summaries.0.trained_context.min(summaries.1.trained_context);
        let context = options.max_context.min(trained);
        let least = options.greedy_tokens.saturating_add(SHORTEST);
        if context < least {
            return Err(EvalError::InvalidOption {
                field: "max_context",
                value: context,
                range: format!("{least} or more"),
            });
        }
        let longest = context - options.greedy_tokens;
        let tokenizers = (tokenizer(model)?, tokenizer(other)?);
        let mut prompts = match &tokenizers {
            (Some(ours), Some(theirs)) => texts(longest)
                .map(|text| {
                    let ids = encode(ours, &text, longest);
                    Prompt {
                        ids_equal: ids == encode(theirs, &text, longest),
                        ids,
                        text,
                    }
                })
                .collect(),
            (Some(one), None) | (None, Some(one)) => {
                notes.push("one side has no tokenizer; both get the other's ids".to_owned());
                let prompt = |text: String| Prompt {
                    ids: encode(one, &text, longest),
                    ids_equal: true,
                    text,
                };
                texts(longest).map(prompt).collect()
            }
            (None, None) => {
                notes.push("neither side has a tokenizer; both get made-up ids".to_owned());
                made_up(ours.min(theirs), longest)
            }
        };
        for prompt in &mut prompts {
            let outside = prompt.ids.iter().any(|id| *id as usize >= ours.min(theirs));
            // An id that one side lacks is as good as another id.
            prompt.ids_equal &= !outside;
        }
        Ok(Self { prompts, context })
    }
}

/// Tokens that a prompt may have at least.
const SHORTEST: usize = 32;

fn tokenizer(files: &ModelFiles) -> Result<Option<Tokenizer>, EvalError> {
    match files.tokenizer() {
        Ok(tokenizer) => Ok(Some(tokenizer)),
        Err(tercel::Error::NoTokenizer { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The texts; the last is long enough for any vocabulary to fill the context with it.
fn texts(longest: usize) -> impl Iterator<Item = String> {
    // No token stands for more than a few words.
    let times = longest.div_ceil(4);
    PROMPTS
        .into_iter()
        .map(str::to_owned)
        .chain([PARAGRAPH.repeat(times)])
}

fn encode(tokenizer: &Tokenizer, text: &str, longest: usize) -> Vec<TokenId> {
    let begin = tokenizer.bos().filter(|_| tokenizer.add_bos());
    let mut ids: Vec<TokenId> = begin.into_iter().chain(tokenizer.encode(text)).collect();
    ids.truncate(longest);
    ids
}

/// Ids for models without a tokenizer, the same every time.
fn made_up(vocab_size: usize, longest: usize) -> Vec<Prompt> {
    let lengths = [8, 24, longest];
    let prompts = lengths.into_iter().enumerate().map(|(n, length)| {
        let mut state = n as u64 + 1;
        let ids = (0..length.min(longest)).map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) % vocab_size.max(1) as u64) as TokenId
        });
        Prompt {
            text: format!("{length} made-up ids"),
            ids: ids.collect(),
            ids_equal: true,
        }
    });
    prompts.collect()
}
