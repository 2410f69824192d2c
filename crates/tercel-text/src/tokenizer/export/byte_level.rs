//! `tokenizer.json` of a byte-level BPE.

use std::collections::HashSet;

use serde_json::{Map, Value as Json, json};

use super::{ExportedFile, added_token};
use crate::error::TextError;
use crate::tokenizer::bpe::split_merge;
use crate::tokenizer::build::TEKKEN;
use crate::tokenizer::pretokenize::PreTokenizer;
use crate::tokenizer::{TokenId, TokenKind, TokenizerParts};

pub(super) fn file(
    parts: &TokenizerParts<'_>,
    kinds: &[TokenKind],
) -> Result<ExportedFile, TextError> {
    let name = parts.pre.unwrap_or("default");
    let scheme = PreTokenizer::named(name);
    let tekken = name == TEKKEN.0;
    if scheme.is_none() && !tekken {
        return Err(TextError::UnknownPreTokenizer {
            name: name.into(),
            supported: format!("{}, {}", PreTokenizer::names(), TEKKEN.0),
        });
    }
    let composed = matches!(scheme, Some(PreTokenizer::Qwen2 | PreTokenizer::Qwen35));
    let added = parts.added(kinds).map(|(id, text, special)| {
        let mut token = added_token(text, special);
        token.insert("id".to_owned(), id.into());
        Json::Object(token)
    });
    let json = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": composed.then(|| json!({"type": "NFC"})),
        "pre_tokenizer": pre_tokenizer(scheme),
        "post_processor": post_processor(parts),
        "decoder": byte_level(true),
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": tekken || scheme == Some(PreTokenizer::Llama3),
            "vocab": vocab(parts, kinds)?,
            "merges": merges(parts)?,
        },
    });
    let name = "tokenizer.json";
    let bytes = json.to_string().into_bytes();
    Ok(ExportedFile { name, bytes })
}

/// Every token by its text. Rows of a padded embedding, at the end, are no tokens.
fn vocab(parts: &TokenizerParts<'_>, kinds: &[TokenKind]) -> Result<Map<String, Json>, TextError> {
    let used = kinds.iter().rposition(|kind| *kind != TokenKind::Unused);
    let len = used.map_or(0, |last| last + 1);
    let mut vocab = Map::new();
    let mut seen = HashSet::with_capacity(len);
    for (id, text) in parts.tokens.iter().take(len).enumerate() {
        if !seen.insert(*text) {
            return Err(TextError::Entry {
                field: "tokenizer.ggml.tokens",
                index: id,
                problem: "repeats the text of another token, which `tokenizer.json` cannot say"
                    .into(),
            });
        }
        vocab.insert((*text).to_owned(), id.into());
    }
    Ok(vocab)
}

fn merges(parts: &TokenizerParts<'_>) -> Result<Vec<[String; 2]>, TextError> {
    let field = "tokenizer.ggml.merges";
    let merges = parts.merges.as_deref();
    let merges = merges.ok_or(TextError::MissingField { field })?;
    let pairs = merges.iter().enumerate().map(|(index, merge)| {
        let (left, right) = split_merge(merge).map_err(|_| TextError::Entry {
            field,
            index,
            problem: "is no pair of tokens with a space between".into(),
        })?;
        Ok([left.to_owned(), right.to_owned()])
    });
    pairs.collect()
}

fn pre_tokenizer(scheme: Option<PreTokenizer>) -> Json {
    let split = match scheme {
        // What `ByteLevel` does by itself.
        Some(PreTokenizer::Gpt2) => return byte_level(true),
        Some(PreTokenizer::SmolLm) => json!({"type": "Digits", "individual_digits": true}),
        Some(scheme) => by_expression(scheme.expression().unwrap_or_default()),
        None => by_expression(TEKKEN.1),
    };
    let words = scheme == Some(PreTokenizer::SmolLm);
    json!({"type": "Sequence", "pretokenizers": [split, byte_level(words)]})
}

fn by_expression(expression: &str) -> Json {
    json!({
        "type": "Split",
        "pattern": {"Regex": expression},
        "behavior": "Isolated",
        "invert": false,
    })
}

/// Bytes as visible characters; `words` cuts the text as GPT-2 did before.
fn byte_level(words: bool) -> Json {
    json!({
        "type": "ByteLevel",
        "add_prefix_space": false,
        "trim_offsets": true,
        "use_regex": words,
    })
}

/// What goes around a text.
fn post_processor(parts: &TokenizerParts<'_>) -> Json {
    let of = |wanted: bool, id: Option<TokenId>| {
        let id = id.filter(|_| wanted)?;
        Some((id, parts.text(id)?))
    };
    let (before, after) = (of(parts.begins(), parts.bos), of(parts.ends(), parts.eos));
    if before.is_none() && after.is_none() {
        return byte_level(true);
    }
    let token = |(_, text): (TokenId, &str), side: u8| json!({"SpecialToken": {"id": text, "type_id": side}});
    let around = |name: &str, side: u8| {
        let text = json!({"Sequence": {"id": name, "type_id": side}});
        let all = [
            before.map(|end| token(end, side)),
            Some(text),
            after.map(|end| token(end, side)),
        ];
        all.into_iter().flatten().collect::<Vec<_>>()
    };
    let special: Map<String, Json> = before
        .into_iter()
        .chain(after)
        .map(|(id, text)| {
            let entry = json!({"id": text, "ids": [id], "tokens": [text]});
            (text.to_owned(), entry)
        })
        .collect();
    let pair = [around("A", 0), around("B", 1)].concat();
    json!({
        "type": "TemplateProcessing",
        "single": around("A", 0),
        "pair": pair,
        "special_tokens": special,
    })
}
