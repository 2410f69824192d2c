//! What is done to a text before it is cut into words: the steps of a `normalizer`.

use std::borrow::Cow;

use unicode_normalization::UnicodeNormalization;

use super::charsmap::Charsmap;
use super::pattern::Pattern;
use super::sentencepiece::SPACE;
use super::unicode_sets::{is_bert_control, is_combining_mark, is_nonspacing_mark};

/// Steps, in order.
#[derive(Default)]
pub(super) struct Normalizer(pub(super) Vec<Normalize>);

/// One step, named as `tokenizer.json` names it.
pub(super) enum Normalize {
    Nfc,
    Nfd,
    Nfkc,
    Nfkd,
    Lowercase,
    StripAccents,
    Nmt,
    /// White space at the ends.
    Strip {
        left: bool,
        right: bool,
    },
    Replace {
        pattern: Pattern,
        content: String,
    },
    /// In front of a text that is not empty.
    Prepend(String),
    Bert(Bert),
    /// SentencePiece's table of replacements, as the Python package applies it: to a cluster of
    /// characters as a whole, or to each of them.
    Clusters(Charsmap),
    /// The same table as SentencePiece applies it: the longest entry at each place.
    Longest(Charsmap),
    /// Runs of spaces become one, and none is left at the start.
    SingleSpaces,
    /// Every such character at the end goes.
    TrimEnd(char),
}

/// The switches of a `BertNormalizer`.
pub(super) struct Bert {
    pub(super) clean_text: bool,
    pub(super) handle_chinese_chars: bool,
    pub(super) strip_accents: bool,
    pub(super) lowercase: bool,
}

impl Normalizer {
    pub(super) fn heap_bytes(&self) -> usize {
        let of_step = |step: &Normalize| match step {
            Normalize::Replace { pattern, content } => pattern.heap_bytes() + content.capacity(),
            Normalize::Prepend(text) => text.capacity(),
            Normalize::Clusters(map) | Normalize::Longest(map) => map.heap_bytes(),
            _ => 0,
        };
        let steps: usize = self.0.iter().map(of_step).sum();
        self.0.capacity() * size_of::<Normalize>() + steps
    }

    pub(super) fn apply<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut text = Cow::Borrowed(text);
        for step in &self.0 {
            if text.is_empty() {
                break;
            }
            if let Some(changed) = step.apply(&text) {
                text = Cow::Owned(changed);
            }
        }
        text
    }

    /// The one step of most SentencePiece vocabularies: spaces become visible.
    pub(super) fn visible_spaces() -> Normalize {
        Normalize::Replace {
            pattern: Pattern::Text(" ".into()),
            content: SPACE.into(),
        }
    }
}

impl Normalize {
    /// How many times as long a text may become by what a file says; the forms of Unicode and the
    /// letter cases have small bounds of their own.
    pub(super) fn growth(&self) -> usize {
        match self {
            Self::Replace {
                pattern: Pattern::Text(from),
                content,
            } => content.len().div_ceil(from.len().max(1)).max(1),
            Self::Clusters(map) | Self::Longest(map) => map.growth(),
            Self::Replace { content, .. } | Self::Prepend(content) => content.len() + 1,
            _ => 1,
        }
    }

    /// The changed text; `None` where it stays as it is.
    fn apply(&self, text: &str) -> Option<String> {
        match self {
            // No ASCII text changes under any of the four forms.
            Self::Nfc | Self::Nfd | Self::Nfkc | Self::Nfkd if text.is_ascii() => None,
            Self::Nfc if unicode_normalization::is_nfc(text) => None,
            Self::Nfc => Some(text.nfc().collect()),
            Self::Nfd => Some(text.nfd().collect()),
            Self::Nfkc => Some(text.nfkc().collect()),
            Self::Nfkd => Some(text.nfkd().collect()),
            // Character by character: the final sigma is as any other.
            Self::Lowercase => Some(text.chars().flat_map(char::to_lowercase).collect()),
            Self::StripAccents => Some(text.chars().filter(|c| !is_combining_mark(*c)).collect()),
            Self::Nmt => Some(text.chars().filter_map(nmt).collect()),
            Self::Strip { left, right } => {
                let text = if *left { text.trim_start() } else { text };
                let text = if *right { text.trim_end() } else { text };
                Some(text.into())
            }
            Self::Replace { pattern, content } => pattern.replace(text, content),
            Self::Prepend(start) => Some(format!("{start}{text}")),
            Self::Bert(bert) => Some(bert.apply(text)),
            Self::Clusters(map) => Some(map.replace_clusters(text)),
            Self::Longest(map) => Some(map.replace_longest(text)),
            Self::SingleSpaces => {
                let mut last = ' ';
                let keep = |c: &char| std::mem::replace(&mut last, *c) != ' ' || *c != ' ';
                Some(text.chars().filter(keep).collect())
            }
            Self::TrimEnd(end) => Some(text.trim_end_matches(*end).into()),
        }
    }
}

impl Bert {
    fn apply(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        for c in text.chars() {
            match c {
                '\t' | '\n' | '\r' if self.clean_text => out.push(' '),
                _ if self.clean_text && is_bert_control(c) => {}
                _ if self.clean_text && c.is_whitespace() => out.push(' '),
                _ if self.handle_chinese_chars && is_chinese(c) => out.extend([' ', c, ' ']),
                _ => out.push(c),
            }
        }
        if self.strip_accents {
            out = out.nfd().filter(|c| !is_nonspacing_mark(*c)).collect();
        }
        if self.lowercase {
            out = out.chars().flat_map(char::to_lowercase).collect();
        }
        out
    }
}

/// The ideographs that BERT puts spaces around.
fn is_chinese(c: char) -> bool {
    matches!(
        u32::from(c),
        0x3400..=0x4dbf
            | 0x4e00..=0x9fff
            | 0xf900..=0xfaff
            | 0x20000..=0x2a6df
            | 0x2a700..=0x2b81f
            | 0x2b920..=0x2ceaf
            | 0x2f800..=0x2fa1f
    )
}

/// The character rules that neural machine translation models share: controls go, oddities
/// become spaces.
fn nmt(c: char) -> Option<char> {
    match u32::from(c) {
        0x01..=0x08 | 0x0b | 0x0e..=0x1f | 0x7f | 0x8f | 0x9f => None,
        0x09
        | 0x0a
        | 0x0c
        | 0x0d
        | 0x1680
        | 0x200b..=0x200f
        | 0x2028
        | 0x2029
        | 0x2581
        | 0xfeff
        | 0xfffd => Some(' '),
        _ => Some(c),
    }
}
