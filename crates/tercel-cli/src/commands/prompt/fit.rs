//! `tercel prompt fit`: a prompt within a budget, block by block.

use std::cell::Cell;
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde::Serialize;
use tercel::{
    BlockOutcome, BlockReport, BudgetReport, ContextBudget, ContextBuilder, Message, ModelFiles,
    PromptCounter, TokenCounter, ToolBudget, ToolScope,
};

use crate::context::Context;
use crate::failure::Failure;
use crate::files::read_text;
use crate::terminal::one_line;
use crate::{format, load};

/// Fit a prompt into a context, and show what each part takes
///
/// FILE is a JSON object of system, summary, turns (objects of user and assistant), tools (objects
/// of name and text, or chunks), user, and budget. A text is a string, or an object of text and
/// tokens, of which one is enough. Options come before the budget in the file.
///
/// System text and latest message stay whatever happens. Outputs of tools are cut between their
/// chunks (paragraphs, JSON fields or items) before turns go, the oldest first, and turns before
/// lines of the summary.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  tercel prompt fit prompt.json --model smollm2:135m
  tercel prompt fit prompt.json --context 4096 --max-new-tokens 256 --json")]
pub(super) struct Args {
    /// The parts of the prompt
    file: PathBuf,
    /// A model on this machine, whose template and tokens count [default: the tokens that FILE
    /// names, else a token for four bytes]
    #[arg(short, long, value_name = "MODEL")]
    model: Option<String>,
    /// Tokens that prompt and reply may have together [default: 4096]
    #[arg(long, value_name = "N")]
    context: Option<usize>,
    /// Tokens kept free for the reply [default: 512]
    #[arg(long, value_name = "N")]
    max_new_tokens: Option<usize>,
    /// Tokens kept free for errors of counting [default: 0]
    #[arg(long, value_name = "N")]
    margin_tokens: Option<usize>,
    /// The most tokens of the summary
    #[arg(long, value_name = "N")]
    summary_tokens: Option<usize>,
    /// The most tokens of tool outputs
    #[arg(long, value_name = "N", requires = "tool_scope")]
    tool_tokens: Option<usize>,
    /// Of what --tool-tokens is the limit: per_output or per_request
    #[arg(
        long,
        value_name = "SCOPE",
        requires = "tool_tokens",
        value_parser = PossibleValuesParser::new(["per_output", "per_request"]).map(|scope| {
            match scope.as_str() {
                "per_output" => ToolScope::PerOutput,
                _ => ToolScope::PerRequest,
            }
        }),
    )]
    tool_scope: Option<ToolScope>,
    /// The most turns, from the latest
    #[arg(long, value_name = "N")]
    window_turns: Option<usize>,
    /// The most tokens of turns, from the latest
    #[arg(long, value_name = "N")]
    window_tokens: Option<usize>,
    /// Use no template: a text of `System:`, `State:`, `User:` and `Assistant:`
    #[arg(long)]
    plain: bool,
    /// Print one line of JSON: the report, and the prompt
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Serialize)]
struct Fitted {
    report: BudgetReport,
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<Vec<Message>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

/// More than any context holds.
const MOST_BYTES: u64 = 64 << 20;

pub(super) fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let text = read_text("prompt file", &args.file, MOST_BYTES)?;
    let mut builder: ContextBuilder = serde_json::from_str(&text).map_err(|error| {
        let message = format!("{}: {error}", args.file.display());
        Failure::new("invalid_prompt", message)
    })?;
    args.change(builder.budget_mut());
    let budget = builder.budget_mut().clone();
    let fitted = match &args.model {
        Some(model) => {
            let counter = PromptCounter::of(&ModelFiles::of(&load::local(model)?)?)?;
            args.fit(&builder, &counter)?
        }
        None => {
            let is_estimate = Cell::new(false);
            let estimate = |text: &str| {
                is_estimate.set(true);
                text.len().div_ceil(4)
            };
            let fitted = args.fit(&builder, &estimate)?;
            if is_estimate.get() {
                context
                    .note("counts are estimates, a token for four bytes; --model counts exactly");
            }
            fitted
        }
    };
    let out = context.out;
    if args.json {
        return out.json(&fitted);
    }
    out.line(&format!(
        "{} of context - {} for the reply - {} of margin = {} for the prompt",
        format::plural(budget.max_context_tokens, "token"),
        budget.max_new_tokens,
        budget.margin_tokens,
        fitted.report.budget_tokens
    ))?;
    let rows: Vec<[String; 5]> = fitted.report.blocks.iter().map(row).collect();
    for line in format::table(["block", "tokens", "taken", "left", ""], &[1, 2, 3], &rows) {
        out.line(&line)?;
    }
    Ok(())
}

impl Args {
    fn change(&self, budget: &mut ContextBudget) {
        let set = |field: &mut usize, value: Option<usize>| *field = value.unwrap_or(*field);
        set(&mut budget.max_context_tokens, self.context);
        set(&mut budget.max_new_tokens, self.max_new_tokens);
        set(&mut budget.margin_tokens, self.margin_tokens);
        budget.summary_tokens = self.summary_tokens.or(budget.summary_tokens);
        budget.window_turns = self.window_turns.or(budget.window_turns);
        budget.window_tokens = self.window_tokens.or(budget.window_tokens);
        if let (Some(tokens), Some(scope)) = (self.tool_tokens, self.tool_scope) {
            budget.tool_outputs = Some(ToolBudget { tokens, scope });
        }
    }

    fn fit(&self, builder: &ContextBuilder, counter: &dyn TokenCounter) -> Result<Fitted, Failure> {
        if self.plain {
            let (text, report) = builder.text(counter)?;
            return Ok(Fitted {
                report,
                messages: None,
                text: Some(text),
            });
        }
        let (messages, report) = builder.messages(counter)?;
        Ok(Fitted {
            report,
            messages: Some(messages),
            text: None,
        })
    }
}

fn row(block: &BlockReport) -> [String; 5] {
    let name = match &block.name {
        Some(name) => format!("{} {}", block.kind, one_line(name)),
        None => block.kind.to_string(),
    };
    let reason = block
        .reason
        .map_or_else(String::new, |limit| format!(" ({limit})"));
    let note = match block.outcome {
        BlockOutcome::Kept => String::new(),
        BlockOutcome::Shortened => {
            format!(
                "{} left out{reason}",
                format::plural(block.dropped_parts, "part")
            )
        }
        outcome => format!("{outcome}{reason}"),
    };
    [
        name,
        block.tokens.to_string(),
        block.kept_tokens.to_string(),
        block.remaining_tokens.to_string(),
        note,
    ]
}
