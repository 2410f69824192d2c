//! `tercel verify`: whether a model's files belong together.

use serde::Serialize;
use tercel::source::Store;
use tercel::{Outcome, Verification, VerifyOptions, verify};

use crate::context::Context;
use crate::failure::Failure;
use crate::output::Output;
use crate::terminal::one_line;
use crate::{format, load};

/// Check that a model's files are whole and belong together
///
/// Looks at the configuration, every tensor, the tokenizer with its special tokens, and the chat
/// template. Each fault is a line, whatever else is wrong. Whether the numbers are right is for
/// `tercel validate` to say.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  tercel verify smollm2:135m
  tercel verify converted-model/ --deep
  tercel verify model.gguf --json

Exit code: 0 if nothing failed, 1 if something did.")]
pub(crate) struct Args {
    /// A model on this machine
    model: String,
    /// Load the model too, and see whether its replies end
    #[arg(long)]
    deep: bool,
    /// Print one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let store = Store::open_default()?;
    let model = store.parse(&args.model)?;
    let found = match store.find(&model) {
        Ok(Some(local)) => Ok(local),
        Ok(None) => return Err(load::not_here(&model)),
        Err(error) => Err(error),
    };
    let mut options = VerifyOptions::default();
    options.deep = args.deep;
    let report = verify(found, options)?;
    let outcome = report.outcome();
    if context.out.is_json() {
        context.out.json(&Everything {
            outcome,
            report: &report,
        })?;
    } else {
        show(&report, context.out)?;
    }
    if outcome == Outcome::Fail {
        return Err(Failure::Reported);
    }
    Ok(())
}

#[derive(Serialize)]
struct Everything<'a> {
    outcome: Outcome,
    #[serde(flatten)]
    report: &'a Verification,
}

fn show(report: &Verification, out: Output) -> Result<(), Failure> {
    let rows: Vec<_> = report
        .checks
        .iter()
        .map(|check| {
            [
                check.outcome.name().to_owned(),
                check.check.to_owned(),
                shortened(&check.detail, DETAIL_WIDTH),
            ]
        })
        .collect();
    for line in format::table(["OUTCOME", "CHECK", "DETAIL"], &[], &rows) {
        out.line(&line)?;
    }
    if !report.prompts.is_empty() {
        out.line("")?;
        let rows: Vec<_> = report
            .prompts
            .iter()
            .map(|prompt| {
                [
                    shortened(&prompt.prompt, PROMPT_WIDTH),
                    prompt.tokens.to_string(),
                    prompt.max_id.to_string(),
                    one_line(&prompt.decoded).into_owned(),
                ]
            })
            .collect();
        for line in format::table(["PROMPT", "TOKENS", "MAX ID", "DECODED"], &[1, 2], &rows) {
            out.line(&line)?;
        }
    }
    out.line("")?;
    let failed = report
        .checks
        .iter()
        .filter(|check| check.outcome == Outcome::Fail);
    let warned = report
        .checks
        .iter()
        .filter(|check| check.outcome == Outcome::Warn);
    out.line(&match (failed.count(), warned.count()) {
        (0, 0) => "Verification complete.".to_owned(),
        (0, warned) => format!(
            "Verification complete, {}.",
            format::plural(warned, "warning")
        ),
        (failed, _) => format!("Verification failed: {}.", format::plural(failed, "fault")),
    })
}

/// Characters of a detail and of a prompt that a table shows.
const DETAIL_WIDTH: usize = 300;
const PROMPT_WIDTH: usize = 40;

fn shortened(text: &str, most: usize) -> String {
    let line = one_line(text);
    if line.chars().count() <= most {
        return line.into_owned();
    }
    let start: String = line.chars().take(most).collect();
    format!("{start}...")
}
