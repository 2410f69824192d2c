//! The shape of `tokenizer.json`, read without building a tree: vocabularies have hundreds of
//! thousands of entries.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// The whole file. Fields of any other name are refused.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File<'a> {
    #[serde(default)]
    pub(super) version: Option<String>,
    /// How a batch is cut short and filled up; no part of what a text's ids are.
    #[serde(default, rename = "truncation")]
    _truncation: IgnoredAny,
    #[serde(default, rename = "padding")]
    _padding: IgnoredAny,
    #[serde(default)]
    pub(super) added_tokens: Vec<AddedToken>,
    #[serde(default, borrow)]
    pub(super) normalizer: Option<&'a RawValue>,
    #[serde(default, borrow)]
    pub(super) pre_tokenizer: Option<&'a RawValue>,
    #[serde(default, borrow)]
    pub(super) post_processor: Option<&'a RawValue>,
    #[serde(default, borrow)]
    pub(super) decoder: Option<&'a RawValue>,
    pub(super) model: Model,
}

/// A token that is matched whole, outside the model.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::tokenizer) struct AddedToken {
    pub(in crate::tokenizer) id: u32,
    pub(in crate::tokenizer) content: String,
    #[serde(default)]
    pub(in crate::tokenizer) single_word: bool,
    #[serde(default)]
    pub(in crate::tokenizer) lstrip: bool,
    #[serde(default)]
    pub(in crate::tokenizer) rstrip: bool,
    #[serde(default)]
    pub(in crate::tokenizer) normalized: bool,
    #[serde(default)]
    pub(in crate::tokenizer) special: bool,
}

/// The fields of all kinds of models together.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Model {
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) dropout: Option<f32>,
    pub(super) unk_token: Option<String>,
    pub(super) unk_id: Option<u32>,
    pub(super) continuing_subword_prefix: Option<String>,
    pub(super) end_of_word_suffix: Option<String>,
    pub(super) max_input_chars_per_word: Option<usize>,
    #[serde(default)]
    pub(super) fuse_unk: bool,
    #[serde(default)]
    pub(super) byte_fallback: bool,
    #[serde(default)]
    pub(super) ignore_merges: bool,
    #[serde(default)]
    pub(super) vocab: Vocabulary,
    pub(super) merges: Option<Merges>,
}

/// Token texts, one after the other, and what the file says of each.
#[derive(Default)]
pub(super) struct Vocabulary {
    texts: String,
    entries: Vec<Entry>,
    /// The file gives scores in the order of ids, not ids.
    pub(super) scored: bool,
}

struct Entry {
    end: usize,
    id: u32,
    score: f64,
}

/// Pairs of token texts.
#[derive(Default)]
pub(super) struct Merges {
    texts: String,
    /// Where the left and the right text end; a pair that is written as one text has no right.
    ends: Vec<(usize, usize)>,
}

impl Vocabulary {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Every text with its id and score, in the order of the file.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, u32, f64)> {
        let mut start = 0;
        self.entries.iter().map(move |entry| {
            let text = &self.texts[start..entry.end];
            start = entry.end;
            (text, entry.id, entry.score)
        })
    }

    fn close(&mut self, id: u32, score: f64) {
        let end = self.texts.len();
        self.entries.push(Entry { end, id, score });
    }
}

impl Merges {
    /// The pairs, or what stands in the place of one.
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = Result<(&str, &str), &str>> {
        let mut start = 0;
        self.ends.iter().map(move |(middle, end)| {
            let (left, right) = (&self.texts[start..*middle], &self.texts[*middle..*end]);
            start = *end;
            if right.is_empty() {
                super::super::bpe::split_merge(left)
            } else {
                Ok((left, right))
            }
        })
    }
}

impl<'de> serde::Deserialize<'de> for Vocabulary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(VocabularyVisitor)
    }
}

struct VocabularyVisitor;

impl<'de> Visitor<'de> for VocabularyVisitor {
    type Value = Vocabulary;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map from tokens to ids or a list of tokens with scores")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vocabulary, A::Error> {
        let mut vocab = Vocabulary::default();
        while map.next_key_seed(Append(&mut vocab.texts))?.is_some() {
            let id = map.next_value()?;
            vocab.close(id, 0.0);
        }
        Ok(vocab)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vocabulary, A::Error> {
        let mut vocab = Vocabulary {
            scored: true,
            ..Vocabulary::default()
        };
        while let Some(score) = list.next_element_seed(Scored(&mut vocab.texts))? {
            let id = u32::try_from(vocab.entries.len()).map_err(A::Error::custom)?;
            vocab.close(id, score);
        }
        Ok(vocab)
    }
}

impl<'de> serde::Deserialize<'de> for Merges {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(MergesVisitor)
    }
}

struct MergesVisitor;

impl<'de> Visitor<'de> for MergesVisitor {
    type Value = Merges;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of pairs of tokens")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Merges, A::Error> {
        let mut merges = Merges::default();
        while let Some(middle) = list.next_element_seed(Pair(&mut merges.texts))? {
            merges.ends.push((middle, merges.texts.len()));
        }
        Ok(merges)
    }
}

/// Appends a string to another.
struct Append<'s>(&'s mut String);

impl<'de> DeserializeSeed<'de> for Append<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Append<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a token")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.0.push_str(text);
        Ok(())
    }
}

/// `["text", score]`: appends the text, gives the score.
struct Scored<'s>(&'s mut String);

impl<'de> DeserializeSeed<'de> for Scored<'_> {
    type Value = f64;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<f64, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Scored<'_> {
    type Value = f64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a token and its score")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<f64, A::Error> {
        let wrong = |found: usize| A::Error::invalid_length(found, &"a token and its score");
        list.next_element_seed(Append(self.0))?
            .ok_or_else(|| wrong(0))?;
        let score = list.next_element()?.ok_or_else(|| wrong(1))?;
        match list.next_element::<IgnoredAny>()? {
            Some(_) => Err(wrong(3)),
            None => Ok(score),
        }
    }
}

/// `"a b"` or `["a", "b"]`: appends the texts, gives the place where the left one ends.
struct Pair<'s>(&'s mut String);

impl<'de> DeserializeSeed<'de> for Pair<'_> {
    type Value = usize;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<usize, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Pair<'_> {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a pair of tokens")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<usize, E> {
        self.0.push_str(text);
        Ok(self.0.len())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<usize, A::Error> {
        let wrong = |found: usize| A::Error::invalid_length(found, &"a pair of tokens");
        let start = self.0.len();
        list.next_element_seed(Append(self.0))?
            .ok_or_else(|| wrong(0))?;
        let middle = self.0.len();
        list.next_element_seed(Append(self.0))?
            .ok_or_else(|| wrong(1))?;
        if list.next_element::<IgnoredAny>()?.is_some() {
            return Err(wrong(3));
        }
        if middle == start || middle == self.0.len() {
            return Err(A::Error::custom("a pair with an empty token"));
        }
        Ok(middle)
    }
}
