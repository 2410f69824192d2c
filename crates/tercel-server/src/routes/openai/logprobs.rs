//! How likely the tokens of a reply were, in the two forms of the protocol.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;
use tercel::TokenLogprob;
use utoipa::ToSchema;

/// What stands for a probability of nothing, for which JSON has no number.
const LEAST: f32 = -9999.0;

/// A token of a reply.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(super) struct TokenEntry {
    /// Its text; `bytes:\x..` for a token that is no whole character.
    pub(super) token: String,
    #[schema(value_type = Vec<i32>)]
    pub(super) bytes: Vec<u8>,
    pub(super) logprob: f32,
    /// The most likely tokens at its place.
    pub(super) top_logprobs: Vec<TopEntry>,
}

/// One of the most likely tokens at a place.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(super) struct TopEntry {
    pub(super) token: String,
    #[schema(value_type = Vec<i32>)]
    pub(super) bytes: Vec<u8>,
    pub(super) logprob: f32,
}

/// The tokens of a chat's choice.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(super) struct ChoiceLogprobs {
    pub(super) content: Vec<TokenEntry>,
    /// Nothing: models here do not refuse apart from their text.
    pub(super) refusal: Option<Vec<TokenEntry>>,
}

impl ChoiceLogprobs {
    pub(super) fn new(content: Vec<TokenEntry>) -> Self {
        Self {
            content,
            refusal: None,
        }
    }
}

/// The tokens of a completion's choice.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub(super) struct TextLogprobs {
    pub(super) tokens: Vec<String>,
    pub(super) token_logprobs: Vec<f32>,
    /// Nothing where no alternatives were asked for.
    pub(super) top_logprobs: Option<Vec<BTreeMap<String, f32>>>,
    /// At which character of the text each begins.
    pub(super) text_offset: Vec<usize>,
}

impl TextLogprobs {
    /// Those of tokens that begin after `offset` characters, which moves on.
    pub(super) fn new(entries: Vec<TokenEntry>, has_top: bool, offset: &mut usize) -> Self {
        let mut all = Self {
            top_logprobs: has_top.then(Vec::new),
            ..Self::default()
        };
        for entry in entries {
            // A byte that goes on with a character belongs to the one begun before.
            let is_begin = |byte: &u8| !(0x80..0xC0).contains(byte);
            let goes_on = entry.bytes.first().is_some_and(|byte| !is_begin(byte));
            all.text_offset
                .push(offset.saturating_sub(usize::from(goes_on)));
            *offset += entry.bytes.iter().filter(|byte| is_begin(byte)).count();
            if let Some(tops) = &mut all.top_logprobs {
                let mut top: BTreeMap<String, f32> = BTreeMap::new();
                top.extend(
                    entry
                        .top_logprobs
                        .into_iter()
                        .map(|top| (top.token, top.logprob)),
                );
                top.insert(entry.token.clone(), entry.logprob);
                tops.push(top);
            }
            all.tokens.push(entry.token);
            all.token_logprobs.push(entry.logprob);
        }
        all
    }
}

/// The tokens that stand for something: not those that end a reply.
pub(super) fn entries(logprobs: &[TokenLogprob]) -> Vec<TokenEntry> {
    let shown = logprobs.iter().filter(|one| !one.bytes.is_empty());
    shown
        .map(|one| {
            let top = one.top.iter().map(|top| (&*top.bytes, top.logprob));
            entry(&one.bytes, one.logprob, top)
        })
        .collect()
}

/// One token, with the most likely ones at its place.
pub(super) fn entry<'a>(
    bytes: &[u8],
    logprob: f32,
    top: impl Iterator<Item = (&'a [u8], f32)>,
) -> TokenEntry {
    TokenEntry {
        token: text_of(bytes),
        bytes: bytes.to_vec(),
        logprob: logprob.max(LEAST),
        top_logprobs: top
            .map(|(bytes, logprob)| TopEntry {
                token: text_of(bytes),
                bytes: bytes.to_vec(),
                logprob: logprob.max(LEAST),
            })
            .collect(),
    }
}

/// A token as text. Tokens that are parts of characters must not all look alike.
fn text_of(bytes: &[u8]) -> String {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return text.to_owned();
    }
    let mut text = "bytes:".to_owned();
    for byte in bytes {
        let _ = write!(text, "\\x{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plain(bytes: &[u8]) -> TokenEntry {
        entry(bytes, -0.5, std::iter::empty())
    }

    #[test]
    fn parts_of_characters_are_told_apart() {
        let token = entry(
            &[0xF0, 0x9F],
            f32::NEG_INFINITY,
            [(&b"a"[..], -1.0)].into_iter(),
        );
        let want = json!({
            "token": "bytes:\\xf0\\x9f", "bytes": [240, 159], "logprob": -9999.0,
            "top_logprobs": [{"token": "a", "bytes": [97], "logprob": -1.0}],
        });
        assert_eq!(serde_json::to_value(token).unwrap(), want);
    }

    #[test]
    fn offsets_count_characters_and_go_on_from_part_to_part() {
        let mut offset = 0;
        let emoji = "\u{1F600}".as_bytes();
        let parts = vec![
            plain(b"ab"),
            plain(&emoji[..2]),
            plain(&emoji[2..]),
            plain(b"c"),
        ];
        let first = TextLogprobs::new(parts, false, &mut offset);
        assert_eq!(first.text_offset, [0, 2, 2, 3]);
        assert_eq!(first.top_logprobs, None);
        let second = TextLogprobs::new(vec![plain(b"d")], false, &mut offset);
        assert_eq!(second.text_offset, [4]);
    }

    #[test]
    fn the_token_itself_is_among_the_likely_ones() {
        let token = entry(
            b"a",
            -3.0,
            [(&b"b"[..], -0.1), (&b"c"[..], -2.0)].into_iter(),
        );
        let all = TextLogprobs::new(vec![token], true, &mut 0);
        let want = json!({
            "tokens": ["a"], "token_logprobs": [-3.0], "text_offset": [0],
            "top_logprobs": [{"a": -3.0, "b": -0.1, "c": -2.0}],
        });
        let got = serde_json::to_string(&all).unwrap();
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&got).unwrap(),
            want
        );
    }
}
