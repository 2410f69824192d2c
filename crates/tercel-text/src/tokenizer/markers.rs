//! Finding whole tokens in a text: leftmost first, then longest.

use std::ops::Range;

use super::TokenId;
use super::unicode::is_mark;

/// A set of strings that stand for control tokens, ready to be found in texts.
///
/// [`super::Tokenizer::markers`] gives those of a model. A template's input carries them, so that
/// the same characters in a message can be told from the template's own.
#[derive(Debug, Clone, Default)]
pub struct Markers {
    /// Sorted by text.
    entries: Vec<Marker>,
    /// Bytes that begin an entry.
    starts: Starts,
}

#[derive(Debug, Clone)]
pub(super) struct Marker {
    pub(super) text: Box<str>,
    pub(super) id: TokenId,
    /// A control token, that only a trusted text may name.
    pub(super) control: bool,
    /// Is to be found in normalized text.
    pub(super) normalized: bool,
    /// Counts only where no word character is beside it.
    pub(super) single_word: bool,
    /// Takes the white space on its left with it.
    pub(super) strip_left: bool,
    /// Takes the white space on its right with it.
    pub(super) strip_right: bool,
}

impl Marker {
    pub(super) fn new(text: &str, id: TokenId, control: bool) -> Self {
        Self {
            text: text.into(),
            id,
            control,
            normalized: false,
            single_word: false,
            strip_left: false,
            strip_right: false,
        }
    }
}

#[derive(Debug, Clone)]
struct Starts(Box<[bool; 256]>);

impl Default for Starts {
    fn default() -> Self {
        Self(Box::new([false; 256]))
    }
}

impl Markers {
    /// The set of the given strings; empty ones are left out.
    pub fn new<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let entries = texts.into_iter().map(|text| Marker::new(text, 0, true));
        Self::of(entries.collect())
    }

    pub(super) fn of(mut entries: Vec<Marker>) -> Self {
        entries.retain(|entry| !entry.text.is_empty());
        // A stable sort, so that of equal texts the first stays.
        entries.sort_by(|a, b| a.text.cmp(&b.text));
        entries.dedup_by(|later, first| later.text == first.text);
        let mut starts = Starts::default();
        for entry in &entries {
            starts.0[usize::from(entry.text.as_bytes()[0])] = true;
        }
        entries.shrink_to_fit();
        Self { entries, starts }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let texts: usize = self.entries.iter().map(|entry| entry.text.len()).sum();
        self.entries.capacity() * size_of::<Marker>() + texts + size_of_val(&*self.starts.0)
    }

    /// What so many markers take, whose texts have `text_bytes` in all.
    pub(super) fn estimate(markers: usize, text_bytes: usize) -> usize {
        markers * size_of::<Marker>() + text_bytes + size_of::<[bool; 256]>()
    }

    /// Whether there is nothing to find.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The strings, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| &*entry.text)
    }

    /// Whether some string of the set begins with `byte`.
    pub(crate) fn starts_with_byte(&self, byte: u8) -> bool {
        self.starts.0[usize::from(byte)]
    }

    /// The length of the longest string of the set that `text` begins with.
    pub(crate) fn match_at(&self, text: &str) -> Option<usize> {
        self.longest_at(text.as_bytes(), |_, _| true)
            .map(|marker| marker.text.len())
    }

    /// The longest entry at the start of `text` among those that `allow` lets pass; it gets the
    /// entry's length too.
    fn longest_at(&self, text: &[u8], allow: impl Fn(&Marker, usize) -> bool) -> Option<&Marker> {
        if !text
            .first()
            .is_some_and(|byte| self.starts_with_byte(*byte))
        {
            return None;
        }
        let mut candidates = self.entries.as_slice();
        let mut best = None;
        for (depth, byte) in text.iter().enumerate() {
            // All candidates agree with the text up to `depth`; shorter ones have been taken off.
            let key = |entry: &Marker| entry.text.as_bytes()[depth];
            let low = candidates.partition_point(|entry| key(entry) < *byte);
            let high = candidates.partition_point(|entry| key(entry) <= *byte);
            candidates = &candidates[low..high];
            let length = depth + 1;
            if let Some((first, others)) = candidates.split_first()
                && first.text.len() == length
            {
                if allow(first, length) {
                    best = Some(first);
                }
                candidates = others;
            }
            if candidates.is_empty() {
                break;
            }
        }
        best
    }

    /// Cuts `text` into plain stretches and whole tokens, in order. An entry counts where `allow`
    /// lets it pass; it gets the byte range too.
    pub(super) fn split<'t>(
        &self,
        text: &'t str,
        allow: impl Fn(&Marker, Range<usize>) -> bool,
        mut emit: impl FnMut(Segment<'t>),
    ) {
        let bytes = text.as_bytes();
        let (mut start, mut at) = (0, 0);
        while at < bytes.len() {
            let allow = |entry: &Marker, length| allow(entry, at..at.saturating_add(length));
            let Some(found) = self.longest_at(&bytes[at..], allow) else {
                at += 1;
                continue;
            };
            let end = at + found.text.len();
            if found.single_word && (ends_a_word(&text[..at]) || begins_a_word(&text[end..])) {
                at = end;
                continue;
            }
            let mut before = &text[start..at];
            if found.strip_left {
                before = before.trim_end();
            }
            if !before.is_empty() {
                emit(Segment::Text(before));
            }
            emit(Segment::Token(found.id));
            let after = &text[end..];
            at = match found.strip_right {
                true => text.len() - after.trim_start().len(),
                false => end,
            };
            start = at;
        }
        if start < bytes.len() {
            emit(Segment::Text(&text[start..]));
        }
    }
}

fn ends_a_word(text: &str) -> bool {
    text.chars().next_back().is_some_and(is_word)
}

fn begins_a_word(text: &str) -> bool {
    text.chars().next().is_some_and(is_word)
}

/// What `\w` matches (Unicode Technical Standard 18, annex C).
fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric() || is_mark(c) || matches!(c, '\u{200c}' | '\u{200d}')
}

/// A part of a text that [`Markers::split`] cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Segment<'t> {
    Text(&'t str),
    Token(TokenId),
}
