//! The two streams: data on standard output, everything else on standard error.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;
use serde_json::{Map, Value};
use tercel::cores::{self, CoreSet};
use tercel::{Event, Phase, Progress, Reply};
use tercel_eval::{BenchReport, ChunkReport, Perplexity};

use crate::commands::tune::{Kept, Trial};
use crate::failure::Failure;
use crate::terminal::{Style, one_line, shortened, without_controls};

/// Where a command writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    json: bool,
    terminal: bool,
}

/// One line of a `--json` stream.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Line<'a> {
    Load {
        phase: &'a str,
        fraction: f64,
        model: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        done_bytes: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        total_bytes: Option<u64>,
        /// The processors that the engine computes on, once it is there.
        #[serde(skip_serializing_if = "Option::is_none")]
        cores: Option<CoreSet>,
    },
    /// What of the user's configuration is used.
    Config {
        file: &'a str,
        settings: &'a Map<String, Value>,
    },
    Note {
        message: &'a str,
    },
    Thinking {
        text: &'a str,
        token_index: usize,
    },
    Delta {
        text: &'a str,
        token_index: usize,
    },
    Done(&'a Reply),
    Chunk(&'a ChunkReport),
    Perplexity(&'a Perplexity),
    Bench(&'a BenchReport),
    Trial(&'a Trial),
    Best(&'a Trial),
    /// What was written to the user's configuration.
    Kept(&'a Kept),
    Error {
        kind: &'a str,
        message: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        hint: Option<&'a str>,
    },
}

impl<'a> Line<'a> {
    pub(crate) fn load(progress: &'a Progress) -> Self {
        Self::Load {
            phase: progress.phase.name(),
            fraction: progress.fraction,
            model: &progress.model,
            done_bytes: (progress.done_bytes > 0).then_some(progress.done_bytes),
            total_bytes: progress.total_bytes,
            cores: match progress.phase {
                Phase::Ready => cores::of_process(),
                _ => None,
            },
        }
    }

    /// The line of an event of a reply, if it has one.
    pub(crate) fn reply(event: &'a Event) -> Option<Self> {
        match event {
            Event::Thinking { text, token_index } => Some(Self::Thinking {
                text,
                token_index: *token_index,
            }),
            Event::Delta { text, token_index } => Some(Self::Delta {
                text,
                token_index: *token_index,
            }),
            Event::Done(reply) => Some(Self::Done(reply)),
            // Kinds of events that this command does not know.
            _ => None,
        }
    }
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self {
            json,
            terminal: io::stdout().is_terminal(),
        }
    }

    /// Whether standard output carries JSON.
    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// Whether standard output is a terminal.
    pub(crate) fn is_terminal(self) -> bool {
        self.terminal
    }

    /// Colours for standard output.
    pub(crate) fn style(self) -> Style {
        Style::of(&io::stdout())
    }

    /// A model's text, at once: as it is, but without what would drive a terminal.
    pub(crate) fn model_text(self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        if self.terminal {
            stdout.write_all(without_controls(text).as_bytes())?;
        } else {
            stdout.write_all(text.as_bytes())?;
        }
        Ok(stdout.flush()?)
    }

    /// A part of a model's thought, at once, for a terminal.
    pub(crate) fn thought(self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(self.style().dim(&without_controls(text)).as_bytes())?;
        Ok(stdout.flush()?)
    }

    /// Lines of the command's own making, without a line break at the end.
    pub(crate) fn line(self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        stdout.write_all(b"\n")?;
        Ok(stdout.flush()?)
    }

    /// A named value on a line, aligned with others.
    pub(crate) fn entry(self, name: &str, value: &str) -> Result<(), Failure> {
        let name = format!("{name:<13}");
        self.line(&format!(
            "{} {}",
            self.style().dim(&name),
            one_line(&shortened(value))
        ))
    }

    /// A value as one line of JSON.
    pub(crate) fn json(self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(value)
            .map_err(|error| Failure::new("internal", format!("no JSON for a value: {error}")))?;
        self.line(&text)
    }

    /// Something the user should know.
    pub(crate) fn note(self, text: &str) {
        if self.json {
            // Whoever closed standard output wants no notes.
            let _ = self.json(&Line::Note { message: text });
            return;
        }
        stderr_line(&Style::of(&io::stderr()).dim(&format!("note: {}", one_line(text))));
    }

    /// Statistics and the like on standard error.
    pub(crate) fn aside(self, text: &str) {
        stderr_line(&Style::of(&io::stderr()).dim(text));
    }

    /// An error, and the way out where one is known.
    pub(crate) fn failure(self, failure: &Failure) {
        let (kind, message, hint) = match failure {
            Failure::Error {
                kind,
                message,
                hint,
            } => (*kind, message.as_str(), hint.as_deref()),
            Failure::Interrupted => ("cancelled", "interrupted", None),
            Failure::Usage(message) => ("usage", message.as_str(), None),
            Failure::ReplyInterrupted | Failure::Reported | Failure::ClosedPipe => return,
        };
        let (message, hint) = (shortened(message), hint.map(shortened));
        let line = Line::Error {
            kind,
            message: &message,
            hint: hint.as_deref(),
        };
        // Where standard output takes nothing, standard error may.
        if self.json && self.json(&line).is_ok() {
            return;
        }
        let style = Style::of(&io::stderr());
        stderr_line(&format!("{} {}", style.error("error:"), one_line(&message)));
        if let Some(hint) = hint {
            stderr_line(&format!("{} {}", style.bold("hint:"), one_line(&hint)));
        }
    }
}

/// A line on standard error. If that is closed there is nobody left to tell.
pub(crate) fn stderr_line(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
