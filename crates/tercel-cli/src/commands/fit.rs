//! `tercel fit`: what a model would take, and how much of it fits.

use std::path::{Path, PathBuf};

use serde::Serialize;
use tercel::memory::{Blueprint, Described, Fit, FitOptions, KvDtype, MOST_SEQUENCES};

use crate::args::{byte_size, kv_dtype};
use crate::config::Settings;
use crate::context::Context;
use crate::failure::Failure;
use crate::{format, load};

/// Show what a model takes of the memory, and what fits
///
/// The same estimate that loading makes, part by part: nothing is loaded or fetched. Besides a
/// model on this machine, MODEL may be one that is only described: a config.json of the Hugging
/// Face Hub, or a GGUF file whose data is missing.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  tercel fit smollm2:135m --context 8192 --sequences 4
  tercel fit model.gguf --budget 2GiB --kv q8_0
  tercel fit config.json --quantize q4_k

Exit code: 0 if it fits, 1 if it does not.")]
pub(crate) struct Args {
    /// A model on this machine, a config.json, or a directory with one
    model: String,
    /// Tokens that prompt and reply may have together [default: what `tercel run` uses, your
    /// settings counted]
    #[arg(long, visible_alias = "max-context", value_name = "N")]
    context: Option<usize>,
    /// Sequences at once, each with room for a whole context [default: the few that share the room
    /// of one, as `tercel run` has it]
    #[arg(long, value_name = "N")]
    sequences: Option<usize>,
    /// How keys and values are stored: f16 or q8_0 [default: that of your settings, else f16]
    #[arg(long, value_name = "TYPE", value_parser = kv_dtype)]
    kv: Option<KvDtype>,
    /// Reckon with weights of floats quantized as they are loaded: q8_0, q6_k, q5_k, q5_1, q5_0,
    /// q4_k, q4_1 or q4_0
    #[arg(long, value_name = "TYPE")]
    quantize: Option<String>,
    /// What it must fit, such as 2GiB or 900MB [default: what the machine has free]
    #[arg(long, value_name = "SIZE", value_parser = byte_size)]
    budget: Option<u64>,
    /// Print one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let blueprint = open(&args.model)?;
    let (mut settings, mut kv) = (Settings::of(&args.model)?, args.kv);
    let mut options = FitOptions::default();
    options.max_context = args.context;
    settings.fill("max_context", &mut options.max_context, |own| {
        own.max_context
    });
    settings.fill("kv_type", &mut kv, |own| {
        KvDtype::parse(own.entries.get("kv_type")?.value.as_str()?)
    });
    options.sequences = args.sequences;
    options.kv = kv.unwrap_or(options.kv);
    options.quantize.clone_from(&args.quantize);
    options.budget_bytes = args.budget;
    if !args.json {
        settings.tell(true, context);
    }
    let fit = blueprint
        .fit(&options)
        .map_err(|error| settings.explain(error.into()))?;
    if args.json {
        let path = blueprint.path().to_owned();
        context.out.json(&Everything { path, fit: &fit })?;
    } else {
        show(&fit, context)?;
    }
    match fit.fits {
        Some(false) => Err(Failure::Reported),
        _ => Ok(()),
    }
}

/// The model of this name, or what is at this path.
pub(crate) fn open(model: &str) -> Result<Blueprint, Failure> {
    let path = Path::new(model);
    if path.exists() {
        return Ok(Blueprint::open(path)?);
    }
    Ok(Blueprint::of(&load::local(model)?)?)
}

#[derive(Serialize)]
struct Everything<'a> {
    path: PathBuf,
    #[serde(flatten)]
    fit: &'a Fit,
}

fn show(fit: &Fit, context: &Context) -> Result<(), Failure> {
    let out = context.out;
    let model = &fit.model;
    out.line(&format!(
        "{}, {} parameters, {}, {} KV cache",
        model.architecture,
        format::count(model.parameters),
        sequences(fit, fit.max_context),
        fit.kv_type
    ))?;
    out.line("")?;
    let mut rows: Vec<[String; 2]> = fit
        .breakdown()
        .entries()
        .iter()
        .map(|entry| [entry.part.clone(), format::bytes(entry.bytes)])
        .collect();
    rows.push(["total".to_owned(), format::bytes(fit.total_bytes)]);
    for line in format::table(["PART", "SIZE"], &[1], &rows) {
        out.line(&line)?;
    }
    out.line("")?;
    if let Some(limit) = fit.limit_bytes {
        let verdict = match fit.fits {
            Some(true) => "it fits",
            _ => "it does not fit",
        };
        let limit = format::bytes(limit);
        out.line(&match fit.limit_is_budget {
            true => format!("{verdict} the budget of {limit}"),
            false => format!("{verdict} the {limit} that are free"),
        })?;
    }
    let tokens = |context: usize| match context {
        0 => "none".to_owned(),
        all if all == model.trained_context => format!("{all} tokens, all it was trained for"),
        some => format!("{some} tokens"),
    };
    if let Some(largest) = fit.largest_context {
        let largest = tokens(largest);
        out.line(&format!("largest context that fits: {largest}"))?;
    }
    if let Some(most) = fit.largest_sequences {
        let most = match most {
            0 => "none".to_owned(),
            MOST_SEQUENCES => format!("{most}, all that an engine takes"),
            most => most.to_string(),
        };
        out.line(&format!(
            "most sequences that fit, each of {} tokens: {most}",
            fit.max_context
        ))?;
    }
    let described = match fit.described {
        Some(Described::ByConfiguration) => {
            "of the model there is the configuration alone: its weights are taken to be of the type \
             that it names"
        }
        Some(Described::ByHeader) => "of the file there is the header alone, without its data",
        _ => "",
    };
    if !described.is_empty() {
        context.note(described);
    }
    if !fit.tokenizer_known {
        context
            .note("the tokenizer is not there: its size is a guess from the number of its tokens");
    }
    Ok(())
}

/// `4 sequences that share 4096 tokens`, `2 sequences of 4096 tokens each`.
fn sequences(fit: &Fit, tokens: usize) -> String {
    let n = format::plural(fit.sequences, "sequence");
    match fit.share_context {
        true => format!("{n} that share {tokens} tokens"),
        false if fit.sequences == 1 => format!("{n} of {tokens} tokens"),
        false => format!("{n} of {tokens} tokens each"),
    }
}
