//! A reply as it comes, in text: the thought apart from the answer.

use tercel::Event;

use crate::failure::Failure;
use crate::output::Output;

/// Writes one reply to standard output. The thought is shown on a terminal alone, dimmed, so that
/// what a pipe or a file gets is the answer.
pub(crate) struct ReplyWriter {
    out: Output,
    ends_line: bool,
    in_thought: bool,
}

impl ReplyWriter {
    pub(crate) fn new(out: Output) -> Self {
        Self {
            out,
            ends_line: false,
            in_thought: false,
        }
    }

    /// Writes the text of an event, if it has any.
    pub(crate) fn write(&mut self, event: &Event) -> Result<(), Failure> {
        match event {
            Event::Thinking { text, .. } if self.out.is_terminal() => {
                if !std::mem::replace(&mut self.in_thought, true) {
                    self.out.thought("thinking: ")?;
                }
                self.out.thought(text)
            }
            Event::Delta { text, .. } => {
                if std::mem::take(&mut self.in_thought) {
                    self.out.line("\n")?;
                }
                self.ends_line = text.ends_with('\n');
                self.out.model_text(text)
            }
            _ => Ok(()),
        }
    }

    /// Ends the line that the reply left open.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        if self.ends_line {
            return Ok(());
        }
        self.out.line("")
    }
}
