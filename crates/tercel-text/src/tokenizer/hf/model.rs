//! The `model` of a `tokenizer.json`: how words become ids.

use super::json;
use super::tokens::Tokens;
use crate::error::TextError;
use crate::tokenizer::TokenId;
use crate::tokenizer::bpe::{Bpe, BpeOptions, Unknown};
use crate::tokenizer::merge::NO_TOKEN;
use crate::tokenizer::pipeline::Model;
use crate::tokenizer::unigram::{Unigram, UnigramOptions};
use crate::tokenizer::vocab::Vocab;
use crate::tokenizer::wordpiece::WordPiece;

/// The kinds of models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bpe,
    Unigram,
    WordPiece,
}

impl Kind {
    const NAMES: &[(&str, Self)] = &[
        ("BPE", Self::Bpe),
        ("Unigram", Self::Unigram),
        ("WordPiece", Self::WordPiece),
    ];

    /// What the file says, or what its fields show: old files have no `type`.
    pub(super) fn of(model: &json::Model) -> Result<Self, TextError> {
        let name = match &model.kind {
            Some(name) => name,
            None if model.merges.is_some() => "BPE",
            None if model.vocab.scored => "Unigram",
            None => "WordPiece",
        };
        let found = Self::NAMES.iter().find(|(known, _)| *known == name);
        let names = Self::NAMES.iter().map(|(name, _)| *name);
        found
            .map(|(_, kind)| *kind)
            .ok_or_else(|| TextError::UnknownModel {
                name: name.into(),
                supported: names.collect::<Vec<_>>().join(", "),
            })
    }

    pub(super) fn name(self) -> &'static str {
        let of = |(_, kind): &&(&str, Self)| *kind == self;
        Self::NAMES.iter().find(of).map_or("", |(name, _)| name)
    }
}

pub(super) fn build(
    model: &json::Model,
    kind: Kind,
    vocab: &Vocab,
    tokens: &Tokens<'_>,
    byte_level: bool,
) -> Result<Model, TextError> {
    match kind {
        Kind::Bpe => bpe(model, vocab, tokens, byte_level).map(Model::Bpe),
        Kind::Unigram | Kind::WordPiece if byte_level => Err(TextError::UnsupportedPart {
            part: "model",
            name: format!("{} with `ByteLevel` before it", kind.name()),
        }),
        Kind::Unigram => unigram(model, vocab, tokens).map(Model::Unigram),
        Kind::WordPiece => wordpiece(model, vocab).map(Model::WordPiece),
    }
}

fn bpe(
    model: &json::Model,
    vocab: &Vocab,
    tokens: &Tokens<'_>,
    byte_level: bool,
) -> Result<Bpe, TextError> {
    let affixes = [&model.continuing_subword_prefix, &model.end_of_word_suffix];
    refuse(
        model.dropout.is_some_and(|p| p != 0.0),
        "BPE with `dropout`",
    )?;
    refuse(
        affixes.into_iter().flatten().any(|affix| !affix.is_empty()),
        "BPE with `continuing_subword_prefix` or `end_of_word_suffix`",
    )?;
    refuse(model.vocab.scored, "BPE with scores")?;
    let merges = model.merges.as_ref().ok_or(TextError::MissingField {
        field: "model.merges",
    })?;
    let unknown = Unknown {
        token: tokens.unknown.filter(|_| model.unk_token.is_some()),
        fuse: model.fuse_unk,
        bytes: model.byte_fallback.then(|| byte_tokens(vocab)),
    };
    let options = BpeOptions {
        byte_level,
        whole_words: model.ignore_merges,
        unknown,
        field: "model.merges",
    };
    Bpe::new(vocab, merges.iter(), options)
}

fn unigram(model: &json::Model, vocab: &Vocab, tokens: &Tokens<'_>) -> Result<Unigram, TextError> {
    refuse(!model.vocab.scored, "Unigram without scores")?;
    refuse(model.merges.is_some(), "Unigram with merges")?;
    let options = UnigramOptions {
        unknown: model.unk_id.ok_or(TextError::MissingField {
            field: "model.unk_id",
        })?,
        bytes: model.byte_fallback.then(|| byte_tokens(vocab)),
        sentencepiece: false,
        field: "model.vocab",
    };
    let scores = model.vocab.iter().map(|(_, _, score)| score).collect();
    Unigram::new(vocab, &tokens.texts, scores, options)
}

fn wordpiece(model: &json::Model, vocab: &Vocab) -> Result<WordPiece, TextError> {
    refuse(model.vocab.scored, "WordPiece with scores")?;
    refuse(model.merges.is_some(), "WordPiece with merges")?;
    let name = model.unk_token.as_deref().unwrap_or("[UNK]");
    let unknown = vocab.find(name.as_bytes());
    refuse(unknown.is_none(), "WordPiece without an unknown token")?;
    let prefix = model.continuing_subword_prefix.clone();
    // A longer word would take quadratic time.
    let max_word_chars = model.max_input_chars_per_word.unwrap_or(100);
    refuse(
        max_word_chars > 256,
        "WordPiece with words of over 256 characters",
    )?;
    Ok(WordPiece {
        unknown,
        prefix: prefix.unwrap_or_else(|| "##".into()),
        max_word_chars,
    })
}

fn refuse(condition: bool, name: &str) -> Result<(), TextError> {
    if !condition {
        return Ok(());
    }
    Err(TextError::UnsupportedPart {
        part: "model",
        name: name.into(),
    })
}

/// The tokens `<0x00>` to `<0xFF>`; [`NO_TOKEN`] where the vocabulary has none.
fn byte_tokens(vocab: &Vocab) -> Box<[TokenId; 256]> {
    let mut bytes = Box::new([NO_TOKEN; 256]);
    for (byte, id) in bytes.iter_mut().enumerate() {
        let text = format!("<0x{byte:02X}>");
        *id = vocab.find(text.as_bytes()).unwrap_or(NO_TOKEN);
    }
    bytes
}
