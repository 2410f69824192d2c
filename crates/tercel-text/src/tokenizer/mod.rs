//! From text to token ids and back.

mod bpe;
mod build;
mod byte_level;
mod charsmap;
mod export;
mod footprint;
mod hf;
mod markers;
mod merge;
mod normalize;
mod pattern;
mod pipeline;
mod pretokenize;
mod sentencepiece;
mod split;
mod spm;
mod trie;
mod unicode;
mod unicode_sets;
mod unigram;
mod vocab;
mod wordpiece;

use std::ops::Range;

pub use build::TokenizerParts;
pub use export::ExportedFile;
pub use footprint::VocabularySize;
pub use hf::HfTokenizerFiles;
pub use markers::Markers;
pub use vocab::TokenKind;

use crate::error::TextError;
use crate::template::Rendered;
use markers::{Marker, Segment};
use pipeline::{Pipeline, Scratch};
use vocab::{Arena, Vocab};

/// The number of a token in a vocabulary.
pub type TokenId = u32;

/// The tokenizer of one model. Immutable and `Send + Sync`: share it in an `Arc`.
///
/// No method adds a begin- or end-of-sequence token: [`Tokenizer::add_bos`] and
/// [`Tokenizer::add_eos`] say what the model wants, the caller decides. (A chat template writes
/// its own.)
pub struct Tokenizer {
    vocab: Vocab,
    /// The bytes each token stands for.
    pieces: Arena,
    pipeline: Pipeline,
    model: String,
    pre: String,
    /// Control, unknown and user-defined tokens, to be found whole in a text as it is written.
    specials: Markers,
    /// Those to be found once the text is normalized, spelled likewise.
    normalized_specials: Markers,
    /// Control and unknown tokens alone.
    control: Markers,
    /// What a decoded text loses at its start.
    strip_start: StripStart,
    add_bos: bool,
    add_eos: bool,
    bos: Option<TokenId>,
    eos: Option<TokenId>,
    unk: Option<TokenId>,
    pad: Option<TokenId>,
    /// Sorted.
    ends: Vec<TokenId>,
}

/// Spaces that encoding puts in front of a text, to be taken off again.
#[derive(Clone, Copy)]
enum StripStart {
    Nothing,
    OneSpace,
    /// Tokens that are a space and nothing else, and one space of the token after them.
    SpaceTokens,
}

impl StripStart {
    /// One space where encoding puts one in front.
    fn one_if(space_in_front: bool) -> Self {
        match space_in_front {
            true => Self::OneSpace,
            false => Self::Nothing,
        }
    }
}

/// Where the names of control tokens mean those tokens.
#[derive(Clone, Copy)]
enum Trust<'p> {
    Nowhere,
    Everywhere,
    InPrompt(&'p Rendered),
}

impl Tokenizer {
    /// The number of tokens; ids are below it.
    pub fn vocab_size(&self) -> usize {
        self.vocab.len()
    }

    /// The kind of tokenizer, as the file names it: `gpt2` or `llama` in a GGUF file, `BPE`,
    /// `Unigram` or `WordPiece` in a `tokenizer.json`.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// The pre-tokenizer, as the file names it: `default` where a GGUF file names none, `none`
    /// where a `tokenizer.json` has none.
    pub fn pre_tokenizer(&self) -> &str {
        &self.pre
    }

    /// The ids of a text that someone wrote: the names of control tokens in it stay text.
    ///
    /// Some byte-level vocabularies have no token for certain control characters, which then
    /// leave no id, as in the model's own training; see [`Tokenizer::lost_bytes`].
    pub fn encode(&self, text: &str) -> Vec<TokenId> {
        self.encode_where(text, Trust::Nowhere)
    }

    /// The ids of a text in which the names of control tokens mean those tokens.
    pub fn encode_trusted(&self, text: &str) -> Vec<TokenId> {
        self.encode_where(text, Trust::Everywhere)
    }

    /// The ids of a rendered template: the markers that the template wrote are control tokens,
    /// the same characters in a message are text.
    pub fn encode_rendered(&self, prompt: &Rendered) -> Vec<TokenId> {
        self.encode_where(prompt.text(), Trust::InPrompt(prompt))
    }

    /// How many bytes of `text` the vocabulary cannot express and [`Tokenizer::encode`] leaves
    /// out.
    pub fn lost_bytes(&self, text: &str) -> usize {
        self.pipeline.lost_bytes(text)
    }

    fn encode_where(&self, text: &str, trust: Trust<'_>) -> Vec<TokenId> {
        let mut ids = Vec::with_capacity(text.len() / 3);
        let mut scratch = Scratch::default();
        let start = text.as_ptr();
        let allow = |marker: &Marker, range: Range<usize>| match trust {
            // A normalized text has no ranges: what a template writes is found here, spelled as
            // the vocabulary spells it.
            _ if marker.normalized => match trust {
                Trust::InPrompt(prompt) => marker.control && prompt.is_trusted(range),
                Trust::Nowhere | Trust::Everywhere => false,
            },
            _ if !marker.control => true,
            Trust::Nowhere => false,
            Trust::Everywhere => true,
            Trust::InPrompt(prompt) => prompt.is_trusted(range),
        };
        self.specials.split(text, allow, |segment| match segment {
            Segment::Token(id) => ids.push(id),
            Segment::Text(text) => {
                let at_start = text.as_ptr() == start;
                self.encode_stretch(text, at_start, trust, &mut scratch, &mut ids);
            }
        });
        ids
    }

    /// A stretch without whole tokens, but for those of the normalized text.
    fn encode_stretch(
        &self,
        text: &str,
        at_start: bool,
        trust: Trust<'_>,
        scratch: &mut Scratch,
        ids: &mut Vec<TokenId>,
    ) {
        let text = self.pipeline.normalize(text);
        let start = text.as_ptr();
        let trusted = matches!(trust, Trust::Everywhere);
        self.normalized_specials.split(
            &text,
            |marker, _| trusted || !marker.control,
            |segment| match segment {
                Segment::Token(id) => ids.push(id),
                Segment::Text(text) => {
                    let at_start = at_start && text.as_ptr() == start;
                    self.pipeline
                        .encode(&self.vocab, text, at_start, scratch, ids);
                }
            },
        );
    }

    /// The text that the ids stand for. Control tokens have none; U+FFFD replaces what is not
    /// UTF-8.
    pub fn decode(&self, ids: &[TokenId]) -> String {
        let mut bytes = Vec::with_capacity(ids.len() * 4);
        let mut at_start = true;
        for id in ids {
            let piece = self.piece(*id);
            let rest = match self.strip_start {
                StripStart::SpaceTokens if at_start => piece.strip_prefix(b" ").unwrap_or(piece),
                _ => piece,
            };
            at_start &= rest.is_empty();
            bytes.extend_from_slice(rest);
        }
        let text = String::from_utf8_lossy(&bytes);
        let text = match (self.strip_start, text.strip_prefix(' ')) {
            (StripStart::OneSpace, Some(stripped)) => stripped,
            _ => &text,
        };
        text.to_owned()
    }

    /// The bytes that a token stands for in a text: empty for a control token and for an id
    /// outside the vocabulary. A character may be spread over several tokens.
    pub fn piece(&self, id: TokenId) -> &[u8] {
        self.pieces.get(id).unwrap_or_default()
    }

    /// The vocabulary's entry as the file writes it.
    pub fn token(&self, id: TokenId) -> Option<&str> {
        self.vocab.text(id)
    }

    /// The id of a vocabulary entry, written as the file writes it.
    pub fn id(&self, token: &str) -> Option<TokenId> {
        self.vocab.find(token.as_bytes())
    }

    /// What a token is for; [`TokenKind::Unused`] for an id outside the vocabulary.
    pub fn kind(&self, id: TokenId) -> TokenKind {
        self.vocab.kind(id)
    }

    /// Whether a plain text should begin with [`Tokenizer::bos`].
    pub fn add_bos(&self) -> bool {
        self.add_bos
    }

    /// Whether a plain text should end with [`Tokenizer::eos`].
    pub fn add_eos(&self) -> bool {
        self.add_eos
    }

    /// The begin-of-sequence token.
    pub fn bos(&self) -> Option<TokenId> {
        self.bos
    }

    /// The end-of-sequence token. A model may have more ends: [`Tokenizer::end_ids`].
    pub fn eos(&self) -> Option<TokenId> {
        self.eos
    }

    /// The unknown token.
    pub fn unk(&self) -> Option<TokenId> {
        self.unk
    }

    /// The padding token.
    pub fn pad(&self) -> Option<TokenId> {
        self.pad
    }

    /// Whether generation ends with this token.
    pub fn is_end(&self, id: TokenId) -> bool {
        self.ends.binary_search(&id).is_ok()
    }

    /// Every token that ends a generation, ascending: end of sequence, of turn, of message.
    pub fn end_ids(&self) -> &[TokenId] {
        &self.ends
    }

    /// Lets generation end with these tokens too, such as the `eos_token_id` list of a
    /// `generation_config.json`.
    ///
    /// # Errors
    /// An id outside the vocabulary; then nothing is added.
    pub fn add_ends(&mut self, ids: &[TokenId]) -> Result<(), TextError> {
        let vocab_size = self.vocab_size();
        if let Some(id) = ids.iter().find(|id| **id as usize >= vocab_size) {
            return Err(TextError::TokenId {
                field: "eos_token_id",
                id: *id,
                vocab_size,
            });
        }
        self.ends.extend_from_slice(ids);
        self.ends.sort_unstable();
        self.ends.dedup();
        Ok(())
    }

    /// Whether encoding puts a space in front of a text, so that a text alone has other tokens than
    /// in the middle of another.
    pub(crate) fn begins_with_space(&self) -> bool {
        !matches!(self.strip_start, StripStart::Nothing)
    }

    /// The texts of the control tokens, for [`crate::TemplateInput`].
    pub fn markers(&self) -> &Markers {
        &self.control
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("model", &self.model)
            .field("pre", &self.pre)
            .field("vocab_size", &self.vocab_size())
            .finish_non_exhaustive()
    }
}
