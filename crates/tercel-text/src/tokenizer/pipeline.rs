//! From a stretch of text without whole tokens to ids: normalize, cut into words, look up.

use std::borrow::Cow;

use super::TokenId;
use super::bpe::Bpe;
use super::merge::Merger;
use super::normalize::Normalizer;
use super::sentencepiece::SentencePiece;
use super::split::Splitter;
use super::unigram::{Node, Unigram};
use super::vocab::Vocab;
use super::wordpiece::WordPiece;

/// What happens to a stretch of text between two whole tokens.
pub(super) struct Pipeline {
    pub(super) normalizer: Normalizer,
    pub(super) splitter: Splitter,
    pub(super) model: Model,
}

/// How a word becomes ids.
pub(super) enum Model {
    Bpe(Bpe),
    SentencePiece(SentencePiece),
    Unigram(Unigram),
    WordPiece(WordPiece),
}

/// Work space that is kept from word to word.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) merger: Merger,
    pub(super) spelled: String,
    pub(super) nodes: Vec<Node>,
}

impl Pipeline {
    /// The text as the model's training saw it.
    pub(super) fn normalize<'t>(&self, text: &'t str) -> Cow<'t, str> {
        self.normalizer.apply(text)
    }

    /// Appends the ids of a normalized text; `at_start` says that nothing comes before it.
    pub(super) fn encode(
        &self,
        vocab: &Vocab,
        text: &str,
        at_start: bool,
        scratch: &mut Scratch,
        out: &mut Vec<TokenId>,
    ) {
        self.splitter.split(text, at_start, &mut |word| {
            self.model.encode(vocab, word, scratch, out);
        });
    }

    /// How many bytes of `text` leave no id.
    pub(super) fn lost_bytes(&self, text: &str) -> usize {
        match &self.model {
            Model::Bpe(model) => model.lost_bytes(text),
            Model::SentencePiece(_) | Model::Unigram(_) | Model::WordPiece(_) => 0,
        }
    }
}

impl Pipeline {
    pub(super) fn heap_bytes(&self) -> usize {
        let model = match &self.model {
            Model::Bpe(model) => model.heap_bytes(),
            Model::SentencePiece(model) => model.heap_bytes(),
            Model::Unigram(model) => model.heap_bytes(),
            Model::WordPiece(model) => model.prefix.capacity(),
        };
        self.normalizer.heap_bytes() + self.splitter.heap_bytes() + model
    }
}

impl Model {
    fn encode(&self, vocab: &Vocab, word: &str, scratch: &mut Scratch, out: &mut Vec<TokenId>) {
        match self {
            Self::Bpe(model) => model.encode(vocab, word, scratch, out),
            Self::SentencePiece(model) => model.encode(vocab, word, &mut scratch.merger, out),
            Self::Unigram(model) => model.encode(word, scratch, out),
            Self::WordPiece(model) => model.encode(vocab, word, scratch, out),
        }
    }
}
