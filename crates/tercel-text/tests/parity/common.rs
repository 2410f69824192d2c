//! What the tokenizer tests share.

use std::path::PathBuf;

use tercel_text::{TokenKind, Tokenizer, TokenizerParts};

/// A file of `test-data/tokenizers`: texts with their ids, and the vocabulary of the small ones.
#[derive(serde::Deserialize)]
pub(crate) struct Expected {
    #[serde(default)]
    tokens: Vec<String>,
    #[serde(default)]
    kinds: Vec<i32>,
    merges: Option<Vec<String>>,
    scores: Option<Vec<f32>>,
    pub(crate) texts: Vec<Text>,
}

/// A text and the ids that Python gives it. It takes the name of a control token for the token.
#[derive(serde::Deserialize)]
pub(crate) struct Text {
    pub(crate) text: String,
    pub(crate) ids: Vec<u32>,
}

impl Expected {
    pub(crate) fn load(name: &str) -> Self {
        serde_json::from_slice(&data(name)).expect("the shape that make_tokenizers.py writes")
    }
}

/// A file of `test-data/tokenizers`.
pub(crate) fn data(name: &str) -> Vec<u8> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../test-data/tokenizers");
    std::fs::read(root.join(name)).expect("a committed file")
}

/// The parts of a small vocabulary.
pub(crate) fn tiny_parts(file: &Expected) -> TokenizerParts<'_> {
    let id = |text: &str| file.tokens.iter().position(|token| token == text);
    let id = |text: &str| id(text).and_then(|id| u32::try_from(id).ok());
    let mut parts = TokenizerParts::default();
    parts.model = if file.merges.is_some() {
        "gpt2"
    } else {
        "llama"
    };
    parts.pre = Some("gpt-2");
    parts.tokens = file.tokens.iter().map(String::as_str).collect();
    parts.kinds = Some(file.kinds.clone());
    parts.scores = file.scores.clone();
    parts.merges = file
        .merges
        .as_ref()
        .map(|list| list.iter().map(String::as_str).collect());
    parts.eos = id("<|end|>").or_else(|| id("<eos>"));
    parts.bos = id("<bos>");
    parts.unk = id("<unk>");
    parts.add_space_prefix = Some(false);
    parts
}

/// Compares every text, and that text without control tokens is the same by every door.
pub(crate) fn check(tokenizer: &Tokenizer, texts: &[Text]) {
    let mut wrong = Vec::new();
    for Text { text, ids } in texts {
        let trusted = tokenizer.encode_trusted(text);
        if trusted != *ids {
            wrong.push(format!("{text:?}: {trusted:?}, Python gives {ids:?}"));
        }
        let plain = tokenizer.encode(text);
        let names_control = tokenizer
            .markers()
            .iter()
            .any(|marker| text.contains(marker));
        if !names_control && plain != *ids {
            wrong.push(format!(
                "{text:?}: {plain:?} as plain text, Python gives {ids:?}"
            ));
        }
        assert!(
            plain
                .iter()
                .all(|id| tokenizer.kind(*id) != TokenKind::Control),
            "{text:?}"
        );
        if tokenizer.lost_bytes(text) == 0 {
            // The visible space is a space once it is decoded.
            let expected = match tokenizer.model() {
                "llama" => text.replace('\u{2581}', " "),
                _ => text.clone(),
            };
            assert_eq!(tokenizer.decode(&plain), expected);
        }
    }
    let (count, all) = (wrong.len(), texts.len());
    assert!(
        wrong.is_empty(),
        "{count} of {all} texts differ:\n{}",
        wrong.join("\n")
    );
    assert!(all >= 320, "only {all} texts");
}

/// Texts, and their ids by several tokenizers.
#[derive(serde::Deserialize)]
pub(crate) struct Sets {
    texts: Vec<String>,
    ids: std::collections::BTreeMap<String, Vec<Brief>>,
}

/// The ids of a text, and what they decode to where that is not the text.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Brief {
    Same(String),
    Changed(String, String),
}

impl Sets {
    pub(crate) fn load(name: &str) -> Self {
        serde_json::from_slice(&data(name)).expect("the shape that make_tokenizers.py writes")
    }

    /// Every text with its ids by one tokenizer, and what those decode to.
    pub(crate) fn rows(&self, name: &str) -> impl Iterator<Item = (&str, Vec<u32>, &str)> {
        let set = &self.ids[name];
        assert_eq!(set.len(), self.texts.len());
        assert!(set.len() >= 400, "only {} texts", set.len());
        self.texts.iter().zip(set).map(|(text, brief)| {
            let (ids, decoded) = match brief {
                Brief::Same(ids) => (ids, text),
                Brief::Changed(ids, decoded) => (ids, decoded),
            };
            let ids = ids.split_whitespace();
            let ids = ids.map(|id| id.parse().expect("an id")).collect();
            (text.as_str(), ids, decoded.as_str())
        })
    }
}

/// Compares ids and decoded texts with one set, and plain texts by every door.
pub(crate) fn check_set(tokenizer: &Tokenizer, sets: &Sets, name: &str) {
    let mut wrong = Vec::new();
    for (text, ids, decoded) in sets.rows(name) {
        let trusted = tokenizer.encode_trusted(text);
        if trusted != ids {
            wrong.push(format!("{text:?}: {trusted:?}, Python gives {ids:?}"));
        }
        let found = tokenizer.decode(&ids);
        // How many marks stand for bytes that are no character is not the same.
        let broken = decoded.contains('\u{fffd}') && found.contains('\u{fffd}');
        if found != decoded && !broken {
            wrong.push(format!(
                "{text:?} decodes to {found:?}, Python gives {decoded:?}"
            ));
        }
        let plain = tokenizer.encode(text);
        let mut markers = tokenizer.markers().iter();
        if plain != trusted && !markers.any(|marker| text.contains(marker)) {
            wrong.push(format!("{text:?}: {plain:?} as plain text"));
        }
        let control = plain
            .iter()
            .find(|id| tokenizer.kind(**id) == TokenKind::Control);
        assert_eq!(control, None, "{text:?}");
    }
    let count = wrong.len();
    wrong.truncate(20);
    assert!(
        wrong.is_empty(),
        "{name}: {count} texts differ:\n{}",
        wrong.join("\n")
    );
}
