//! Prompts on standard input.

use std::io::{self, IsTerminal, Read};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use crate::context::Context;
use crate::failure::Failure;

/// The prompt: what was `given`, then an empty line and standard input where that is no terminal.
pub(super) fn prompt(given: Option<String>, context: &Context) -> Result<String, Failure> {
    let Some(given) = given else {
        return Ok(without_last_break(read_stdin(context)?));
    };
    if io::stdin().is_terminal() {
        return Ok(given);
    }
    let more = without_last_break(read_stdin(context)?);
    Ok(if more.is_empty() {
        given
    } else {
        format!("{given}\n\n{more}")
    })
}

/// Everything on standard input, as text.
pub(crate) fn read_stdin(context: &Context) -> Result<String, Failure> {
    /// More than any context holds.
    const MOST: u64 = 64 << 20;

    if io::stdin().is_terminal() {
        context.note("reading from the terminal; Ctrl-D ends the text");
    }
    // On a thread of its own, so that Ctrl-C and a word to whoever waits are possible.
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = io::stdin().lock().take(MOST + 1).read_to_end(&mut bytes);
        // Nobody waits any more after Ctrl-C.
        let _ = sender.send(read.map(|_| bytes));
    });
    let mut waited = Duration::ZERO;
    let read = loop {
        const STEP: Duration = Duration::from_millis(50);
        const PATIENCE: Duration = Duration::from_secs(3);
        match receiver.recv_timeout(STEP) {
            Ok(read) => break read,
            Err(RecvTimeoutError::Disconnected) => {
                break Err(io::Error::other("it ended unexpectedly"));
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        if context.interrupt.is_hit() {
            return Err(Failure::Interrupted);
        }
        waited += STEP;
        if waited == PATIENCE && !io::stdin().is_terminal() {
            context.note("waiting for standard input to end; `< /dev/null` gives none");
        }
    };
    let failed = |reason: String| {
        Failure::new(
            "unreadable",
            format!("cannot read standard input: {reason}"),
        )
    };
    let bytes = read.map_err(|error| failed(error.to_string()))?;
    if bytes.len() as u64 > MOST {
        return Err(failed(format!("it is longer than {} MB", MOST >> 20)));
    }
    String::from_utf8(bytes).map_err(|error| {
        failed(format!(
            "it is not UTF-8 text (at byte {})",
            error.utf8_error().valid_up_to()
        ))
    })
}

/// A text in a pipe ends with a line break that nobody means.
fn without_last_break(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    text
}
