//! What all programs have in common that are measured.

use std::ffi::OsStr;
use std::process::Command;

use anyhow::Result;

use super::metric::{Job, Metric};
use super::subject::Subject;

/// A program that runs models.
pub(crate) trait Peer {
    /// As `--only` names it.
    fn name(&self) -> &'static str;

    /// Version, commit, and how it was built.
    fn version(&self) -> String;

    /// Runs a job in a process of its own.
    ///
    /// # Errors
    /// When the program cannot do this, in words that say why.
    fn measure(&self, job: Job, subject: &Subject, threads: u32) -> Result<Reading>;
}

/// What a process gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Reading {
    pub(crate) values: Vec<(Metric, f64)>,
    /// The most memory that the process held.
    pub(crate) peak_bytes: Option<u64>,
    /// As it could be typed, with MODEL for the file.
    pub(crate) command: String,
}

/// Where Tercel looks for the user's settings.
pub(crate) const HOME: &str = "TERCEL_HOME";

/// A command as it could be typed, with MODEL for the file and without what only makes sure that
/// the defaults are measured.
pub(crate) fn shown(command: &Command, subject: &Subject) -> String {
    let program = std::path::Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str());
    let variables = command.get_envs().filter_map(|(name, value)| {
        let value = value.filter(|_| name != HOME)?.to_string_lossy();
        Some(format!("{}={value}", name.to_string_lossy()))
    });
    let args = command.get_args().map(|arg| {
        if arg == subject.path.as_os_str() {
            return "MODEL".to_owned();
        }
        quoted(arg)
    });
    let words = variables.chain([quoted(name)]).chain(args);
    words.collect::<Vec<_>>().join(" ")
}

fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    if word.contains(char::is_whitespace) {
        return format!("\"{word}\"");
    }
    word.into_owned()
}
