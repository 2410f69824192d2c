//! Cutting text into words before byte-level merging.
//!
//! Each scheme is a regular expression that a family of models was trained with; the scanners
//! here are those expressions written out by hand, and the parity tests compare them with the
//! expressions themselves.

use super::unicode::{Class, class, is_mark};

/// How text is cut into words. [`EXPRESSIONS`] says what each scheme is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PreTokenizer {
    Gpt2,
    /// Each digit on its own, then what lies between as [`PreTokenizer::Gpt2`].
    SmolLm,
    Llama3,
    /// As [`PreTokenizer::Llama3`], with each digit on its own.
    Qwen2,
    /// As [`PreTokenizer::Qwen2`], with marks taken for letters.
    Qwen35,
}

/// The regular expressions that models were trained with, for those that are one expression.
const EXPRESSIONS: &[(&str, PreTokenizer)] = &[
    (
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        PreTokenizer::Gpt2,
    ),
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        PreTokenizer::Llama3,
    ),
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        PreTokenizer::Qwen2,
    ),
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        PreTokenizer::Qwen35,
    ),
];

impl PreTokenizer {
    /// Names that files use in `tokenizer.ggml.pre`.
    const NAMES: &[(&str, Self)] = &[
        ("gpt-2", Self::Gpt2),
        ("default", Self::Gpt2),
        ("smollm", Self::SmolLm),
        ("llama-bpe", Self::Llama3),
        ("llama3", Self::Llama3),
        ("llama-v3", Self::Llama3),
        ("qwen2", Self::Qwen2),
        ("qwen35", Self::Qwen35),
    ];

    /// The scheme that does what a regular expression does, where there is one.
    pub(super) fn of_expression(expression: &str) -> Option<Self> {
        EXPRESSIONS
            .iter()
            .find(|(known, _)| *known == expression)
            .map(|(_, scheme)| *scheme)
    }

    /// The regular expression that the scheme is, where it is one.
    pub(super) fn expression(self) -> Option<&'static str> {
        EXPRESSIONS
            .iter()
            .find(|(_, scheme)| *scheme == self)
            .map(|(expression, _)| *expression)
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::NAMES
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, scheme)| *scheme)
    }

    /// Every known name, comma separated.
    pub(super) fn names() -> String {
        let names: Vec<_> = Self::NAMES.iter().map(|(name, _)| *name).collect();
        names.join(", ")
    }

    /// Calls `word` for each word of `text`, in order; together they are the text.
    pub(super) fn split<'t>(self, text: &'t str, mut word: impl FnMut(&'t str)) {
        match self {
            Self::Gpt2 => cut(text, gpt2_word, &mut word),
            Self::Llama3 => cut(text, |rest| llama3_word(rest, 3, class), &mut word),
            Self::Qwen2 => cut(text, |rest| llama3_word(rest, 1, class), &mut word),
            Self::Qwen35 => cut(text, |rest| llama3_word(rest, 1, mark_is_letter), &mut word),
            Self::SmolLm => {
                let mut start = 0;
                for (at, digit) in text.char_indices().filter(|(_, c)| c.is_numeric()) {
                    cut(&text[start..at], gpt2_word, &mut word);
                    start = at + digit.len_utf8();
                    word(&text[at..start]);
                }
                cut(&text[start..], gpt2_word, &mut word);
            }
        }
    }
}

/// Applies `length`, which gives the byte length of a text's first word, until nothing is left.
fn cut<'t>(mut text: &'t str, length: impl Fn(&str) -> usize, word: &mut impl FnMut(&'t str)) {
    while !text.is_empty() {
        let (first, rest) = text.split_at(length(text));
        word(first);
        text = rest;
    }
}

/// The length of the first word of a text that is not empty.
fn gpt2_word(text: &str) -> usize {
    if let Some(length) = contraction(text, false) {
        return length;
    }
    let body = text.strip_prefix(' ').unwrap_or(text);
    match body.chars().next().map(class) {
        Some(Class::Space) | None => space_word(text),
        Some(kind) => text.len() - body.len() + run(body, |c| class(c) == kind),
    }
}

fn mark_is_letter(c: char) -> Class {
    if is_mark(c) { Class::Letter } else { class(c) }
}

/// The length of the first word of a text that is not empty; numbers are cut every `digits`.
fn llama3_word(text: &str, digits: usize, class: impl Fn(char) -> Class) -> usize {
    if let Some(length) = contraction(text, true) {
        return length;
    }
    let mut chars = text.chars();
    let first = chars.next().unwrap_or(' ');
    let (kind, next) = (class(first), chars.next().map(&class));
    let letters = |c| class(c) == Class::Letter;
    if kind == Class::Letter {
        return run(text, letters);
    }
    if kind == Class::Number {
        let number = text
            .chars()
            .take(digits)
            .take_while(|c| class(*c) == Class::Number);
        return number.map(char::len_utf8).sum();
    }
    if !matches!(first, '\r' | '\n') && next == Some(Class::Letter) {
        return first.len_utf8() + run(&text[first.len_utf8()..], letters);
    }
    let body = text.strip_prefix(' ').unwrap_or(text);
    if body.chars().next().map(&class) == Some(Class::Other) {
        let marks = run(body, |c| class(c) == Class::Other);
        let breaks = run(&body[marks..], |c| matches!(c, '\r' | '\n'));
        return text.len() - body.len() + marks + breaks;
    }
    let spaces = &text[..run(text, |c| class(c) == Class::Space)];
    match spaces.rfind(['\r', '\n']) {
        Some(last) => last + 1,
        None => space_word(text),
    }
}

/// `\s+(?!\S)|\s+`: a run of white space, without its last character when a word follows.
fn space_word(text: &str) -> usize {
    let all = run(text, |c| class(c) == Class::Space);
    let last = text[..all].chars().next_back().map_or(0, char::len_utf8);
    if all == text.len() || all == last {
        all
    } else {
        all - last
    }
}

/// `'s|'t|'re|'ve|'m|'ll|'d` at the start of `text`.
fn contraction(text: &str, any_case: bool) -> Option<usize> {
    let rest = text.strip_prefix('\'')?;
    let fold = |c: char| match c {
        // The one character outside ASCII that folds to a letter of these endings.
        '\u{17f}' if any_case => 's',
        _ if any_case => c.to_ascii_lowercase(),
        _ => c,
    };
    let mut chars = rest.chars();
    let first = chars.next()?;
    match (fold(first), chars.next().map(fold)) {
        ('s' | 't' | 'm' | 'd', _) => Some(1 + first.len_utf8()),
        ('r' | 'v', Some('e')) | ('l', Some('l')) => Some(3),
        _ => None,
    }
}

/// The byte length of the longest start of `text` whose characters all pass.
fn run(text: &str, pass: impl Fn(char) -> bool) -> usize {
    text.find(|c| !pass(c)).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One text with the lengths, in characters, of the words that each scheme makes of it.
    #[derive(serde::Deserialize)]
    struct Text {
        text: String,
        #[serde(flatten)]
        words: std::collections::BTreeMap<String, Vec<usize>>,
    }

    #[derive(serde::Deserialize)]
    struct Words {
        texts: Vec<Text>,
    }

    #[test]
    fn words_equal_those_of_the_expressions() {
        let file = include_str!("../../../../test-data/tokenizers/words.json");
        let file: Words = serde_json::from_str(file).expect("a committed file");
        assert!(file.texts.len() >= 320);
        for Text { text, words } in &file.texts {
            assert_eq!(words.len(), 5);
            for (name, expected) in words {
                let scheme = PreTokenizer::named(name).expect("a name of the table");
                let (mut lengths, mut joined) = (Vec::new(), String::new());
                scheme.split(text, |word| {
                    lengths.push(word.chars().count());
                    joined.push_str(word);
                });
                assert_eq!(&lengths, expected, "{name} on {text:?}");
                assert_eq!(&joined, text);
            }
        }
    }
}
