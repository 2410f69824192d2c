//! Text that is safe to show, and a little colour.

use std::borrow::Cow;
use std::env;
use std::io::IsTerminal;

/// Drops what would drive a terminal: every control character but line breaks and tabs.
pub(crate) fn without_controls(text: &str) -> Cow<'_, str> {
    let drives = |c: char| c.is_control() && c != '\n' && c != '\t';
    if text.contains(drives) {
        Cow::Owned(text.chars().filter(|&c| !drives(c)).collect())
    } else {
        Cow::Borrowed(text)
    }
}

/// Makes any text one line: control characters are written as escapes.
pub(crate) fn one_line(text: &str) -> Cow<'_, str> {
    // Line separators, and what turns the direction of text to make it look like another.
    let hidden =
        |c: char| c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if text.contains(hidden) {
        Cow::Owned(
            text.chars()
                .flat_map(|c| {
                    let escaped = hidden(c).then(|| c.escape_default());
                    let plain = (!hidden(c)).then_some(c);
                    escaped.into_iter().flatten().chain(plain)
                })
                .collect(),
        )
    } else {
        Cow::Borrowed(text)
    }
}

/// The beginning of a text that may be of any length, for a message.
pub(crate) fn shortened(text: &str) -> Cow<'_, str> {
    const MOST_CHARACTERS: usize = 1000;
    match text.char_indices().nth(MOST_CHARACTERS) {
        Some((end, _)) => Cow::Owned(format!("{}...", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

/// Colours for one stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    on: bool,
}

impl Style {
    /// Colours where `stream` is a terminal that has them and the user does not object.
    pub(crate) fn of(stream: &impl IsTerminal) -> Self {
        let set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            on: stream.is_terminal() && !set("NO_COLOR") && !dumb,
        }
    }

    pub(crate) fn dim(self, text: &str) -> Cow<'_, str> {
        self.paint("2", text)
    }

    pub(crate) fn bold(self, text: &str) -> Cow<'_, str> {
        self.paint("1", text)
    }

    pub(crate) fn error(self, text: &str) -> Cow<'_, str> {
        self.paint("1;31", text)
    }

    fn paint<'a>(self, code: &str, text: &'a str) -> Cow<'a, str> {
        if self.on {
            Cow::Owned(format!("\x1b[{code}m{text}\x1b[0m"))
        } else {
            Cow::Borrowed(text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_drives_a_terminal_is_dropped_and_the_rest_stays() {
        for (text, shown) in [
            ("plain\n\ttext", "plain\n\ttext"),
            ("a\x1b[31mred\x1b[0m", "a[31mred[0m"),
            (
                "bell\x07 back\x08 return\r end\0\x7f",
                "bell back return end",
            ),
            ("\u{9b}31m one-byte csi \u{85}", "31m one-byte csi "),
            ("\u{1f600} \u{4f60}\u{597d}", "\u{1f600} \u{4f60}\u{597d}"),
        ] {
            assert_eq!(without_controls(text), shown, "{text:?}");
        }
    }

    #[test]
    fn a_line_is_one_line_whatever_is_in_it() {
        for (text, shown) in [
            ("plain", "plain"),
            ("a\nb\r\tc", "a\\nb\\r\\tc"),
            ("\x1b]0;title\x07", "\\u{1b}]0;title\\u{7}"),
            ("\u{2028}x", "\\u{2028}x"),
            ("\u{202e}x", "\\u{202e}x"),
        ] {
            assert_eq!(one_line(text), shown, "{text:?}");
        }
    }
}
