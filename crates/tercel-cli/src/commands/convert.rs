//! `tercel convert`: a model as a Hugging Face directory.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde::Serialize;
use tercel::ModelFiles;
use tercel::source::Store;
use tercel_quantize::{Converted, Options, Precision, Source, convert};

use crate::context::Context;
use crate::failure::Failure;
use crate::work::Work;
use crate::{format, load};

/// Write a model as a Hugging Face directory of safetensors
///
/// Takes any model that runs: a GGUF file, whole or split, or a directory of transformers or MLX.
/// Quantized weights become floats; what converters to GGUF and MLX did to the tensors is undone.
/// Norms and biases stay single floats. The directory also gets config.json,
/// generation_config.json, the tokenizer, the chat template, and manifest.json, which says what it
/// was made of.
///
/// DIR must not exist. It is there when everything is written, or not at all.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  tercel convert smollm2:135m --output smollm2-f16
  tercel convert model-4bit-mlx --output model-bf16 --dtype bf16
  tercel run smollm2-f16 \"Hello!\" --quantize q8_0")]
pub(crate) struct Args {
    /// A catalog name, a GGUF file, a directory, or hf:org/repo
    model: String,
    /// The directory to make
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// The type of the weights
    #[arg(
        long,
        value_name = "TYPE",
        default_value = "f16",
        value_parser = PossibleValuesParser::new(Precision::ALL.map(Precision::name))
            .try_map(|name| name.parse::<Precision>()),
    )]
    dtype: Precision,
    /// Use only what is on this machine
    #[arg(long)]
    offline: bool,
    /// Print one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Serialize)]
struct Report<'r> {
    path: &'r PathBuf,
    dtype: &'static str,
    #[serde(flatten)]
    converted: &'r Converted,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let started = Instant::now();
    let store = Store::open_default()?;
    let local = load::fetch(&store, &store.parse(&args.model)?, args.offline, context)?;
    let files = ModelFiles::of(&local)?;
    let checkpoint = files.checkpoint()?;
    let source = Source {
        name: &local.name,
        checkpoint: &checkpoint,
        weights: files.weights().collect(),
        beside: files.beside().collect(),
    };
    let mut options = Options::default();
    options.precision = args.dtype;
    let converted = {
        let mut work = Work::new("converting", context);
        convert(&source, &args.output, options, &mut |progress| {
            work.report(progress.share);
            files.release(progress.read);
            match context.interrupt.is_hit() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        })?
    };
    for note in &converted.notes {
        context.note(note);
    }
    if args.json {
        return context.out.json(&Report {
            path: &args.output,
            dtype: args.dtype.name(),
            converted: &converted,
        });
    }
    let files = match converted.shards {
        1 => String::new(),
        count => format!(" in {count} files"),
    };
    context.out.line(&format!(
        "{}: {}, {} tensors{files}, {}, in {}",
        args.output.display(),
        format::bytes(converted.bytes),
        converted.tensors,
        args.dtype,
        format::seconds(started.elapsed().as_secs_f64()),
    ))
}
