//! The weights and the configuration: whole, known, and made for each other.

use tercel_formats::Checkpoint;
use tercel_formats::checkpoint::Field;
use tercel_nn::{ModelInfo, NnError, Runner, Target};

use super::{Verification, count};
use crate::files::ModelFiles;

const WEIGHTS: &str = "weights";
const CONFIG: &str = "configuration";
const TENSORS: &str = "tensors";
const ROPE: &str = "rope";
const CONTEXT: &str = "context";
/// Rows that one kind of problem may fill.
const MOST_ROWS: usize = 12;

/// Reads the checkpoint; nothing where it is damaged or not all there.
pub(super) fn read<'f>(files: &'f ModelFiles, report: &mut Verification) -> Option<Checkpoint<'f>> {
    if !files.has_weights() {
        return None;
    }
    match files.checkpoint() {
        Ok(checkpoint) => {
            report.ok(
                WEIGHTS,
                format!("{} read", count(checkpoint.tensors().len(), "tensor")),
            );
            Some(checkpoint)
        }
        Err(error) => {
            let hint = error
                .hint()
                .map_or_else(String::new, |hint| format!("; {hint}"));
            report.fail(WEIGHTS, format!("{error}{hint}"));
            None
        }
    }
}

/// Checks the configuration, and the tensors against it where they are there.
pub(super) fn check(
    files: &ModelFiles,
    checkpoint: &Checkpoint<'_>,
    whole: bool,
    report: &mut Verification,
) {
    let survey = Runner::survey(checkpoint, Target::AsStored);
    let of_tensor = |error: &NnError| match error {
        NnError::Config { field, .. } => checkpoint.tensor(field).is_some(),
        NnError::UnknownArchitecture { .. } => false,
        _ => true,
    };
    let (tensors, config): (Vec<_>, Vec<_>) = survey.problems.iter().partition(|it| of_tensor(it));
    list(CONFIG, &config, report);
    if whole {
        list(TENSORS, &tensors, report);
    }
    let embedding = survey.info.as_ref().map(|info| info.vocab_size);
    if config.is_empty()
        && let Some(info) = &survey.info
    {
        report.ok(CONFIG, described(info));
        if tensors.is_empty() {
            report.ok(TENSORS, "names and shapes are those of the configuration");
        }
        context(checkpoint, info, report);
    }
    rope(checkpoint, report);
    vocabulary(files, checkpoint, embedding, report);
}

fn list(check: &'static str, problems: &[&NnError], report: &mut Verification) {
    for problem in problems.iter().take(MOST_ROWS) {
        report.fail(check, problem.to_string());
    }
    if problems.len() > MOST_ROWS {
        let others = problems.len() - MOST_ROWS;
        report.fail(check, format!("and {others} more of the kind"));
    }
}

fn described(info: &ModelInfo) -> String {
    format!(
        "{}: {} layers, {} wide, {} heads of {}, {} for keys and values",
        info.architecture,
        info.n_layers,
        info.hidden_size,
        info.n_heads,
        info.head_dim,
        info.n_kv_heads
    )
}

/// What the configuration says of the vocabulary, against the embedding.
fn vocabulary(
    files: &ModelFiles,
    checkpoint: &Checkpoint<'_>,
    embedding: Option<usize>,
    report: &mut Verification,
) {
    let said = numbers(checkpoint, &["vocab_size"], "vocab_size");
    let said = said.first().map(|(_, value)| *value as usize);
    if let (Some(said), Some(embedding)) = (said, embedding)
        && said != embedding
    {
        report.fail(
            CONFIG,
            format!(
                "the configuration of {} has {said} tokens (vocab_size), its embedding \
                 {embedding}: a stale configuration, or weights of another variant",
                files.path().display()
            ),
        );
    }
    report.expected_vocab = said.or(embedding);
}

fn context(checkpoint: &Checkpoint<'_>, info: &ModelInfo, report: &mut Verification) {
    let trained = info.context_length;
    let fields = [
        "rope_parameters.original_max_position_embeddings",
        "rope_scaling.original_max_position_embeddings",
    ];
    let original = numbers(checkpoint, &fields, "rope.scaling.original_context_length");
    match original.first() {
        Some((field, original)) if *original > trained as f64 => report.warn(
            CONTEXT,
            format!("{trained} tokens, but `{field}` says {original} before any stretching"),
        ),
        _ => report.ok(CONTEXT, format!("trained for {trained} tokens")),
    }
}

/// Bases that published models have: 10,000 at first, tens of millions at most.
const KNOWN_BASES: std::ops::RangeInclusive<f64> = 10_000.0..=1e8;

/// The base of the rotary embedding. A wrong one that looks like another model's is not seen here.
fn rope(checkpoint: &Checkpoint<'_>, report: &mut Verification) {
    let fields = [
        "rope_parameters.rope_theta",
        "rope_parameters.full_attention.rope_theta",
        "rope_theta",
        "rope_scaling.rope_theta",
    ];
    let bases = numbers(checkpoint, &fields, "rope.freq_base");
    let Some((field, base)) = bases.first() else {
        report.ok(
            ROPE,
            "the configuration names no base; the family's own is used",
        );
        return;
    };
    if let Some((other, value)) = bases.iter().find(|(_, value)| value != base) {
        report.warn(
            ROPE,
            format!("`{field}` is {base}, but `{other}` is {value}"),
        );
    } else if !KNOWN_BASES.contains(base) {
        report.warn(
            ROPE,
            format!("`{field}` is {base}, which no known model has"),
        );
    } else {
        report.ok(ROPE, format!("`{field}` is {base}"));
    }
}

/// The numbers at these paths of `config.json`, the text part's first, or at a key of a GGUF file.
fn numbers(checkpoint: &Checkpoint<'_>, paths: &[&str], key: &str) -> Vec<(String, f64)> {
    let at = |name: String| match checkpoint.field(&name)? {
        Field::Whole(value) => Some((name, value as f64)),
        Field::Number(value) => Some((name, value)),
        _ => None,
    };
    if checkpoint.gguf_metadata().is_some() {
        let Some(Field::Text(architecture)) = checkpoint.field("general.architecture") else {
            return Vec::new();
        };
        return at(format!("{architecture}.{key}")).into_iter().collect();
    }
    let within = ["text_config.", ""].into_iter();
    within
        .flat_map(|within| paths.iter().map(move |path| format!("{within}{path}")))
        .filter_map(at)
        .collect()
}
