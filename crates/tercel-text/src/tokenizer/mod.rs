//! From text to token ids and back.

mod build;
mod byte_level;
mod markers;
mod merge;
mod pretokenize;
mod sentencepiece;
mod unicode;
mod vocab;

use std::ops::Range;

pub use build::TokenizerParts;
pub use markers::Markers;
pub use vocab::TokenKind;

use crate::template::Rendered;
use byte_level::ByteLevel;
use markers::Segment;
use merge::Merger;
use sentencepiece::{SPACE, SentencePiece};
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
    scheme: Scheme,
    model: String,
    pre: String,
    /// Control, unknown and user-defined tokens, to be found whole.
    specials: Markers,
    /// SentencePiece's user-defined tokens with spaces, written with the visible space.
    spaced: Markers,
    /// Control and unknown tokens alone.
    control: Markers,
    add_space_prefix: bool,
    add_bos: bool,
    add_eos: bool,
    bos: Option<TokenId>,
    eos: Option<TokenId>,
    unk: Option<TokenId>,
    pad: Option<TokenId>,
    /// Sorted.
    ends: Vec<TokenId>,
}

enum Scheme {
    ByteLevel(ByteLevel),
    SentencePiece(SentencePiece),
}

impl Tokenizer {
    /// The number of tokens; ids are below it.
    pub fn vocab_size(&self) -> usize {
        self.vocab.len()
    }

    /// The kind of tokenizer, as the file names it: `gpt2` or `llama`.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// The pre-tokenizer, as the file names it; `default` where it names none.
    pub fn pre_tokenizer(&self) -> &str {
        &self.pre
    }

    /// The ids of a text that someone wrote: the names of control tokens in it stay text.
    ///
    /// Some byte-level vocabularies have no token for certain control characters, which then
    /// leave no id, as in the model's own training; see [`Tokenizer::lost_bytes`].
    pub fn encode(&self, text: &str) -> Vec<TokenId> {
        self.encode_where(text, |_| false)
    }

    /// The ids of a text in which the names of control tokens mean those tokens.
    pub fn encode_trusted(&self, text: &str) -> Vec<TokenId> {
        self.encode_where(text, |_| true)
    }

    /// The ids of a rendered template: the markers that the template wrote are control tokens,
    /// the same characters in a message are text.
    pub fn encode_rendered(&self, prompt: &Rendered) -> Vec<TokenId> {
        self.encode_where(prompt.text(), |range| prompt.is_trusted(range))
    }

    /// How many bytes of `text` the vocabulary cannot express and [`Tokenizer::encode`] leaves
    /// out.
    pub fn lost_bytes(&self, text: &str) -> usize {
        match &self.scheme {
            Scheme::ByteLevel(scheme) => scheme.lost_bytes(text),
            Scheme::SentencePiece(_) => 0,
        }
    }

    fn encode_where(&self, text: &str, trusted: impl Fn(Range<usize>) -> bool) -> Vec<TokenId> {
        let mut ids = Vec::with_capacity(text.len() / 3);
        let mut merger = Merger::default();
        let mut spelled = String::new();
        let mut after_token = true;
        self.specials.split(text, trusted, |segment| match segment {
            Segment::Token(id) => {
                ids.push(id);
                after_token = true;
            }
            Segment::Text(text) => match &self.scheme {
                Scheme::ByteLevel(scheme) => {
                    scheme.encode(&self.vocab, text, &mut merger, &mut ids);
                }
                Scheme::SentencePiece(scheme) => {
                    spelled.clear();
                    if after_token && self.add_space_prefix {
                        spelled.push(SPACE);
                    }
                    after_token = false;
                    spelled.extend(text.chars().map(|c| if c == ' ' { SPACE } else { c }));
                    self.spaced.split(
                        &spelled,
                        |_| true,
                        |segment| match segment {
                            Segment::Token(id) => ids.push(id),
                            Segment::Text(text) => {
                                scheme.encode(&self.vocab, text, &mut merger, &mut ids);
                            }
                        },
                    );
                }
            },
        });
        ids
    }

    /// The text that the ids stand for. Control tokens have none; U+FFFD replaces what is not
    /// UTF-8.
    pub fn decode(&self, ids: &[TokenId]) -> String {
        let mut bytes = Vec::with_capacity(ids.len() * 4);
        for id in ids {
            bytes.extend_from_slice(self.piece(*id));
        }
        let text = String::from_utf8_lossy(&bytes);
        let text = match text.strip_prefix(' ') {
            Some(stripped) if self.add_space_prefix => stripped,
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
