//! Building a tokenizer from metadata that nobody has checked.

use tercel_formats::gguf::{GgufError, Metadata};

use super::byte_level::{self, ByteLevel};
use super::markers::{Marker, Markers};
use super::pretokenize::PreTokenizer;
use super::sentencepiece::{self, SentencePiece};
use super::vocab::Vocab;
use super::{Scheme, TokenId, TokenKind, Tokenizer};
use crate::error::TextError;

/// Longest token that is matched whole, in bytes.
const MAX_SPECIAL_BYTES: usize = 1024;

/// What models write to end a turn, a message or a text, where the metadata names only one.
const END_TEXTS: &[&str] = &[
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|end_of_turn|>",
    "<|endofturn|>",
    "<end_of_turn>",
    "<turn|>",
    "<end_of_utterance>",
    "<EOT>",
    "_<EOT>",
    "</s>",
    "<\u{ff5c}end\u{2581}of\u{2581}sentence\u{ff5c}>",
];

/// What a tokenizer is made of, as the metadata of a file gives it. Nothing here is trusted.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct TokenizerParts<'a> {
    /// `gpt2` (byte-level BPE) or `llama` (SentencePiece BPE).
    pub model: &'a str,
    /// The name of the pre-tokenizer, for `gpt2`.
    pub pre: Option<&'a str>,
    /// Token texts, by id.
    pub tokens: Vec<&'a str>,
    /// One score for each token; needed by `llama`.
    pub scores: Option<Vec<f32>>,
    /// One kind for each token, numbered as in GGUF; all are normal where it is absent.
    pub kinds: Option<Vec<i32>>,
    /// Pairs of token texts with a space between, best first; needed by `gpt2`.
    pub merges: Option<Vec<&'a str>>,
    /// The begin-of-sequence token.
    pub bos: Option<TokenId>,
    /// The end-of-sequence token.
    pub eos: Option<TokenId>,
    /// The end-of-turn token.
    pub eot: Option<TokenId>,
    /// The end-of-message token.
    pub eom: Option<TokenId>,
    /// The unknown token.
    pub unk: Option<TokenId>,
    /// The padding token.
    pub pad: Option<TokenId>,
    /// Whether a text begins with the begin-of-sequence token.
    pub add_bos: Option<bool>,
    /// Whether a text ends with the end-of-sequence token.
    pub add_eos: Option<bool>,
    /// Whether a text gets a space in front, for `llama`.
    pub add_space_prefix: Option<bool>,
}

impl<'a> TokenizerParts<'a> {
    /// Reads the `tokenizer.ggml.*` keys (GGUF specification, "Tokenizer").
    ///
    /// # Errors
    /// A key that is missing or of another type.
    pub fn from_gguf(meta: &Metadata<'a>) -> Result<Self, TextError> {
        let wrong = |error: GgufError| TextError::Metadata {
            problem: error.to_string(),
        };
        let strings = |key| {
            Ok(meta
                .strings(key)
                .map_err(wrong)?
                .map(|list| list.iter().collect()))
        };
        let id = |key| meta.u32(key).map_err(wrong);
        let flag = |key| meta.bool(key).map_err(wrong);
        let missing = |field| TextError::MissingField { field };
        let model = "tokenizer.ggml.model";
        let tokens = "tokenizer.ggml.tokens";
        Ok(Self {
            model: meta
                .str(model)
                .map_err(wrong)?
                .ok_or_else(|| missing(model))?,
            pre: meta.str("tokenizer.ggml.pre").map_err(wrong)?,
            tokens: strings(tokens)?.ok_or_else(|| missing(tokens))?,
            scores: meta.f32s("tokenizer.ggml.scores").map_err(wrong)?,
            kinds: meta.i32s("tokenizer.ggml.token_type").map_err(wrong)?,
            merges: strings("tokenizer.ggml.merges")?,
            bos: id("tokenizer.ggml.bos_token_id")?,
            eos: id("tokenizer.ggml.eos_token_id")?,
            eot: id("tokenizer.ggml.eot_token_id")?,
            eom: id("tokenizer.ggml.eom_token_id")?,
            unk: id("tokenizer.ggml.unknown_token_id")?,
            pad: id("tokenizer.ggml.padding_token_id")?,
            add_bos: flag("tokenizer.ggml.add_bos_token")?,
            add_eos: flag("tokenizer.ggml.add_eos_token")?,
            add_space_prefix: flag("tokenizer.ggml.add_space_prefix")?,
        })
    }

    fn check_ids(&self) -> Result<(), TextError> {
        let ids = [
            ("tokenizer.ggml.bos_token_id", self.bos),
            ("tokenizer.ggml.eos_token_id", self.eos),
            ("tokenizer.ggml.eot_token_id", self.eot),
            ("tokenizer.ggml.eom_token_id", self.eom),
            ("tokenizer.ggml.unknown_token_id", self.unk),
            ("tokenizer.ggml.padding_token_id", self.pad),
        ];
        let vocab_size = self.tokens.len();
        for (field, id) in ids {
            if let Some(id) = id.filter(|id| *id as usize >= vocab_size) {
                return Err(TextError::TokenId {
                    field,
                    id,
                    vocab_size,
                });
            }
        }
        Ok(())
    }

    fn check_length(&self, field: &'static str, found: usize) -> Result<(), TextError> {
        let expected = self.tokens.len();
        if found == expected {
            Ok(())
        } else {
            Err(TextError::Length {
                field,
                expected,
                found,
            })
        }
    }

    /// Kinds of all tokens; those that the metadata names as marks are control tokens even where
    /// the file calls them normal.
    fn token_kinds(&self) -> Result<Vec<TokenKind>, TextError> {
        let field = "tokenizer.ggml.token_type";
        let mut kinds = match &self.kinds {
            None => vec![TokenKind::Normal; self.tokens.len()],
            Some(kinds) => {
                self.check_length(field, kinds.len())?;
                let mut checked = Vec::with_capacity(kinds.len());
                for (index, kind) in kinds.iter().enumerate() {
                    checked.push(TokenKind::from_file(*kind).ok_or_else(|| TextError::Entry {
                        field,
                        index,
                        problem: format!("kind {kind} is none of 1 to 6"),
                    })?);
                }
                checked
            }
        };
        for id in [self.bos, self.eos, self.eot, self.eom]
            .into_iter()
            .flatten()
        {
            if let Some(kind @ TokenKind::Normal) = kinds.get_mut(id as usize) {
                *kind = TokenKind::Control;
            }
        }
        Ok(kinds)
    }
}

impl Tokenizer {
    /// The tokenizer of a GGUF file.
    ///
    /// # Errors
    /// Metadata that is missing, inconsistent, or of a kind this build cannot run.
    pub fn from_gguf(meta: &Metadata<'_>) -> Result<Self, TextError> {
        Self::from_parts(&TokenizerParts::from_gguf(meta)?)
    }

    /// A tokenizer of parts that nobody has checked.
    ///
    /// # Errors
    /// Parts that are missing, inconsistent, or of a kind this build cannot run.
    pub fn from_parts(parts: &TokenizerParts<'_>) -> Result<Self, TextError> {
        if !matches!(parts.model, "gpt2" | "llama") {
            return Err(TextError::UnknownModel {
                name: parts.model.into(),
                supported: "gpt2, llama".into(),
            });
        }
        parts.check_ids()?;
        let vocab = Vocab::new(&parts.tokens, parts.token_kinds()?)?;
        let (scheme, pieces) = if parts.model == "gpt2" {
            byte_level_scheme(parts, &vocab)?
        } else {
            let scores = parts.scores.as_deref();
            let field = "tokenizer.ggml.scores";
            let scores = scores.ok_or(TextError::MissingField { field })?;
            parts.check_length(field, scores.len())?;
            let scheme = SentencePiece::new(&vocab, &parts.tokens, scores, parts.unk)?;
            (
                Scheme::SentencePiece(scheme),
                sentencepiece::pieces(&vocab, &parts.tokens)?,
            )
        };
        let sentencepiece = matches!(scheme, Scheme::SentencePiece(_));
        // Llama 3 files may leave the flag out, and the model wants the token all the same.
        let add_bos = sentencepiece || matches!(&scheme, Scheme::ByteLevel(it) if it.wants_bos());
        let Specials {
            all,
            control,
            spaced,
        } = special_tokens(&vocab, &parts.tokens, sentencepiece)?;
        Ok(Self {
            ends: end_ids(parts, &vocab),
            vocab,
            pieces,
            scheme,
            model: parts.model.into(),
            pre: parts.pre.unwrap_or("default").into(),
            specials: all,
            control,
            spaced,
            add_space_prefix: parts.add_space_prefix.unwrap_or(sentencepiece) && sentencepiece,
            add_bos: parts.add_bos.unwrap_or(add_bos) && parts.bos.is_some(),
            add_eos: parts.add_eos.unwrap_or(false) && parts.eos.is_some(),
            bos: parts.bos,
            eos: parts.eos,
            unk: parts.unk,
            pad: parts.pad,
        })
    }
}

fn byte_level_scheme(
    parts: &TokenizerParts<'_>,
    vocab: &Vocab,
) -> Result<(Scheme, super::Arena), TextError> {
    let name = parts.pre.unwrap_or("default");
    let pre = PreTokenizer::named(name).ok_or_else(|| TextError::UnknownPreTokenizer {
        name: name.into(),
        supported: PreTokenizer::names(),
    })?;
    let merges = parts.merges.as_deref();
    let merges = merges.ok_or(TextError::MissingField {
        field: "tokenizer.ggml.merges",
    })?;
    let scheme = ByteLevel::new(vocab, pre, merges)?;
    Ok((
        Scheme::ByteLevel(scheme),
        byte_level::pieces(vocab, &parts.tokens)?,
    ))
}

/// Tokens that are matched whole.
struct Specials {
    /// Every one of them, as texts spell them.
    all: Markers,
    /// Control tokens, and the unknown token.
    control: Markers,
    /// SentencePiece's user-defined tokens with spaces, once more, for texts whose spaces have
    /// become visible.
    spaced: Markers,
}

fn special_tokens(
    vocab: &Vocab,
    tokens: &[&str],
    sentencepiece: bool,
) -> Result<Specials, TextError> {
    let (mut all, mut control, mut spaced) = (Vec::new(), Vec::new(), Vec::new());
    for (id, kind, text) in vocab.iter(tokens) {
        let is_control = match kind {
            TokenKind::Control | TokenKind::Unknown => true,
            TokenKind::UserDefined => false,
            TokenKind::Normal | TokenKind::Unused | TokenKind::Byte => continue,
        };
        if text.len() > MAX_SPECIAL_BYTES {
            return Err(TextError::Entry {
                field: "tokenizer.ggml.tokens",
                index: id as usize,
                problem: format!("a special token of {} bytes, at most 1024", text.len()),
            });
        }
        let marker = |text: &str| Marker {
            text: text.into(),
            id,
            control: is_control,
        };
        if is_control {
            control.push(marker(text));
            all.push(marker(text));
        } else if sentencepiece && text.contains(' ') {
            // Files write the spaces of these tokens plainly, but the model was trained with the
            // visible kind: a text that holds it is matched first, plain spaces after they have
            // become visible.
            let visible = text.replace(' ', sentencepiece::SPACE.encode_utf8(&mut [0; 4]));
            spaced.push(marker(&visible));
            all.push(marker(&visible));
        } else {
            all.push(marker(text));
        }
    }
    Ok(Specials {
        all: Markers::of(all),
        control: Markers::of(control),
        spaced: Markers::of(spaced),
    })
}

fn end_ids(parts: &TokenizerParts<'_>, vocab: &Vocab) -> Vec<TokenId> {
    let mut ends: Vec<TokenId> = [parts.eos, parts.eot, parts.eom]
        .into_iter()
        .flatten()
        .collect();
    let named = END_TEXTS
        .iter()
        .filter_map(|text| vocab.find(text.as_bytes()));
    ends.extend(named.filter(|id| vocab.kind(*id) == TokenKind::Control));
    ends.sort_unstable();
    ends.dedup();
    ends
}
