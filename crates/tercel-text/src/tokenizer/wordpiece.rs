//! WordPiece: the longest token that a word begins with, then the longest for what is left.

use super::pipeline::Scratch;
use super::vocab::Vocab;
use super::{TokenId, TokenKind};

/// What encoding needs beyond the vocabulary.
pub(super) struct WordPiece {
    pub(super) unknown: Option<TokenId>,
    /// Begins the tokens that continue a word.
    pub(super) prefix: String,
    /// A word of more characters is unknown.
    pub(super) max_word_chars: usize,
}

impl WordPiece {
    /// Appends the ids of a word; the unknown token where some of it is in no token.
    pub(super) fn encode(
        &self,
        vocab: &Vocab,
        word: &str,
        scratch: &mut Scratch,
        out: &mut Vec<TokenId>,
    ) {
        let first = out.len();
        let fits = word.chars().count() <= self.max_word_chars;
        if !fits || !self.pieces(vocab, word, &mut scratch.spelled, out) {
            out.truncate(first);
            out.extend(self.unknown);
        }
    }

    fn pieces(
        &self,
        vocab: &Vocab,
        word: &str,
        spelled: &mut String,
        out: &mut Vec<TokenId>,
    ) -> bool {
        let mut rest = word;
        while !rest.is_empty() {
            spelled.clear();
            if rest.len() < word.len() {
                spelled.push_str(&self.prefix);
            }
            let prefix = spelled.len();
            spelled.push_str(rest);
            let found = loop {
                let id = vocab.find(spelled.as_bytes());
                let is_text = |id: &TokenId| {
                    matches!(vocab.kind(*id), TokenKind::Normal | TokenKind::UserDefined)
                };
                if let Some(id) = id.filter(is_text) {
                    break id;
                }
                spelled.pop();
                if spelled.len() <= prefix {
                    return false;
                }
            };
            out.push(found);
            rest = &rest[spelled.len() - prefix..];
        }
        true
    }
}
