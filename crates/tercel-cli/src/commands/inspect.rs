//! `tercel inspect`: what a model is and what it would take.

use serde::Serialize;
use tercel::{Inspection, MetadataEntry, ModelFiles, PlannedTensor};

use crate::context::Context;
use crate::failure::Failure;
use crate::output::Output;
use crate::terminal::one_line;
use crate::{format, load};

mod tensors;

/// Show what a model is, and the memory that it takes
///
/// Reads only the head of the file; loads and fetches nothing.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  tercel inspect smollm2:135m
  tercel inspect model.gguf --max-context 8192
  tercel inspect original-model/ --tensors --quantize q4_0
  tercel inspect model.gguf --json")]
pub(crate) struct Args {
    /// A model on this machine
    model: String,
    /// The context, in tokens, to reckon the memory for [default: what `tercel run` uses]
    #[arg(long, value_name = "N")]
    max_context: Option<usize>,
    /// Show every metadata entry of the file
    #[arg(long)]
    metadata: bool,
    /// Show every tensor: what it is for, and what loading it quantized would make of it
    #[arg(long)]
    tensors: bool,
    /// The type that --tensors reckons with: q8_0, q6_k, q5_k, q5_1, q5_0, q4_k, q4_1 or q4_0
    #[arg(
        long,
        value_name = "TYPE",
        default_value = "q4_k",
        requires = "tensors"
    )]
    quantize: String,
    /// Print one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let file = ModelFiles::of(&load::local(&args.model)?)?;
    let inspection = file.inspect(args.max_context)?;
    let metadata = args.metadata.then(|| file.metadata()).transpose()?;
    let tensor_list = args
        .tensors
        .then(|| file.survey(Some(&args.quantize)))
        .transpose()?;
    if args.json {
        return context.out.json(&Everything {
            inspection,
            metadata,
            tensor_list,
        });
    }
    describe(&inspection, context.out)?;
    tensor_types(&inspection, context.out)?;
    if let Some(entries) = metadata {
        list_metadata(&entries, context.out)?;
    }
    tensor_list.map_or(Ok(()), |list| {
        tensors::show(&list, &args.quantize, context.out)
    })
}

#[derive(Serialize)]
struct Everything {
    #[serde(flatten)]
    inspection: Inspection,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Vec<MetadataEntry>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tensor_list: Option<Vec<PlannedTensor>>,
}

fn describe(of: &Inspection, out: Output) -> Result<(), Failure> {
    let model = &of.model;
    let entry = |name: &str, value: String| out.entry(name, &value);
    let mebibytes = |bytes: usize| format::bytes(bytes as u64);

    entry(
        "model",
        model.name.clone().unwrap_or_else(|| "not named".to_owned()),
    )?;
    entry("file", of.path.display().to_string())?;
    let size = format::bytes(of.file_bytes);
    entry(
        "size",
        format!("{size}, {} tensors, {}", of.tensors, of.packaging),
    )?;
    entry(
        "licence",
        of.licence.clone().unwrap_or_else(|| "not named".to_owned()),
    )?;
    let parameters = format::count(model.parameters);
    entry(
        "architecture",
        format!("{}, {parameters} parameters", model.architecture),
    )?;
    entry(
        "layers",
        format!(
            "{}, {} wide, feed forward {}",
            model.n_layers, model.hidden_size, model.feed_forward
        ),
    )?;
    for part in &model.left_out {
        entry("left out", part.clone())?;
    }
    let window = match model.sliding_window {
        Some(window) => format!(", sliding window of {window} tokens"),
        None => String::new(),
    };
    entry(
        "attention",
        format!(
            "{} heads of {}, {} for keys and values{window}",
            model.n_heads, model.head_dim, model.n_kv_heads
        ),
    )?;
    let kind = of.tokenizer.as_deref().unwrap_or("not named");
    let pre = of
        .pre_tokenizer
        .as_ref()
        .map(|pre| format!(" ({pre})"))
        .unwrap_or_default();
    entry(
        "tokenizer",
        format!("{kind}{pre}, {} tokens", model.vocab_size),
    )?;
    entry(
        "template",
        match &of.template {
            Some(source) => format!("{} characters", source.chars().count()),
            None => "none: the model continues text, it does not chat".to_owned(),
        },
    )?;
    if let Some(sampling) = set_values(&of.sampling) {
        entry("sampling", sampling)?;
    }
    entry(
        "context",
        format!(
            "{} tokens, trained for {}",
            of.max_context, model.trained_context
        ),
    )?;
    let memory = &of.memory;
    entry(
        "memory",
        format!(
            "{}: weights {}, KV cache {}, workspace {}, prefix cache {}, tokenizer {}",
            mebibytes(memory.total_bytes),
            mebibytes(memory.weights_bytes),
            mebibytes(memory.kv_bytes),
            mebibytes(memory.workspace_bytes),
            mebibytes(memory.prefix_cache_bytes),
            mebibytes(memory.tokenizer_bytes)
        ),
    )
}

/// The sampling values that a model brings, as `name value`.
fn set_values(sampling: &tercel::Sampling) -> Option<String> {
    let values = serde_json::to_string(sampling).ok()?;
    let values: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&values).ok()?;
    let set: Vec<String> = values
        .iter()
        .filter(|(_, value)| value.is_number() || value.is_boolean())
        .map(|(name, value)| format!("{name} {value}"))
        .collect();
    (!set.is_empty()).then(|| set.join(", "))
}

fn tensor_types(of: &Inspection, out: Output) -> Result<(), Failure> {
    let rows: Vec<_> = of
        .tensor_types
        .iter()
        .map(|of| {
            [
                of.dtype.clone(),
                of.tensors.to_string(),
                format::bytes(of.bytes),
            ]
        })
        .collect();
    print(
        &format::table(["TYPE", "TENSORS", "SIZE"], &[1, 2], &rows),
        out,
    )
}

fn list_metadata(entries: &[MetadataEntry], out: Output) -> Result<(), Failure> {
    let rows: Vec<_> = entries
        .iter()
        .map(|entry| [shown(&entry.key), entry.kind.clone(), shown(&entry.value)])
        .collect();
    print(&format::table(["KEY", "TYPE", "VALUE"], &[], &rows), out)
}

/// A text of the file, escaped and no longer than a line of a table can bear.
fn shown(text: &str) -> String {
    const LONGEST: usize = 60;
    let line = one_line(text);
    if line.chars().count() <= LONGEST {
        return line.into_owned();
    }
    let start: String = line.chars().take(LONGEST).collect();
    format!("{start}... ({} characters)", text.chars().count())
}

fn print(lines: &[String], out: Output) -> Result<(), Failure> {
    out.line("")?;
    lines.iter().try_for_each(|line| out.line(line))
}
