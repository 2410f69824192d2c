//! `tercel validate`: whether a model computes what it should.

use std::ops::ControlFlow;
use std::path::Path;

use tercel::cores::CoreSet;
use tercel::{ModelFiles, source::LocalModel};
use tercel_eval::{PromptReport, Reference, ReferenceFile, ValidateOptions, Validation, validate};

use crate::args::keep_to;
use crate::config::Settings;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::Output;
use crate::terminal::one_line;
use crate::{format, load};

/// Compare a model's numbers with those of a reference
///
/// Both get the same tokens. The logits at every position are compared, then the greedy
/// continuation. What does not pass comes with where to look for the cause.
///
/// The reference is another model, or a file `*.safetensors` with `input_ids` (n), `logits`
/// (n, vocabulary) in single floats and, if wanted, `greedy_ids`.
///
/// With --exact a logit may differ by 0.002. Without, on prompts of up to 64 tokens the most likely
/// token must be the same everywhere, on longer ones four of the five most likely at half of the
/// positions, and greedy decoding may part only where the choice is as close as the logits differ.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  tercel validate converted.gguf original-model/
  tercel validate model/ reference.safetensors
  tercel validate model/ model/ --quantize q4_k

Exit code: 0 if all prompts pass, 1 if not.")]
pub(crate) struct Args {
    /// A model on this machine
    model: String,
    /// Another model on this machine, or a file of logits
    reference: String,
    /// Compute with single floats on both sides, and expect the same numbers [default: against a
    /// file of logits]
    #[arg(long)]
    exact: bool,
    /// Compute as `tercel run` does, even against a file of logits
    #[arg(long, conflicts_with = "exact")]
    as_stored: bool,
    /// Quantize the model, not the reference, as it is loaded: q8_0, q6_k, q5_k, q4_k, q4_0, ...
    #[arg(long, value_name = "TYPE", conflicts_with = "exact")]
    quantize: Option<String>,
    /// The largest difference that a logit may have, in place of the usual one
    #[arg(long, value_name = "X")]
    max_abs: Option<f64>,
    /// Tokens of the longest prompt and its continuation together
    #[arg(long, value_name = "N", default_value_t = 256)]
    max_context: usize,
    /// Tokens to continue each prompt with, 1 to 1024
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = greedy_tokens)]
    greedy: usize,
    /// Show every position
    #[arg(long)]
    positions: bool,
    /// Compute threads; results do not depend on their number [default: physical cores]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Keep the whole process to these processors, such as 0-3,6 [default: all that it may use]
    #[arg(long, value_name = "LIST")]
    cores: Option<CoreSet>,
    /// Print one line of JSON, with every position
    #[arg(long)]
    pub(crate) json: bool,
}

fn greedy_tokens(text: &str) -> Result<usize, String> {
    let tokens = text.parse::<usize>().map_err(|error| error.to_string())?;
    let fits = (1..=1024).contains(&tokens);
    fits.then_some(tokens)
        .ok_or_else(|| "must be 1 to 1024".to_owned())
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let model = ModelFiles::of(&load::local(&args.model)?)?;
    let mut options = ValidateOptions::default();
    options.exact = match (args.exact, args.as_stored) {
        (true, _) => Some(true),
        (_, true) => Some(false),
        _ => None,
    };
    options.quantize.clone_from(&args.quantize);
    options.max_abs = args.max_abs;
    options.max_context = args.max_context;
    options.greedy_tokens = args.greedy;
    let mut settings = Settings::of(&args.model)?;
    let mut cores = args.cores.clone();
    options.threads = args.threads;
    settings.fill("threads", &mut options.threads, |own| own.threads);
    settings.fill("cores", &mut cores, |own| own.cores.clone());
    keep_to(cores.as_ref()).map_err(|failure| settings.explain(failure))?;
    let on_prompt = |_: &PromptReport| {
        if context.interrupt.is_hit() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let report = if is_file_of_logits(&args.reference) {
        let file = ReferenceFile::open(&args.reference)?;
        validate(&model, &Reference::File(&file), &options, on_prompt)?
    } else {
        let local: LocalModel = load::local(&args.reference)?;
        let other = ModelFiles::of(&local)?;
        validate(&model, &Reference::Model(&other), &options, on_prompt)?
    };
    for note in &report.notes {
        context.note(note);
    }
    if context.out.is_json() {
        context.out.json(&report)?;
    } else {
        show(&report, args.positions, context.out)?;
    }
    if report.passed {
        Ok(())
    } else {
        Err(Failure::Reported)
    }
}

fn is_file_of_logits(reference: &str) -> bool {
    let path = Path::new(reference);
    path.extension()
        .is_some_and(|ending| ending == "safetensors")
        && !path.is_dir()
}

fn show(report: &Validation, positions: bool, out: Output) -> Result<(), Failure> {
    let rows: Vec<_> = report.prompts.iter().map(prompt_row).collect();
    let header = [
        "PROMPT", "TOKENS", "MAX ABS", "MSE", "MATCH", "TOP 5", "GREEDY", "RESULT",
    ];
    for line in format::table(header, &[1, 2, 3, 4, 5, 6], &rows) {
        out.line(&line)?;
    }
    if positions {
        for prompt in &report.prompts {
            show_positions(prompt, out)?;
        }
    }
    out.line("")?;
    let arithmetic = if report.exact {
        "in single floats"
    } else {
        "as stored"
    };
    out.entry(
        "logits",
        &format!(
            "{arithmetic}: max_abs {}, mse {}, match_rate {}, avg_overlap {}",
            number(report.max_abs),
            number(report.mse),
            percent(report.match_rate),
            percent(report.avg_overlap)
        ),
    )?;
    if let Some(advice) = report.advice {
        out.entry("triage", advice)?;
    }
    out.entry("result", if report.passed { "passed" } else { "failed" })
}

fn prompt_row(prompt: &PromptReport) -> [String; 8] {
    let result = prompt.failure.unwrap_or("ok").to_owned();
    let start: String = prompt.prompt.chars().take(PROMPT_WIDTH).collect();
    let more = if start.len() < prompt.prompt.len() {
        "..."
    } else {
        ""
    };
    let text = format!("{}{more}", one_line(&start));
    let tokens = prompt.tokens.to_string();
    if !prompt.ids_equal {
        let none = || "-".to_owned();
        return [text, tokens, none(), none(), none(), none(), none(), result];
    }
    let greedy = match &prompt.greedy {
        None => "-".to_owned(),
        Some(greedy) => {
            let same = greedy.differs_at.unwrap_or(greedy.tokens);
            format!("{same}/{}", greedy.tokens)
        }
    };
    [
        text,
        tokens,
        number(prompt.max_abs),
        number(prompt.mse),
        percent(prompt.match_rate),
        percent(prompt.avg_overlap),
        greedy,
        result,
    ]
}

/// Characters of a prompt that a table shows.
const PROMPT_WIDTH: usize = 30;

fn show_positions(prompt: &PromptReport, out: Output) -> Result<(), Failure> {
    out.line("")?;
    let start: String = prompt.prompt.chars().take(PROMPT_WIDTH).collect();
    out.line(&one_line(&start))?;
    let rows: Vec<_> = prompt
        .positions
        .iter()
        .map(|position| {
            [
                position.position.to_string(),
                number(position.max_abs),
                number(position.mse),
                if position.argmax_equal { "yes" } else { "no" }.to_owned(),
                percent(position.overlap),
            ]
        })
        .collect();
    let header = ["POSITION", "MAX ABS", "MSE", "MATCH", "TOP 5"];
    let lines = format::table(header, &[0, 1, 2, 4], &rows);
    lines.iter().try_for_each(|line| out.line(line))
}

/// Three digits that count, whatever the size.
fn number(value: f64) -> String {
    if value == 0.0 {
        "0".to_owned()
    } else if (0.001..1000.0).contains(&value) {
        format!("{value:.4}")
    } else {
        format!("{value:.2e}")
    }
}

fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}
