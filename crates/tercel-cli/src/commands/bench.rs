//! `tercel bench`: how fast a model answers on this machine.

use std::ops::ControlFlow;

use tercel::Engine;
use tercel_eval::{BenchOptions, BenchReport, BenchRun, Percentiles, Verdict, bench};

use crate::args::EngineArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::Line;
use crate::{format, load};

/// Measure how fast a model answers: stages, percentiles, and what they say
///
/// Prompts are made up, each another one, so that none is found in the prefix cache; --prompt asks
/// one of yours instead. Replies are greedy and as long as they may be. Several values make a table
/// with a row for each combination.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  tercel bench smollm2:135m
  tercel bench smollm2:135m --prompt-tokens 128,512,2048 --runs 5
  tercel bench smollm2:135m --depth 0,2048,7000 --max-new-tokens 64 --runs 5
  tercel bench smollm2:135m --concurrency 1,8
  tercel bench model.gguf --prompt \"Why is the sky blue?\" --json

MODEL may be left out: then it is the default model, as in `tercel run`.")]
pub(crate) struct Args {
    /// A catalog name, a GGUF file, or hf:org/repo
    #[arg(default_value = "smollm2:135m")]
    model: String,
    /// Tokens of a made-up prompt, at least 1
    #[arg(
        long,
        value_name = "N,..",
        value_delimiter = ',',
        default_value = "512"
    )]
    prompt_tokens: Vec<usize>,
    /// Ask this, in the model's own template
    #[arg(
        short,
        long,
        value_name = "TEXT",
        allow_hyphen_values = true,
        conflicts_with_all = ["prompt_tokens", "depth"]
    )]
    prompt: Option<String>,
    /// Tokens of a reply, at least 1
    #[arg(
        long,
        value_name = "N,..",
        value_delimiter = ',',
        default_value = "128"
    )]
    max_new_tokens: Vec<usize>,
    /// Tokens that were computed before the prompt and are held in the prefix cache
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_value = "0")]
    depth: Vec<usize>,
    /// Requests at once, at least 1
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_value = "1")]
    concurrency: Vec<usize>,
    /// Runs that count, at least 1
    #[arg(long, value_name = "N", default_value_t = 20)]
    runs: usize,
    /// Runs before them that do not
    #[arg(long, value_name = "N", default_value_t = 1)]
    warmup: usize,
    /// Let tokens be guessed ahead; made-up prompts repeat themselves more than people do
    #[arg(long, conflicts_with = "no_speculation")]
    speculation: bool,
    /// Print one JSON object a line, for each combination
    #[arg(long)]
    pub(crate) json: bool,
    /// Print one line of comma-separated values for each request, below a header
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    #[command(flatten)]
    engine: EngineArgs,
}

/// More combinations are a mistake.
const MOST_COMBINATIONS: usize = 256;

/// Tokens of context for a prompt of the user's, beside the reply.
const GIVEN_PROMPT: usize = 2048;

pub(crate) fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let combinations = args.combinations()?;
    let most = |of: &dyn Fn(&BenchOptions) -> usize| combinations.iter().map(of).max().unwrap_or(1);
    let builder = Engine::builder(&args.model)
        .max_context(most(&BenchOptions::context))
        .max_sequences(most(&|options| options.concurrency));
    let flags = "--depth, --prompt-tokens and --max-new-tokens";
    let engine = load::measured_engine(builder, &args.model, &args.engine, context)
        .map_err(|failure| load::explain_context(failure, flags))?;
    if args.csv {
        context.out.line(CSV_HEADER)?;
    }
    let mut reports = Vec::new();
    for options in &combinations {
        let mut written = Ok(());
        let measured = bench(&engine, options, |run| {
            if args.csv {
                written = context.out.line(&csv_line(options, run));
            }
            if written.is_err() || context.interrupt.is_hit() {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        });
        written?;
        let report = measured?;
        if context.out.is_json() {
            context.out.json(&Line::Bench(&report))?;
        } else if combinations.len() > 1 && !args.csv {
            context.note(&one_line(&report));
        }
        reports.push(report);
    }
    match reports.as_slice() {
        _ if args.json || args.csv => Ok(()),
        [report] => show(report, context),
        reports => compare(reports, context),
    }
}

impl Args {
    fn combinations(&self) -> Result<Vec<BenchOptions>, Failure> {
        let mut all = Vec::new();
        for concurrency in &self.concurrency {
            for depth in &self.depth {
                for prompt_tokens in &self.prompt_tokens {
                    for max_new_tokens in &self.max_new_tokens {
                        let mut options = BenchOptions::default();
                        options.warmup = self.warmup;
                        options.runs = self.runs;
                        options.prompt_tokens = *prompt_tokens;
                        options.prompt.clone_from(&self.prompt);
                        options.depth = *depth;
                        options.max_new_tokens = *max_new_tokens;
                        options.concurrency = *concurrency;
                        options.speculation = self.speculation;
                        if self.prompt.is_some() {
                            options.prompt_tokens = GIVEN_PROMPT;
                        }
                        all.push(options);
                    }
                }
            }
        }
        for options in &all {
            options.check()?;
        }
        if all.len() > MOST_COMBINATIONS {
            return Err(Failure::Usage(format!(
                "{} combinations are too many: at most {MOST_COMBINATIONS}",
                all.len()
            )));
        }
        Ok(all)
    }
}

const CSV_HEADER: &str = "concurrency,depth,max_new_tokens,run,request,prompt_tokens,cached_tokens,\
out_tokens,format_s,tokenize_s,queue_s,device_transfer_s,prefill_s,decode_s,sampling_s,\
detokenize_s,ttft_s,ttft_e2e_s,tpot_s,total_s,prefill_tokens_per_second,tokens_per_second";

fn csv_line(options: &BenchOptions, run: &BenchRun) -> String {
    let stages = &run.stages;
    let counts = [
        options.concurrency,
        options.depth,
        options.max_new_tokens,
        run.run,
        run.request,
        run.prompt_tokens,
        run.cached_tokens,
        run.out_tokens,
    ];
    let seconds = [
        stages.format_s,
        stages.tokenize_s,
        stages.queue_s,
        stages.device_transfer_s,
        stages.prefill_s,
        stages.decode_s,
        stages.sampling_s,
        stages.detokenize_s,
        run.ttft_s,
        run.ttft_e2e_s,
        run.tpot_s,
        run.total_s,
    ];
    let rates = [run.prefill_tokens_per_second, run.tokens_per_second];
    let counts = counts.iter().map(ToString::to_string);
    let seconds = seconds.iter().map(|seconds| format!("{seconds:.6}"));
    let rates = rates.iter().map(|rate| format!("{rate:.2}"));
    counts
        .chain(seconds)
        .chain(rates)
        .collect::<Vec<_>>()
        .join(",")
}

fn what(report: &BenchReport) -> String {
    let options = &report.options;
    let prompt = match &options.prompt {
        Some(_) => "the prompt".to_owned(),
        None => format!("{} prompt", options.prompt_tokens),
    };
    let mut text = format!("{prompt} + {} new tokens", options.max_new_tokens);
    if options.depth > 0 {
        text += &format!(" after {}", options.depth);
    }
    if options.concurrency > 1 {
        text += &format!(", {} at once", options.concurrency);
    }
    text
}

fn one_line(report: &BenchReport) -> String {
    format!(
        "{}: ttft {}, prefill {}, decode {} tok/s",
        what(report),
        ms(report.ttft_ms.p50),
        rate(report.prefill_tokens_per_second.p50),
        rate(report.tokens_per_second.p50),
    )
}

/// One combination, in full.
fn show(report: &BenchReport, context: &Context) -> Result<(), Failure> {
    let out = context.out;
    let options = &report.options;
    out.line(&format!(
        "{}: {}, {}, {}, {} after {} to warm up",
        report.model,
        what(report),
        report.backend,
        threads(report),
        format::plural(options.runs, "run"),
        options.warmup,
    ))?;
    out.line("")?;
    let total = report.total_ms.mean;
    let row = |name: &str, of: &Percentiles, share: bool| {
        let share = match share {
            true if total > 0.0 => format!("{:.1} %", 100.0 * of.mean / total),
            _ => String::new(),
        };
        [
            name.to_owned(),
            ms(of.mean),
            ms(of.p50),
            ms(of.p90),
            ms(of.p95),
            ms(of.p99),
            share,
        ]
    };
    let stages = report.stages_ms.iter();
    let mut rows: Vec<_> = stages
        .map(|stage| row(stage.name, &stage.ms, true))
        .collect();
    rows.push(row("total", &report.total_ms, false));
    rows.push([const { String::new() }; 7]);
    rows.push(row("first token", &report.ttft_ms, false));
    rows.push(row("further token", &report.tpot_ms, false));
    if let Some(gaps) = &report.gap_ms {
        rows.push(row("between tokens", gaps, false));
    }
    let header = ["STAGE", "MEAN MS", "P50", "P90", "P95", "P99", "SHARE"];
    for line in format::table(header, &[1, 2, 3, 4, 5, 6], &rows) {
        out.line(&line)?;
    }
    out.line("")?;
    let rates = |of: &Percentiles| {
        format!(
            "{} tokens/s (p5 {}, p10 {}, p95 {})",
            rate(of.p50),
            rate(of.p5),
            rate(of.p10),
            rate(of.p95)
        )
    };
    out.entry("prefill", &rates(&report.prefill_tokens_per_second))?;
    out.entry("decode", &rates(&report.tokens_per_second))?;
    if options.concurrency > 1 {
        out.entry("all", &rates(&report.total_tokens_per_second))?;
    }
    let first = ms(report.first_request_ttft_ms);
    let load = format::seconds(report.load_seconds);
    out.entry(
        "load",
        &format!("{load}, first request's first token {first} ms"),
    )?;
    if let Some(bytes) = report.peak_rss_bytes {
        out.entry("peak memory", &format::bytes(bytes))?;
    }
    out.line("")?;
    for suspect in &report.suspects {
        out.line(&format!("diagnosis: {suspect}"))?;
    }
    match report.verdict {
        Verdict::Steady if !report.suspects.is_empty() => Ok(()),
        verdict => out.line(&format!("diagnosis: {verdict}")),
    }
}

/// Several combinations, a row each.
fn compare(reports: &[BenchReport], context: &Context) -> Result<(), Failure> {
    let header = [
        "AT ONCE",
        "DEPTH",
        "PROMPT",
        "NEW",
        "TTFT MS",
        "P95",
        "PREFILL T/S",
        "TOKEN MS",
        "P95",
        "P99",
        "DECODE T/S",
        "ALL T/S",
    ];
    let row = |report: &BenchReport| {
        let options = &report.options;
        let gaps = report.gap_ms.unwrap_or_default();
        [
            options.concurrency.to_string(),
            options.depth.to_string(),
            match options.prompt {
                Some(_) => "own".to_owned(),
                None => options.prompt_tokens.to_string(),
            },
            options.max_new_tokens.to_string(),
            ms(report.ttft_ms.p50),
            ms(report.ttft_ms.p95),
            rate(report.prefill_tokens_per_second.p50),
            ms(gaps.p50),
            ms(gaps.p95),
            ms(gaps.p99),
            rate(report.tokens_per_second.p50),
            rate(report.total_tokens_per_second.p50),
        ]
    };
    let rows: Vec<_> = reports.iter().map(row).collect();
    let right: Vec<usize> = (0..header.len()).collect();
    for line in format::table(header, &right, &rows) {
        context.out.line(&line)?;
    }
    let Some(first) = reports.first() else {
        return Ok(());
    };
    context.out.line(&format!(
        "{}, {}, {}, medians of {}",
        first.model,
        first.backend,
        threads(first),
        format::plural(first.options.runs, "run"),
    ))
}

fn threads(report: &BenchReport) -> String {
    match &report.cores {
        Some(cores) => format::threads_on(report.threads, cores),
        None => format::plural(report.threads, "thread"),
    }
}

fn ms(milliseconds: f64) -> String {
    match milliseconds {
        ms if ms < 10.0 => format!("{ms:.2}"),
        ms if ms < 1000.0 => format!("{ms:.1}"),
        ms => format!("{ms:.0}"),
    }
}

fn rate(rate: f64) -> String {
    match rate {
        rate if rate < 100.0 => format!("{rate:.1}"),
        rate => format!("{rate:.0}"),
    }
}
