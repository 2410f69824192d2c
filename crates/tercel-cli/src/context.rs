//! What every command is given.

use crate::interrupt::Interrupt;
use crate::output::Output;

/// The surroundings of a command.
pub(crate) struct Context {
    /// Whether standard error is for errors alone.
    pub(crate) quiet: bool,
    pub(crate) out: Output,
    pub(crate) interrupt: Interrupt,
}

impl Context {
    /// Tells the user something that is no error.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            self.out.note(text);
        }
    }
}
