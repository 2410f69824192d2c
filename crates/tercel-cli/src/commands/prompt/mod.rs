//! `tercel prompt`: prompts before they are asked.

mod count;
mod fit;

use clap::Subcommand;

use crate::context::Context;
use crate::failure::Failure;

/// Count the tokens of prompts, and fit one into a context
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Fit(fit::Args),
    Count(count::Args),
}

impl Args {
    /// Whether standard output carries JSON.
    pub(crate) fn json(&self) -> bool {
        match &self.command {
            Command::Fit(args) => args.json,
            Command::Count(args) => args.json,
        }
    }
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    match &args.command {
        Command::Fit(args) => fit::run(args, context),
        Command::Count(args) => count::run(args, context),
    }
}
