//! `tercel kv-size`: the arithmetic of a KV cache, term by term.

use serde::Serialize;
use tercel::memory::{Fit, FitOptions, KvDtype, KvShape, KvSize, KvSizeError, Term};

use super::fit;
use crate::args::kv_dtype;
use crate::context::Context;
use crate::failure::Failure;
use crate::format;
use crate::output::Output;

/// Compute the size of a KV cache, term by term
///
/// For a model on this machine or a config.json, or for the numbers that are given:
/// 2 x layers x sequences x key heads x tokens x elements of a head x bytes.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  tercel kv-size --layers 32 --heads 32 --kv-heads 8 --d-model 4096 --ctx 2048 --margin 10
  tercel kv-size smollm2:135m --ctx 8192 --batch 4
  tercel kv-size model.gguf --table")]
pub(crate) struct Args {
    /// A model on this machine, a config.json, or a directory with one
    #[arg(conflicts_with_all = ["layers", "heads", "kv_heads", "d_model", "head_dim"])]
    model: Option<String>,
    /// Layers that attend
    #[arg(long, value_name = "N", required_unless_present = "model")]
    layers: Option<u64>,
    /// Attention heads of a layer
    #[arg(long, value_name = "N", required_unless_present = "model")]
    heads: Option<u64>,
    /// Key and value heads of a layer [default: as many as attention heads]
    #[arg(long, value_name = "N")]
    kv_heads: Option<u64>,
    /// Width of the model, which its heads share
    #[arg(long, value_name = "N", conflicts_with = "head_dim")]
    d_model: Option<u64>,
    /// Elements of a head, where they are not the width shared among the heads
    #[arg(long, value_name = "N")]
    head_dim: Option<u64>,
    /// Tokens of a sequence [default: 2048; of a model what `tercel run` uses]
    #[arg(long, visible_alias = "context", value_name = "N")]
    ctx: Option<u64>,
    /// Sequences at once
    #[arg(
        long,
        visible_alias = "sequences",
        value_name = "N",
        default_value_t = 1
    )]
    batch: u64,
    /// How keys and values are stored: f16, bf16, f32 or q8_0
    #[arg(long, value_name = "TYPE", default_value = "f16", value_parser = kv_dtype)]
    dtype: KvDtype,
    /// A reserve to add, in percent; 5 to 15 is usual
    #[arg(long, value_name = "PERCENT", default_value_t = 10.0, value_parser = percent)]
    margin: f64,
    /// Show a table over several lengths and numbers of sequences
    #[arg(long)]
    table: bool,
    /// Print one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Tokens of a sequence where nothing is said.
const DEFAULT_TOKENS: u64 = 2048;

pub(crate) fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let (shape, tokens, engine) = match &args.model {
        Some(model) => of_model(model, args)?,
        None => (of_numbers(args)?, args.ctx.unwrap_or(DEFAULT_TOKENS), None),
    };
    let size = KvSize::new(shape, args.batch, tokens, args.dtype).map_err(|error| wrong(&error))?;
    let rows = match args.table {
        true => table(&size)?,
        false => Vec::new(),
    };
    if args.json {
        return context.out.json(&Everything {
            bytes: size.bytes(),
            mebibytes: size.mebibytes(),
            margin_percent: args.margin,
            bytes_with_margin: size.bytes_with_margin(args.margin),
            mebibytes_with_margin: size.mebibytes_with_margin(args.margin),
            bytes_per_token: size.bytes_per_token(),
            bytes_by_mistake: size.bytes_by_mistake(),
            dtype: size.dtype(),
            terms: size.terms(),
            engine_bytes: engine.as_ref().map(Fit::kv_bytes),
            table: args.table.then(|| rows.iter().map(Row::of).collect()),
        });
    }
    show(&size, args.margin, context.out)?;
    if let Some(engine) = engine {
        show_engine(&size, &engine, context.out)?;
    }
    if args.table {
        context.out.line("")?;
        show_table(&rows, args.margin, context.out)?;
    }
    Ok(())
}

fn of_numbers(args: &Args) -> Result<KvShape, Failure> {
    // The parser has seen to it that the first two are given.
    let (layers, heads) = (args.layers.unwrap_or(0), args.heads.unwrap_or(0));
    let kv_heads = args.kv_heads.unwrap_or(heads);
    let shape = match (args.head_dim, args.d_model) {
        (Some(head_dim), _) => KvShape::new(layers, heads, kv_heads, head_dim),
        (None, Some(d_model)) => KvShape::of_width(layers, heads, kv_heads, d_model),
        (None, None) => {
            let problem = "give the width of the model with --d-model, or that of a head with \
                           --head-dim";
            return Err(Failure::Usage(problem.to_owned()));
        }
    };
    shape.map_err(|error| wrong(&error))
}

/// The shape of a model, the tokens to reckon with, and what an engine would take, where it has
/// such a type.
fn of_model(model: &str, args: &Args) -> Result<(KvShape, u64, Option<Fit>), Failure> {
    let blueprint = fit::open(model)?;
    let mut options = FitOptions::default();
    options.max_context = args.ctx.and_then(|tokens| usize::try_from(tokens).ok());
    options.sequences = Some(usize::try_from(args.batch).unwrap_or(usize::MAX));
    let as_default = blueprint.fit(&options)?;
    let shape = as_default.kv_shape().map_err(|error| wrong(&error))?;
    let tokens = as_default.max_context as u64;
    let engine = if args.dtype == as_default.kv_type {
        Some(as_default)
    } else {
        options.kv = args.dtype;
        blueprint.fit(&options).ok()
    };
    Ok((shape, tokens, engine))
}

fn table(size: &KvSize) -> Result<Vec<KvSize>, Failure> {
    const SEQUENCES: [u64; 4] = [1, 2, 4, 8];
    const TOKENS: [u64; 5] = [512, 1024, 2048, 4096, 8192];
    let with = |usual: &[u64], asked: u64| {
        let mut all = usual.to_vec();
        all.push(asked);
        all.sort_unstable();
        all.dedup();
        all
    };
    let sequences = with(&SEQUENCES, size.sequences());
    let tokens = with(&TOKENS, size.tokens());
    size.table(&sequences, &tokens)
        .map_err(|error| wrong(&error))
}

#[derive(Serialize)]
struct Everything {
    bytes: u64,
    mebibytes: f64,
    margin_percent: f64,
    bytes_with_margin: u64,
    mebibytes_with_margin: f64,
    bytes_per_token: u64,
    /// With attention heads counted in place of key heads.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_by_mistake: Option<u64>,
    dtype: KvDtype,
    terms: Vec<Term>,
    /// What an engine takes for its KV cache, pages and windows included.
    #[serde(skip_serializing_if = "Option::is_none")]
    engine_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    table: Option<Vec<Row>>,
}

#[derive(Serialize)]
struct Row {
    tokens: u64,
    sequences: u64,
    bytes: u64,
    mebibytes: f64,
}

impl Row {
    fn of(size: &KvSize) -> Self {
        Self {
            tokens: size.tokens(),
            sequences: size.sequences(),
            bytes: size.bytes(),
            mebibytes: size.mebibytes(),
        }
    }
}

fn show(size: &KvSize, margin: f64, out: Output) -> Result<(), Failure> {
    let rows: Vec<[String; 3]> = size
        .terms()
        .into_iter()
        .map(|term| {
            [
                term.name.replace('_', " "),
                term.value.to_string(),
                term.product.to_string(),
            ]
        })
        .collect();
    for line in format::table(["TERM", "VALUE", "PRODUCT"], &[1, 2], &rows) {
        out.line(&line)?;
    }
    out.line("")?;
    out.line(&format!(
        "{} bytes, {}",
        size.bytes(),
        mebibytes(size.mebibytes())
    ))?;
    out.line(&format!(
        "with a margin of {margin} %: {}",
        mebibytes(size.mebibytes_with_margin(margin))
    ))?;
    out.line(&format!("a token takes {} bytes", size.bytes_per_token()))?;
    if let Some(mistaken) = size.bytes_by_mistake() {
        let (heads, kv_heads) = (size.shape().heads(), size.shape().kv_heads());
        let share = match kv_heads {
            1 => "1 key head".to_owned(),
            n => format!("{n} key heads"),
        };
        out.line(&format!(
            "{heads} attention heads share {share}; counting attention heads would give {}, {} \
             times as much",
            mebibytes(mistaken as f64 / 1_048_576.0),
            heads / kv_heads
        ))?;
    }
    Ok(())
}

fn show_engine(size: &KvSize, engine: &Fit, out: Output) -> Result<(), Failure> {
    let taken = engine.kv_bytes();
    let why = match taken.cmp(&size.bytes()) {
        std::cmp::Ordering::Equal => "just that",
        std::cmp::Ordering::Greater => "more: its pages are whole",
        std::cmp::Ordering::Less => "less: layers with a window keep what they see",
    };
    let taken = mebibytes(taken as f64 / 1_048_576.0);
    out.line(&format!("an engine takes {taken}, {why}"))
}

fn show_table(rows: &[KvSize], margin: f64, out: Output) -> Result<(), Failure> {
    let rows: Vec<[String; 5]> = rows
        .iter()
        .map(|size| {
            [
                size.tokens().to_string(),
                size.sequences().to_string(),
                size.bytes().to_string(),
                number(size.mebibytes()),
                number(size.mebibytes_with_margin(margin)),
            ]
        })
        .collect();
    let header = ["TOKENS", "SEQUENCES", "BYTES", "MiB", "WITH MARGIN"];
    for line in format::table(header, &[0, 1, 2, 3, 4], &rows) {
        out.line(&line)?;
    }
    Ok(())
}

fn mebibytes(size: f64) -> String {
    format!("{} MiB", number(size))
}

/// At most two digits behind the point, and none that say nothing.
fn number(size: f64) -> String {
    let text = format!("{size:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn wrong(error: &KvSizeError) -> Failure {
    Failure::new("invalid_parameter", error.to_string())
}

fn percent(text: &str) -> Result<f64, String> {
    let percent: f64 = text.parse().map_err(|_| "it is no number".to_owned())?;
    if (0.0..=1000.0).contains(&percent) {
        Ok(percent)
    } else {
        Err("it is not in 0 to 1000".to_owned())
    }
}
