//! The `tercel` command.
#![forbid(unsafe_code)]

mod args;
mod chat;
mod cli;
mod commands;
mod config;
mod context;
mod failure;
mod files;
mod format;
mod interrupt;
mod load;
mod output;
mod progress;
mod reply;
mod session;
mod terminal;
mod work;

fn main() -> std::process::ExitCode {
    cli::main()
}
