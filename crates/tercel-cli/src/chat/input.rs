//! The user's side of a chat: lines with editing and a history.

use std::env;
use std::fs;
use std::path::PathBuf;

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Config, Editor, Helper};

use super::command;
use crate::failure::Failure;
use crate::output::Output;

/// Reads what the user says.
pub(super) struct Input {
    editor: Editor<Chatting, FileHistory>,
    /// Where lines are kept; a chat works without.
    history: Option<PathBuf>,
    interrupted: bool,
}

/// What came of a prompt.
#[derive(Debug, PartialEq)]
pub(super) enum Said {
    Text(String),
    Command(String),
    /// An empty line, or one that was given up.
    Nothing,
    End,
}

impl Input {
    pub(super) fn open() -> Result<Self, Failure> {
        let config = Config::builder()
            .history_ignore_space(true)
            .auto_add_history(false);
        let config = config
            .max_history_size(1000)
            .map_err(|error| failed(&error))?
            .build();
        let history = FileHistory::with_config(&config);
        let mut editor = Editor::with_history(config, history).map_err(|error| failed(&error))?;
        editor.set_helper(Some(Chatting));
        let history = history_file();
        if let Some(path) = &history {
            // A first chat has none, and one that cannot be read is no reason not to talk.
            let _ = editor.load_history(path);
        }
        Ok(Self {
            editor,
            history,
            interrupted: false,
        })
    }

    /// Asks once. The second Ctrl-C in a row is the end.
    pub(super) fn next(&mut self, out: Output) -> Result<Said, Failure> {
        let was_interrupted = std::mem::take(&mut self.interrupted);
        match self.editor.readline("> ") {
            Ok(line) => {
                let said = said(&line);
                if said != Said::Nothing {
                    self.remember(&line);
                }
                Ok(said)
            }
            Err(ReadlineError::Interrupted) if !was_interrupted => {
                self.interrupted = true;
                out.line(&out.style().dim("(Ctrl-C again or Ctrl-D leaves)"))?;
                Ok(Said::Nothing)
            }
            Err(ReadlineError::Interrupted | ReadlineError::Eof) => Ok(Said::End),
            Err(ReadlineError::Signal(_)) => Ok(Said::Nothing),
            Err(error) => Err(failed(&error)),
        }
    }

    fn remember(&mut self, line: &str) {
        if matches!(self.editor.add_history_entry(line), Ok(true))
            && let Some(path) = &self.history
            && self.editor.append_history(path).is_err()
        {
            // Not again in this chat.
            self.history = None;
        }
    }
}

fn failed(error: &ReadlineError) -> Failure {
    Failure::new(
        "unreadable",
        format!("cannot read from the terminal: {error}"),
    )
}

fn said(line: &str) -> Said {
    if line.trim_start().starts_with('/') {
        return Said::Command(line.to_owned());
    }
    let text = joined(line);
    if text.trim().is_empty() {
        Said::Nothing
    } else {
        Said::Text(text)
    }
}

/// The message without the marks that held its lines together.
fn joined(line: &str) -> String {
    let trimmed = line.trim();
    if let Some(inner) = trimmed.strip_prefix(QUOTES) {
        return inner
            .strip_suffix(QUOTES)
            .unwrap_or(inner)
            .trim_matches('\n')
            .to_owned();
    }
    line.replace("\\\n", "\n")
}

/// Whether the message goes on in the next line.
fn goes_on(line: &str) -> bool {
    match line.trim().strip_prefix(QUOTES) {
        Some(inner) => !inner.ends_with(QUOTES),
        None => line.ends_with('\\'),
    }
}

const QUOTES: &str = "\"\"\"";

/// `TERCEL_HOME/history`, else a file in the platform's directory for such state, made if need be.
fn history_file() -> Option<PathBuf> {
    let variable = |name: &str| {
        env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    let directory = variable("TERCEL_HOME").or_else(|| {
        let state = if cfg!(windows) {
            variable("LOCALAPPDATA")?
        } else if cfg!(target_os = "macos") {
            variable("HOME")?.join("Library/Application Support")
        } else {
            variable("XDG_STATE_HOME")
                .filter(|path| path.is_absolute())
                .or_else(|| Some(variable("HOME")?.join(".local/state")))?
        };
        Some(state.join("tercel"))
    })?;
    fs::create_dir_all(&directory).ok()?;
    Some(directory.join("history"))
}

/// Completes commands, and keeps a message open until it is whole.
struct Chatting;

impl Helper for Chatting {}
impl Highlighter for Chatting {}
impl Hinter for Chatting {
    type Hint = String;
}

impl Completer for Chatting {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        at: usize,
        _: &rustyline::Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let typed = line.get(..at).unwrap_or_default();
        let names = command::NAMES
            .iter()
            .filter(|name| !typed.is_empty() && name.starts_with(typed));
        Ok((0, names.map(|&name| name.to_owned()).collect()))
    }
}

impl Validator for Chatting {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(if goes_on(context.input()) {
            ValidationResult::Incomplete
        } else {
            ValidationResult::Valid(None)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_may_have_several_lines() {
        for (line, expected) in [
            ("one", Some("one")),
            ("one\\", None),
            ("one\\\ntwo", Some("one\ntwo")),
            ("\"\"\"", None),
            ("\"\"\"one\n\ntwo", None),
            ("\"\"\"\none\n\ntwo\n\"\"\"", Some("one\n\ntwo")),
            ("\"\"\"one\"\"\"", Some("one")),
            ("say \"\"\"", Some("say \"\"\"")),
        ] {
            assert_eq!(goes_on(line), expected.is_none(), "{line:?}");
            if let Some(text) = expected {
                assert_eq!(said(line), Said::Text(text.to_owned()));
            }
        }
        assert_eq!(said(" \n"), Said::Nothing);
        assert_eq!(said(" /help"), Said::Command(" /help".to_owned()));
    }
}
