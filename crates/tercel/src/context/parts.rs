//! A text in parts that are kept or left out whole: the first ones stay.

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::builder::Block;
use super::counter::TokenCounter;

/// The parts of a text, in order.
pub(super) struct Parts {
    /// The whole text as it was given.
    whole: Block,
    pieces: Vec<Block>,
    form: Form,
}

/// How parts become a text again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Lines,
    Paragraphs,
    Object,
    Array,
}

impl Parts {
    /// The lines of a text.
    pub(super) fn lines(block: &Block) -> Self {
        Self::new(block, block.text.lines().map(Block::from), Form::Lines)
    }

    /// The chunks of a tool's output: the fields of a JSON object, the items of an array, else the
    /// paragraphs.
    pub(super) fn chunks(block: &Block) -> Self {
        let text = block.text.trim();
        if let Ok(Fields(fields)) = serde_json::from_str(text) {
            return Self::new(block, fields.into_iter().map(Block::from), Form::Object);
        }
        if let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(text) {
            let items = items.into_iter().map(|item| Block::from(item.get()));
            return Self::new(block, items, Form::Array);
        }
        Self::new(block, paragraphs(text).map(Block::from), Form::Paragraphs)
    }

    /// Chunks that are known already.
    pub(super) fn given(chunks: &[Block]) -> Self {
        let whole = Block {
            text: joined(chunks, Form::Paragraphs),
            tokens: None,
        };
        Self::new(&whole, chunks.iter().cloned(), Form::Paragraphs)
    }

    fn new(whole: &Block, pieces: impl Iterator<Item = Block>, form: Form) -> Self {
        let mut pieces: Vec<Block> = pieces.collect();
        // A count that was given is that of the whole, which then has no parts to count.
        if (whole.tokens.is_some() && pieces.iter().any(|piece| piece.tokens.is_none()))
            || (pieces.is_empty() && *whole != Block::default())
        {
            pieces = vec![whole.clone()];
        }
        Self {
            whole: whole.clone(),
            pieces,
            form,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.pieces.len()
    }

    /// The first `kept` parts as a text. A part of an output ends with a note of what is missing.
    pub(super) fn text(&self, kept: usize) -> String {
        if kept >= self.len() {
            return self.whole.text.clone();
        }
        let text = joined(&self.pieces[..kept], self.form);
        if kept == 0 || self.form == Form::Lines {
            return text;
        }
        let missing = self.len() - kept;
        format!("{text}\n\n[{missing} of {} parts left out]", self.len())
    }

    /// Tokens of the first `kept` parts.
    pub(super) fn tokens(&self, kept: usize, counter: &dyn TokenCounter) -> usize {
        let pieces = &self.pieces[..kept.min(self.len())];
        if pieces.iter().all(|piece| piece.tokens.is_none()) {
            return match kept {
                0 => 0,
                _ => counter.count(&self.text(kept)),
            };
        }
        let tokens = |piece: &Block| piece.tokens.unwrap_or_else(|| counter.count(&piece.text));
        pieces.iter().map(tokens).fold(0, usize::saturating_add)
    }
}

fn joined(pieces: &[Block], form: Form) -> String {
    let (open, between, close) = match form {
        Form::Lines => ("", "\n", ""),
        Form::Paragraphs => ("", "\n\n", ""),
        Form::Object => ("{", ", ", "}"),
        Form::Array => ("[", ", ", "]"),
    };
    let texts: Vec<&str> = pieces.iter().map(|piece| piece.text.as_str()).collect();
    format!("{open}{}{close}", texts.join(between))
}

/// What stands between empty lines.
fn paragraphs(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches(['\n', '\r']);
        if rest.is_empty() {
            return None;
        }
        let mut end = rest.len();
        let mut at = 0;
        for line in rest.split_inclusive('\n') {
            if line.trim().is_empty() {
                end = at;
                break;
            }
            at += line.len();
        }
        let (paragraph, after) = rest.split_at(end);
        // A line of spaces is an empty line.
        rest = after.split_once('\n').map_or("", |(_, after)| after);
        Some(paragraph.trim_end())
    })
    .filter(|paragraph| !paragraph.is_empty())
}

/// The fields of a JSON object as they are written, in their order.
struct Fields(Vec<String>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
                    let name = serde_json::Value::from(name);
                    fields.push(format!("{name}: {}", value.get()));
                }
                Ok(Fields(fields))
            }
        }

        from.deserialize_map(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Vec<String> {
        let parts = Parts::chunks(&Block::from(text));
        parts.pieces.into_iter().map(|piece| piece.text).collect()
    }

    #[test]
    fn outputs_are_cut_between_paragraphs_fields_and_items() {
        for (text, expected) in [
            ("one", vec!["one"]),
            ("a\nb\n\nc\n \t\n\nd\n", vec!["a\nb", "c", "d"]),
            (" \n\n", vec![" \n\n"]),
            ("", vec![]),
            (
                "{\"b\": [1, 2], \"a\\n\": 12345678901234567890123.50}",
                vec!["\"b\": [1, 2]", "\"a\\n\": 12345678901234567890123.50"],
            ),
            ("[1e9, {\"x\": 1}]", vec!["1e9", "{\"x\": 1}"]),
            ("{\"a\": 1} and more", vec!["{\"a\": 1} and more"]),
            ("[1, 2", vec!["[1, 2"]),
        ] {
            assert_eq!(parts(text), expected, "{text:?}");
        }
    }

    #[test]
    fn the_first_parts_stay_as_they_are_written_and_the_rest_is_noted() {
        let text = "{ \"a\":1,\n\"b\" : {\"c\": 2.0}, \"d\": 3}";
        let chunks = Parts::chunks(&Block::from(text));
        assert_eq!(chunks.text(3), text);
        assert_eq!(
            chunks.text(2),
            "{\"a\": 1, \"b\": {\"c\": 2.0}}\n\n[1 of 3 parts left out]"
        );
        let words = |text: &str| text.split_whitespace().count();
        assert_eq!(chunks.tokens(2, &words), 11);
        assert_eq!(chunks.tokens(0, &words), 0);
        let lines = Parts::lines(&Block::from("Goal: a\nTone: b\n"));
        assert_eq!((lines.len(), lines.text(1).as_str()), (2, "Goal: a"));
        let given = Parts::given(&[Block::counted("x", 420), Block::counted("y", 520)]);
        assert_eq!(
            [0, 1, 2].map(|kept| given.tokens(kept, &words)),
            [0, 420, 940]
        );
        let whole = Parts::chunks(&Block::counted("a\n\nb", 7));
        assert_eq!((whole.len(), whole.tokens(1, &words)), (1, 7));
    }
}
