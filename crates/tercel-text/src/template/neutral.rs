//! Keeping what people wrote apart from what the template wrote.
//!
//! Before a render, a character that nothing else contains is put into every stretch of the
//! input that could be taken for a control token. Whatever the template does with the text
//! (trims it, cuts it, joins it), the stretch never reads as the token again. After the render
//! the character is taken out, and the places where it was are remembered.

use minijinja::Value;

use crate::error::TextError;
use crate::tokenizer::Markers;

/// The characters that may serve, Unicode's noncharacters for internal use (core specification,
/// section 23.7).
const CANDIDATES: std::ops::RangeInclusive<char> = '\u{fdd0}'..='\u{fdef}';

/// Marks input strings for one render.
pub(super) struct Neutralizer<'a> {
    markers: &'a Markers,
    /// Strings that the template itself looks for. They are left whole in the input, unless a
    /// control token would be left whole with them.
    literals: &'a [String],
    sentinel: char,
}

/// Every string of the input, to choose a sentinel that none contains.
pub(super) fn unused_character<'a>(
    strings: impl Iterator<Item = &'a str>,
) -> Result<char, TextError> {
    let mut used = [false; 32];
    for text in strings {
        // All candidates begin with this byte in UTF-8, and few other characters do.
        if !text.as_bytes().contains(&0xef) {
            continue;
        }
        for c in text.chars().filter(|c| CANDIDATES.contains(c)) {
            used[(u32::from(c) - u32::from(*CANDIDATES.start())) as usize] = true;
        }
    }
    CANDIDATES
        .zip(used)
        .find(|(_, used)| !used)
        .map(|(c, _)| c)
        .ok_or(TextError::NoSentinel)
}

impl<'a> Neutralizer<'a> {
    pub(super) fn new(markers: &'a Markers, literals: &'a [String], sentinel: char) -> Self {
        Self {
            markers,
            literals,
            sentinel,
        }
    }

    /// The text with a sentinel wherever a control token could begin, or could end having begun
    /// in front of it.
    pub(super) fn text(&self, text: &str) -> String {
        let mut breaks = self.breaks(text);
        let head = text.len() - text.trim_start().len();
        if self
            .markers
            .iter()
            .any(|marker| ends_at_start_of(marker, &text[head..]))
        {
            breaks.push(head);
            breaks.sort_unstable();
        }
        let mut out = String::with_capacity(text.len() + breaks.len() * 3);
        let mut done = 0;
        for at in breaks {
            out.push_str(&text[done..at]);
            out.push(self.sentinel);
            done = at;
        }
        out.push_str(&text[done..]);
        out
    }

    /// Places right behind the first character of what could become a control token.
    fn breaks(&self, text: &str) -> Vec<usize> {
        let starts: Vec<usize> = text
            .bytes()
            .enumerate()
            .filter(|(_, byte)| self.markers.starts_with_byte(*byte))
            .map(|(at, _)| at)
            .collect();
        if starts.is_empty() {
            return starts;
        }
        let mut whole: Vec<std::ops::Range<usize>> = Vec::new();
        for literal in self.literals {
            whole.extend(
                text.match_indices(literal.as_str())
                    .map(|(at, _)| at..at + literal.len()),
            );
        }
        whole.sort_unstable_by_key(|range| range.start);
        let mut covered = 0;
        let mut next = whole.into_iter().peekable();
        let mut breaks = Vec::new();
        for at in starts {
            while let Some(range) = next.next_if(|range| range.start <= at) {
                covered = covered.max(range.end);
            }
            if at >= covered || self.markers.match_at(&text[at..]).is_some() {
                breaks.push(at + text[at..].chars().next().map_or(1, char::len_utf8));
            }
        }
        breaks
    }

    /// The value with every string in it neutralised, keys too.
    pub(super) fn json(&self, value: &serde_json::Value) -> Value {
        match value {
            serde_json::Value::Null => Value::from(()),
            serde_json::Value::Bool(value) => Value::from(*value),
            serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(integer), _) => Value::from(integer),
                (None, Some(integer)) => Value::from(integer),
                (None, None) => Value::from(number.as_f64().unwrap_or(f64::NAN)),
            },
            serde_json::Value::String(text) => Value::from(self.text(text)),
            serde_json::Value::Array(items) => items.iter().map(|item| self.json(item)).collect(),
            serde_json::Value::Object(fields) => Value::from_pairs(
                fields
                    .iter()
                    .map(|(key, value)| (self.text(key), self.json(value))),
            ),
        }
    }
}

/// Calls `visit` with every string in the value, keys too.
pub(super) fn strings_of<'v>(value: &'v serde_json::Value, visit: &mut impl FnMut(&'v str)) {
    match value {
        serde_json::Value::String(text) => visit(text),
        serde_json::Value::Array(items) => items.iter().for_each(|item| strings_of(item, visit)),
        serde_json::Value::Object(fields) => strings_of_fields(fields, visit),
        _ => {}
    }
}

/// Calls `visit` with every string in the fields and with their names.
pub(super) fn strings_of_fields<'v>(
    fields: &'v serde_json::Map<String, serde_json::Value>,
    visit: &mut impl FnMut(&'v str),
) {
    for (key, value) in fields {
        visit(key);
        strings_of(value, visit);
    }
}

/// Whether `text` begins with a proper ending of `marker`.
fn ends_at_start_of(marker: &str, text: &str) -> bool {
    let Some(first) = text.bytes().next() else {
        return false;
    };
    let ends = marker
        .bytes()
        .enumerate()
        .skip(1)
        .filter(|(_, byte)| *byte == first);
    ends.into_iter()
        .any(|(at, _)| text.as_bytes().starts_with(&marker.as_bytes()[at..]))
}
