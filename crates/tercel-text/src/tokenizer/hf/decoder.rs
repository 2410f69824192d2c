//! The `decoder` of a `tokenizer.json`: the bytes that each token stands for.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::components::{Part, metaspace};
use crate::error::TextError;
use crate::tokenizer::byte_level;
use crate::tokenizer::sentencepiece::parse_byte;

/// How many times as long as its text what a token stands for may be.
const MAX_GROWTH: usize = 16;

/// Longest replacement, in bytes.
const MAX_CONTENT_BYTES: usize = 256;

/// Steps that turn the text of a token into bytes, one token at a time.
pub(super) struct Decoder {
    steps: Vec<Step>,
    /// A decoded text loses one space at its start.
    pub(super) strips_first_space: bool,
}

enum Step {
    Replace {
        from: String,
        to: String,
    },
    /// `<0x0A>` is the byte 10.
    ByteFallback,
    ByteLevel,
    /// Up to so many of a character at the start and at the end of every token.
    Strip {
        content: char,
        start: usize,
        stop: usize,
    },
    WordPiece {
        prefix: String,
        cleanup: bool,
    },
    /// Words are told apart by spaces.
    SpaceBefore,
}

impl Decoder {
    pub(super) fn read(raw: Option<&RawValue>) -> Result<Self, TextError> {
        let parts = Part::list("decoder", "decoders", raw)?;
        let mut out = Self {
            steps: Vec::new(),
            strips_first_space: false,
        };
        let mut fused = false;
        for part in &parts {
            if out.strips_first_space && part.name() != "Fuse" {
                return Err(part.unsupported_with("a step before it that strips the first space"));
            }
            step(part, &mut out, &mut fused)?;
        }
        if parts.is_empty() {
            out.steps.push(Step::SpaceBefore);
            out.strips_first_space = true;
        }
        Ok(out)
    }

    /// Appends the bytes that a token stands for; false where the steps make it too long.
    pub(super) fn spell(&self, token: &str, out: &mut Vec<u8>) -> bool {
        let most = token.len().saturating_mul(MAX_GROWTH).saturating_add(16);
        let mut text = Cow::Borrowed(token);
        for step in &self.steps {
            if text.len() > most {
                return false;
            }
            match step {
                Step::Replace { from, to } => {
                    if text.contains(from.as_str()) {
                        text = text.replace(from.as_str(), to).into();
                    }
                }
                Step::ByteFallback => {
                    if let Some(byte) = parse_byte(&text) {
                        out.push(byte);
                        return true;
                    }
                }
                Step::ByteLevel => {
                    byte_level::spell(&text, out);
                    return true;
                }
                Step::Strip {
                    content,
                    start,
                    stop,
                } => text = strip(&text, *content, *start, *stop).to_owned().into(),
                Step::WordPiece { prefix, cleanup } => {
                    text = match text.strip_prefix(prefix.as_str()) {
                        Some(rest) => rest.to_owned().into(),
                        None => format!(" {text}").into(),
                    };
                    if *cleanup {
                        text = clean_up(&text).into();
                    }
                }
                Step::SpaceBefore => text.to_mut().insert(0, ' '),
            }
        }
        out.extend_from_slice(text.as_bytes());
        text.len() <= most
    }
}

fn step(part: &Part, out: &mut Decoder, fused: &mut bool) -> Result<(), TextError> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}
    #[derive(serde::Deserialize)]
    enum Pattern {
        String(String),
    }
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Replace {
        pattern: Pattern,
        content: String,
    }
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Strip {
        content: char,
        start: usize,
        stop: usize,
    }
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct WordPiece {
        prefix: String,
        cleanup: bool,
    }
    match part.name() {
        "ByteLevel" => out.steps.push(Step::ByteLevel),
        "Replace" => {
            let Replace { pattern, content } = part.read()?;
            let Pattern::String(from) = pattern;
            if from.is_empty() {
                return Err(part.unsupported_with("an empty pattern"));
            }
            if content.len() > MAX_CONTENT_BYTES {
                return Err(part.problem(format!("{} bytes of content", content.len())));
            }
            out.steps.push(Step::Replace { from, to: content });
        }
        "ByteFallback" => {
            part.read::<Nothing>()?;
            out.steps.push(Step::ByteFallback);
        }
        // Tokens are joined as they come.
        "Fuse" => {
            part.read::<Nothing>()?;
            *fused = true;
        }
        "Strip" => {
            let fields: Strip = part.read()?;
            match (*fused, fields.content, fields.start, fields.stop) {
                (false, content, start, stop) => out.steps.push(Step::Strip {
                    content,
                    start,
                    stop,
                }),
                (true, ' ', 1, 0) => out.strips_first_space = true,
                (true, _, 0, 0) => {}
                _ => return Err(part.unsupported_with("anything but one space at the start")),
            }
        }
        "Metaspace" => {
            let (metaspace, in_front) = metaspace(part)?;
            out.steps.push(Step::Replace {
                from: metaspace.replacement.into(),
                to: " ".into(),
            });
            out.strips_first_space = in_front;
        }
        "WordPiece" => {
            let WordPiece { prefix, cleanup } = part.read()?;
            out.steps.push(Step::WordPiece { prefix, cleanup });
            out.strips_first_space = true;
        }
        _ => return Err(part.unsupported()),
    }
    Ok(())
}

fn strip(text: &str, content: char, start: usize, stop: usize) -> &str {
    let mut text = text;
    for _ in 0..start.min(text.len()) {
        text = text.strip_prefix(content).unwrap_or(text);
    }
    for _ in 0..stop.min(text.len()) {
        text = text.strip_suffix(content).unwrap_or(text);
    }
    text
}

/// English punctuation without a space before it, token by token as the Python package does.
fn clean_up(text: &str) -> String {
    let rules = [
        (" .", "."),
        (" ?", "?"),
        (" !", "!"),
        (" ,", ","),
        (" ' ", "'"),
        (" n't", "n't"),
        (" 'm", "'m"),
        (" do not", " don't"),
        (" 's", "'s"),
        (" 've", "'ve"),
        (" 're", "'re"),
    ];
    let clean = |text: String, (from, to): (&str, &str)| text.replace(from, to);
    rules.into_iter().fold(text.to_owned(), clean)
}
