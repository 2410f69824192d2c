//! From a command line to an exit code.

use std::any::Any;
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use tracing_subscriber::filter::LevelFilter;

use crate::commands::{
    bench, config, convert, fit, inspect, kv_size, list, perplexity, prompt, pull, rm, run, serve,
    tokenize, tune, validate, verify,
};
use crate::context::Context;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::output::{Output, stderr_line};

/// Runs language models on this machine.
///
/// A MODEL is a name of the catalog (`tercel list` shows them), a GGUF file, a directory with one,
/// or a repository of the Hugging Face Hub: hf:org/repo[@revision][:file]. It is fetched when it is
/// first used.
#[derive(Parser)]
#[command(
    name = "tercel",
    version,
    max_term_width = 100,
    propagate_version = true,
    after_help = "Examples:
  tercel run \"Why is the sky blue?\"           ask the default model
  tercel run gemma3:270m \"Once upon a time\"   ask another one
  tercel run                                  chat
  tercel serve                                answer other programs, and a page to chat on
  tercel pull smollm2:135m                    fetch a model for later",
    after_long_help = "Examples:
  tercel run \"Why is the sky blue?\"           ask the default model
  tercel run gemma3:270m \"Once upon a time\"   ask another one
  tercel run                                  chat
  tercel serve                                answer other programs, and a page to chat on
  tercel pull smollm2:135m                    fetch a model for later

Environment:
  TERCEL_HOME      where models and config.toml are kept [default: tercel in the user's cache
                   directory, and in that for configurations]
  TERCEL_LOG       what is logged, as --log
  TERCEL_OFFLINE   1 forbids the network, as HF_HUB_OFFLINE does
  HF_TOKEN         a token for the Hugging Face Hub
  HF_ENDPOINT      another address of the Hub
  HF_HOME          where the Hub's own tools keep their files, which are used too
  NO_COLOR         no colours

Exit codes: 0 success, 1 an error, 2 a bad command line, 130 interrupted by Ctrl-C."
)]
struct Cli {
    /// No progress, notes or statistics on standard error
    #[arg(short, long, global = true, display_order = 900)]
    quiet: bool,
    /// What is logged on standard error: off, error, warn, info or debug [default: warn]
    #[arg(
        long,
        global = true,
        value_name = "LEVEL",
        display_order = 901,
        env = "TERCEL_LOG",
        hide_env = true,
        value_parser = PossibleValuesParser::new(["off", "error", "warn", "info", "debug"])
            .try_map(|level| level.parse::<LevelFilter>()),
    )]
    log: Option<LevelFilter>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(Box<run::Args>),
    Serve(Box<serve::Args>),
    Pull(pull::Args),
    List(list::Args),
    Rm(rm::Args),
    Inspect(inspect::Args),
    Tokenize(tokenize::Args),
    Prompt(prompt::Args),
    Bench(bench::Args),
    Tune(tune::Args),
    Perplexity(perplexity::Args),
    Convert(convert::Args),
    Verify(verify::Args),
    Validate(validate::Args),
    Fit(fit::Args),
    KvSize(kv_size::Args),
    Config(config::Args),
}

impl Command {
    /// Whether standard output carries JSON.
    fn json(&self) -> bool {
        match self {
            Self::Run(args) => args.json,
            Self::List(args) => args.json,
            Self::Inspect(args) => args.json,
            Self::Tokenize(args) => args.json,
            Self::Prompt(args) => args.json(),
            Self::Bench(args) => args.json,
            Self::Tune(args) => args.json,
            Self::Perplexity(args) => args.json,
            Self::Convert(args) => args.json,
            Self::Verify(args) => args.json,
            Self::Validate(args) => args.json,
            Self::Fit(args) => args.json,
            Self::KvSize(args) => args.json,
            Self::Config(args) => args.json(),
            Self::Serve(_) | Self::Pull(_) | Self::Rm(_) => false,
        }
    }
}

/// Runs the command that the process was started with.
pub(crate) fn main() -> ExitCode {
    let Cli {
        quiet,
        log,
        command,
    } = Cli::parse();
    log_to_stderr(log.unwrap_or(LevelFilter::WARN));
    let out = Output::new(command.json());
    report_panics_in_one_line();
    let context = Context {
        quiet,
        out,
        interrupt: Interrupt::install(),
    };
    let result = panic::catch_unwind(AssertUnwindSafe(|| match command {
        Command::Run(args) => run::run(*args, &context),
        Command::Serve(args) => serve::run(&args, &context),
        Command::Pull(args) => pull::run(&args, &context),
        Command::List(args) => list::run(&args, &context),
        Command::Rm(args) => rm::run(&args, &context),
        Command::Inspect(args) => inspect::run(&args, &context),
        Command::Tokenize(args) => tokenize::run(&args, &context),
        Command::Prompt(args) => prompt::run(&args, &context),
        Command::Bench(args) => bench::run(&args, &context),
        Command::Tune(args) => tune::run(&args, &context),
        Command::Perplexity(args) => perplexity::run(&args, &context),
        Command::Convert(args) => convert::run(&args, &context),
        Command::Verify(args) => verify::run(&args, &context),
        Command::Validate(args) => validate::run(&args, &context),
        Command::Fit(args) => fit::run(&args, &context),
        Command::KvSize(args) => kv_size::run(&args, &context),
        Command::Config(args) => config::run(&args, &context),
    }));
    match result {
        Ok(Ok(()) | Err(Failure::ClosedPipe)) => ExitCode::SUCCESS,
        Ok(Err(Failure::Usage(message))) => Cli::command()
            .error(ErrorKind::ArgumentConflict, message)
            .exit(),
        Ok(Err(failure)) => {
            let code = failure.exit_code();
            out.failure(&failure);
            ExitCode::from(code)
        }
        // The hook has told.
        Err(_) => ExitCode::FAILURE,
    }
}

/// Sends the library's log to standard error, where it cannot be mistaken for data.
fn log_to_stderr(level: LevelFilter) {
    let log = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(false);
    // There is no other subscriber in this program.
    let _ = tracing::subscriber::set_global_default(log.finish());
}

/// A fault of Tercel itself is one line too, with what a report of it needs.
fn report_panics_in_one_line() {
    panic::set_hook(Box::new(|info| {
        let place = info
            .location()
            .map_or_else(String::new, |at| format!(" at {at}"));
        let message = message(info.payload());
        stderr_line(&format!("error: internal error{place}: {message}"));
        stderr_line("hint: this is a fault of tercel; please report it with this line");
    }));
}

fn message(payload: &dyn Any) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_of_the_command_line_holds() {
        Cli::command().debug_assert();
    }
}
