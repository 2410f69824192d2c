//! Fields that hold a text or a list.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use utoipa::ToSchema;

/// A text or a list. Read by hand: an untagged enum would not say which element is wrong, nor how.
#[derive(Clone, Debug, PartialEq, ToSchema)]
#[serde(untagged)]
pub(crate) enum TextOr<T> {
    /// A text.
    Text(String),
    /// A list.
    List(Vec<T>),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for TextOr<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Either(PhantomData))
    }
}

struct Either<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
    type Value = TextOr<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or a list")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(TextOr::Text(text.to_owned()))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Self::Value, E> {
        Ok(TextOr::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(TextOr::List(items))
    }
}

impl TextOr<String> {
    /// All texts.
    pub(crate) fn into_list(self) -> Vec<String> {
        match self {
            Self::Text(text) => vec![text],
            Self::List(texts) => texts,
        }
    }
}

/// The beginning of what a client sent, for a message that repeats it.
pub(crate) fn short(text: &str) -> String {
    const MOST: usize = 64;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::parse;

    #[test]
    fn texts_and_lists_are_read_and_a_wrong_element_is_named() {
        let read = |body: &str| parse::<TextOr<u8>>(body.as_bytes(), 8);
        assert_eq!(read(r#""a""#), Ok(TextOr::Text("a".to_owned())));
        assert_eq!(read("[1, 2]"), Ok(TextOr::List(vec![1, 2])));
        let error = read("[1, true]").unwrap_err();
        assert_eq!(error.param.as_deref(), Some("[1]"));
        let error = read("3").unwrap_err();
        assert!(
            error.message.contains("a string or a list"),
            "{}",
            error.message
        );
    }

    #[test]
    fn long_texts_are_not_repeated_whole() {
        assert_eq!(short("abc"), "abc");
        assert_eq!(short(&"\u{e9}".repeat(100)).chars().count(), 67);
    }
}
