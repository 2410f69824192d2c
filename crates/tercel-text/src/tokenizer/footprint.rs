//! What a tokenizer takes of the memory: counted, and estimated before it is built.

use tercel_formats::gguf::{GgufError, Metadata};

use super::bpe::merges_bytes;
use super::markers::Markers;
use super::sentencepiece::SPACE;
use super::vocab::Vocab;
use super::{TokenKind, Tokenizer, hf};
use crate::error::TextError;

impl Tokenizer {
    /// Bytes that it has on the heap: the sum of what its parts reserved. A compiled regular
    /// expression, which few tokenizers need, counts as a fixed figure.
    pub fn heap_bytes(&self) -> usize {
        let markers = [&self.specials, &self.normalized_specials, &self.control];
        let markers: usize = markers.into_iter().map(Markers::heap_bytes).sum();
        self.vocab.heap_bytes()
            + self.pieces.heap_bytes()
            + self.pipeline.heap_bytes()
            + self.model.capacity()
            + self.pre.capacity()
            + markers
            + self.ends.capacity() * size_of::<super::TokenId>()
    }
}

/// How large a vocabulary is, read from the files that describe it without building anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VocabularySize {
    /// Number of tokens.
    pub tokens: usize,
    /// Bytes of their texts as the file writes them.
    pub text_bytes: usize,
    /// Bytes that they stand for.
    pub piece_bytes: usize,
    /// Number of merges.
    pub merges: usize,
    /// Whether every token has a score.
    pub scored: bool,
    /// Tokens that are matched whole.
    pub specials: usize,
    /// Bytes of the texts of those.
    pub special_bytes: usize,
}

impl VocabularySize {
    /// That of a GGUF file; `None` for a file without a vocabulary.
    ///
    /// # Errors
    /// A key of another type.
    pub fn from_gguf(meta: &Metadata<'_>) -> Result<Option<Self>, TextError> {
        let wrong = |error: GgufError| TextError::Metadata {
            problem: error.to_string(),
        };
        let Some(tokens) = meta.strings("tokenizer.ggml.tokens").map_err(wrong)? else {
            return Ok(None);
        };
        let kinds = meta.i32s("tokenizer.ggml.token_type").map_err(wrong)?;
        let merges = meta.strings("tokenizer.ggml.merges").map_err(wrong)?;
        let mut size = Self {
            merges: merges.map_or(0, |merges| merges.len()),
            scored: meta.str("tokenizer.ggml.model").map_err(wrong)? == Some("llama"),
            ..Self::default()
        };
        for (id, text) in tokens.iter().enumerate() {
            let kind = kinds.as_ref().and_then(|kinds| kinds.get(id));
            let kind = kind.and_then(|kind| TokenKind::from_file(*kind));
            size.add(text, kind.unwrap_or(TokenKind::Normal));
        }
        Ok(Some(size))
    }

    /// That of a `tokenizer.json`.
    ///
    /// # Errors
    /// A file that is malformed.
    pub fn from_hf(tokenizer_json: &[u8]) -> Result<Self, TextError> {
        hf::vocabulary_size(tokenizer_json)
    }

    /// A guess where nothing but the number of tokens is known: texts as long as those of published
    /// vocabularies, and as many merges as tokens.
    pub fn typical(tokens: usize) -> Self {
        Self {
            tokens,
            text_bytes: tokens.saturating_mul(8),
            piece_bytes: tokens.saturating_mul(7),
            merges: tokens,
            ..Self::default()
        }
    }

    /// Estimates [`Tokenizer::heap_bytes`].
    pub fn heap_bytes(&self) -> usize {
        let pieces = self.piece_bytes + self.tokens * size_of::<u32>();
        let ranks = if self.scored {
            self.tokens * size_of::<u32>()
        } else {
            0
        };
        // Control tokens, which most of them are, stand in two sets.
        let specials = 2 * Markers::estimate(self.specials, self.special_bytes);
        Vocab::estimate(self.tokens, self.text_bytes)
            + pieces
            + ranks
            + merges_bytes(self.merges)
            + specials
    }

    /// Counts a token.
    pub(super) fn add(&mut self, text: &str, kind: TokenKind) {
        self.tokens += 1;
        self.text_bytes += text.len();
        match kind {
            TokenKind::Control | TokenKind::Unknown => self.add_special(text),
            TokenKind::UserDefined => {
                self.add_special(text);
                self.piece_bytes += text.len();
            }
            TokenKind::Unused => {}
            TokenKind::Byte => self.piece_bytes += 1,
            // A visible space is a space; in the byte-level alphabet a character is a byte.
            TokenKind::Normal if self.scored => {
                let spaces = text.matches(SPACE).count();
                self.piece_bytes += text.len() - spaces * (SPACE.len_utf8() - 1);
            }
            TokenKind::Normal => self.piece_bytes += text.chars().count(),
        }
    }

    pub(super) fn add_special(&mut self, text: &str) {
        self.specials += 1;
        self.special_bytes += text.len();
    }
}
