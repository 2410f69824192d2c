//! `tercel config check`: what a configuration of a KV cache amounts to.

use std::fs;
use std::path::PathBuf;

use serde::Serialize;
use tercel::Outcome;
use tercel::memory::{
    ConfigFormat, FitOptions, KvConfig, KvConfigReport, KvConfigSubject, KvDtype, Severity,
    available_bytes,
};

use crate::args::{byte_size, kv_dtype};
use crate::commands::fit;
use crate::context::Context;
use crate::failure::Failure;
use crate::format;
use crate::terminal::one_line;

/// Check the configuration of a KV cache, and turn its page caps into bytes
///
/// Every key must be known. The caps are compared with the context and with the memory. Without
/// --model or the heads, 8 key heads of 128 elements are assumed.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  tercel config check edge-llm-kv.yaml --budget 4GiB
  tercel config check kv.toml --model model.gguf --json

Exit code: 0 if nothing failed, 1 if something did.")]
pub(super) struct Args {
    /// A YAML, TOML or JSON file
    file: PathBuf,
    /// The model it is for: one on this machine, or a config.json
    #[arg(long, conflicts_with_all = ["kv_heads", "head_dim"])]
    model: Option<String>,
    /// Key and value heads of a layer
    #[arg(long, value_name = "N")]
    kv_heads: Option<u64>,
    /// Elements of a head
    #[arg(long, value_name = "N")]
    head_dim: Option<u64>,
    /// How keys and values are stored: f16, bf16, f32 or q8_0
    #[arg(long, value_name = "TYPE", default_value = "f16", value_parser = kv_dtype)]
    kv: KvDtype,
    /// What all pages may take, such as 2GiB [default: what the machine has free]
    #[arg(long, value_name = "SIZE", value_parser = byte_size)]
    budget: Option<u64>,
    /// Print one line of JSON
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let extension = args.file.extension().unwrap_or_default().to_string_lossy();
    let format = ConfigFormat::of_extension(&extension).ok_or_else(|| {
        let name = args.file.display();
        let problem = format!("{name} is named neither .yaml, .yml, .toml nor .json");
        Failure::new("invalid_config", problem)
    })?;
    let text = fs::read_to_string(&args.file)
        .map_err(|error| Failure::unreadable("configuration", &args.file, &error))?;
    let config = KvConfig::parse(&text, format).map_err(|error| {
        let problem = format!("{}: {error}", args.file.display());
        Failure::new("invalid_config", problem)
    })?;
    let report = config.check(&subject(args)?);
    if args.json {
        context.out.json(&Everything {
            file: &args.file,
            model: &config.model.name,
            report: &report,
        })?;
    } else {
        show(&config, &report, context)?;
    }
    match report.outcome {
        Outcome::Fail => Err(Failure::Reported),
        _ => Ok(()),
    }
}

fn subject(args: &Args) -> Result<KvConfigSubject, Failure> {
    let mut subject = KvConfigSubject::default();
    subject.kv_heads = args.kv_heads;
    subject.head_dim = args.head_dim;
    subject.dtype = args.kv;
    subject.budget_bytes = args.budget.or_else(available_bytes);
    if let Some(model) = &args.model {
        let fit = fit::open(model)?.fit(&FitOptions::default())?;
        subject.kv_heads = Some(fit.model.n_kv_heads as u64);
        subject.head_dim = Some(fit.model.head_dim as u64);
        subject.layers = Some(fit.kv.iter().map(|kv| kv.layers as u64).sum());
        subject.trained_context = Some(fit.model.trained_context as u64);
    }
    Ok(subject)
}

#[derive(Serialize)]
struct Everything<'a> {
    file: &'a PathBuf,
    model: &'a str,
    #[serde(flatten)]
    report: &'a KvConfigReport,
}

fn show(config: &KvConfig, report: &KvConfigReport, context: &Context) -> Result<(), Failure> {
    let out = context.out;
    out.entry("model", &config.model.name)?;
    if let Some(pages) = &report.pages {
        let paging = &config.kv_cache.paging;
        let rows = [
            [
                "a token".to_owned(),
                String::new(),
                format::bytes(pages.bytes_per_token),
            ],
            [
                "a page".to_owned(),
                "1".to_owned(),
                format::bytes(pages.page_bytes),
            ],
            [
                "max_pages_per_sequence".to_owned(),
                paging.max_pages_per_sequence.to_string(),
                format::bytes(pages.max_sequence_bytes),
            ],
            [
                "max_pages_total".to_owned(),
                paging.max_pages_total.to_string(),
                format::bytes(pages.max_total_bytes),
            ],
            [
                "needed".to_owned(),
                pages.needed_total.to_string(),
                format::bytes(pages.needed_total_bytes),
            ],
        ];
        for line in format::table(["WHAT", "PAGES", "SIZE"], &[1, 2], &rows) {
            out.line(&line)?;
        }
        if let Some(budget) = report.budget_bytes {
            out.line(&format!("budget: {}", format::bytes(budget)))?;
        }
    }
    for assumption in &report.assumptions {
        let name = assumption.what.replace('_', "-");
        context.note(&format!("--{name} is taken to be {}", assumption.value));
    }
    out.line("")?;
    for finding in &report.findings {
        let severity = match finding.severity {
            Severity::Error => "error",
            Severity::Warn => "warning",
        };
        let message = one_line(&finding.message);
        out.line(&format!("{severity}: {}: {message}", finding.key))?;
    }
    let count = |severity| {
        let of_kind = report.findings.iter();
        of_kind.filter(|one| one.severity == severity).count()
    };
    out.line(&match (count(Severity::Error), count(Severity::Warn)) {
        (0, 0) => "Nothing is wrong.".to_owned(),
        (0, warned) => format!("It works, with {}.", format::plural(warned, "warning")),
        (failed, _) => format!("It cannot work: {}.", format::plural(failed, "error")),
    })
}
