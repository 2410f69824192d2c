//! Building a tokenizer from metadata that nobody has checked.

use tercel_formats::gguf::{GgufError, Metadata};

use super::bpe::{Bpe, BpeOptions, split_merge};
use super::byte_level;
use super::markers::{Marker, Markers};
use super::normalize::{Normalize, Normalizer};
use super::pipeline::{Model, Pipeline};
use super::pretokenize::PreTokenizer;
use super::sentencepiece::{self, SentencePiece};
use super::split::{Split, Splitter};
use super::vocab::Vocab;
use super::{StripStart, TokenId, TokenKind, Tokenizer};
use crate::error::TextError;

/// Longest token that is matched whole, in bytes.
const MAX_SPECIAL_BYTES: usize = 1024;

/// Mistral's pre-tokenizer: its name, and its expression.
pub(super) const TEKKEN: (&str, &str) = (
    "tekken",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

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

    pub(super) fn check_ids(&self) -> Result<(), TextError> {
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
    pub(super) fn token_kinds(&self) -> Result<Vec<TokenKind>, TextError> {
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
        let sentencepiece = parts.model == "llama";
        let add_space_prefix = parts.add_space_prefix.unwrap_or(true) && sentencepiece;
        let (pipeline, pieces) = if sentencepiece {
            (
                sentencepiece_pipeline(parts, &vocab, add_space_prefix)?,
                sentencepiece::pieces(&vocab, &parts.tokens)?,
            )
        } else {
            (
                byte_level_pipeline(parts, &vocab)?,
                byte_level::pieces(&vocab, &parts.tokens)?,
            )
        };
        let pre = parts.pre.unwrap_or("default");
        // Llama 3 files may leave the flag out, and the model wants the token all the same.
        let add_bos = sentencepiece || PreTokenizer::named(pre) == Some(PreTokenizer::Llama3);
        let Specials {
            all,
            control,
            spaced,
        } = special_tokens(&vocab, &parts.tokens, sentencepiece)?;
        Ok(Self {
            ends: end_ids([parts.eos, parts.eot, parts.eom], &vocab),
            vocab,
            pieces,
            pipeline,
            model: parts.model.into(),
            pre: pre.into(),
            specials: all,
            control,
            normalized_specials: spaced,
            strip_start: StripStart::one_if(add_space_prefix),
            add_bos: parts.add_bos.unwrap_or(add_bos) && parts.bos.is_some(),
            add_eos: parts.add_eos.unwrap_or(false) && parts.eos.is_some(),
            bos: parts.bos,
            eos: parts.eos,
            unk: parts.unk,
            pad: parts.pad,
        })
    }
}

fn sentencepiece_pipeline(
    parts: &TokenizerParts<'_>,
    vocab: &Vocab,
    add_space_prefix: bool,
) -> Result<Pipeline, TextError> {
    let scores = parts.scores.as_deref();
    let field = "tokenizer.ggml.scores";
    let scores = scores.ok_or(TextError::MissingField { field })?;
    parts.check_length(field, scores.len())?;
    let model = SentencePiece::new(vocab, &parts.tokens, scores, parts.unk)?;
    let mut steps = vec![Normalizer::visible_spaces()];
    if add_space_prefix {
        steps.push(Normalize::Prepend(sentencepiece::SPACE.into()));
    }
    Ok(Pipeline {
        normalizer: Normalizer(steps),
        splitter: Splitter::default(),
        model: Model::SentencePiece(model),
    })
}

fn byte_level_pipeline(parts: &TokenizerParts<'_>, vocab: &Vocab) -> Result<Pipeline, TextError> {
    let name = parts.pre.unwrap_or("default");
    let words = PreTokenizer::named(name);
    let split = match words {
        Some(scheme) => Split::Words(scheme),
        None if name == TEKKEN.0 => {
            Split::expression(TEKKEN.1).map_err(|problem| TextError::Metadata { problem })?
        }
        None => {
            return Err(TextError::UnknownPreTokenizer {
                name: name.into(),
                supported: format!("{}, {}", PreTokenizer::names(), TEKKEN.0),
            });
        }
    };
    let merges = parts.merges.as_deref();
    let field = "tokenizer.ggml.merges";
    let merges = merges.ok_or(TextError::MissingField { field })?;
    let options = BpeOptions {
        byte_level: true,
        whole_words: matches!(words, Some(PreTokenizer::Llama3) | None),
        field,
        ..BpeOptions::default()
    };
    // The file does not say so, but the tokenizers of these models compose characters first.
    let composed = matches!(words, Some(PreTokenizer::Qwen2 | PreTokenizer::Qwen35));
    let normalizer = composed.then_some(Normalize::Nfc).into_iter().collect();
    let merges = merges.iter().map(|merge| split_merge(merge));
    Ok(Pipeline {
        normalizer: Normalizer(normalizer),
        splitter: Splitter(vec![split]),
        model: Model::Bpe(Bpe::new(vocab, merges, options)?),
    })
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
        check_special("tokenizer.ggml.tokens", id as usize, text)?;
        let marker = |text: &str| Marker::new(text, id, is_control);
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

/// Whether a token is short enough to be looked for at every place of a text.
pub(super) fn check_special(
    field: &'static str,
    index: usize,
    text: &str,
) -> Result<(), TextError> {
    if text.len() <= MAX_SPECIAL_BYTES {
        return Ok(());
    }
    Err(TextError::Entry {
        field,
        index,
        problem: format!("a special token of {} bytes, at most 1024", text.len()),
    })
}

/// The tokens that end a generation: those given, and those of well-known names.
pub(super) fn end_ids(
    given: impl IntoIterator<Item = Option<TokenId>>,
    vocab: &Vocab,
) -> Vec<TokenId> {
    let mut ends: Vec<TokenId> = given.into_iter().flatten().collect();
    let named = END_TEXTS
        .iter()
        .filter_map(|text| vocab.find(text.as_bytes()));
    ends.extend(named.filter(|id| vocab.kind(*id) == TokenKind::Control));
    ends.sort_unstable();
    ends.dedup();
    ends
}
