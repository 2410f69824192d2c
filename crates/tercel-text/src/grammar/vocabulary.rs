//! A tokenizer's vocabulary as the tree of bytes that masks are computed on.

use std::sync::Arc;

use llguidance::toktrie::{TokEnv, TokRxInfo, TokTrie, TokenizerEnv};

use super::GrammarError;
use crate::tokenizer::{TokenId, TokenKind, Tokenizer};

/// The longest token that the tree takes; there is none as long in published vocabularies, save for
/// runs of spaces.
const MOST_BYTES: usize = 255;

struct Vocabulary {
    trie: TokTrie,
    tokenizer: Arc<Tokenizer>,
}

/// # Errors
/// [`GrammarError::NoEnd`].
pub(super) fn vocabulary(tokenizer: Arc<Tokenizer>) -> Result<TokEnv, GrammarError> {
    let ends = tokenizer.end_ids();
    let first = *ends.first().ok_or(GrammarError::NoEnd)?;
    let vocab_size = TokenId::try_from(tokenizer.vocab_size()).unwrap_or(TokenId::MAX);
    let words: Vec<Vec<u8>> = (0..vocab_size).map(|id| word(&tokenizer, id)).collect();
    let trie = TokTrie::from(&TokRxInfo::new(vocab_size, first), &words).with_eos_tokens(ends);
    Ok(Arc::new(Vocabulary { trie, tokenizer }))
}

/// What the trees over a vocabulary take while they are built: measured, a little above what it was
/// with 49 thousand and with 262 thousand tokens.
pub(super) fn bytes(tokenizer: &Tokenizer) -> u64 {
    const PER_TOKEN: u64 = 430;
    const FIXED: u64 = 2 << 20;
    tokenizer.vocab_size() as u64 * PER_TOKEN + FIXED
}

/// What a token stands for in a text. Control tokens stand for none, whatever they are called; the
/// marker keeps them apart.
fn word(tokenizer: &Tokenizer, id: TokenId) -> Vec<u8> {
    let piece = tokenizer.piece(id);
    if is_text(tokenizer, id) {
        let is_taken =
            piece.len() <= MOST_BYTES && piece.first() != Some(&TokTrie::SPECIAL_TOKEN_MARKER);
        return if is_taken { piece.to_vec() } else { Vec::new() };
    }
    let name = tokenizer.token(id).unwrap_or_default().as_bytes();
    if name.is_empty() || name.len() >= MOST_BYTES {
        return Vec::new();
    }
    [&[TokTrie::SPECIAL_TOKEN_MARKER], name].concat()
}

/// Whether a token stands for a text.
pub(super) fn is_text(tokenizer: &Tokenizer, id: TokenId) -> bool {
    let kind = tokenizer.kind(id);
    matches!(
        kind,
        TokenKind::Normal | TokenKind::UserDefined | TokenKind::Byte
    ) && !tokenizer.is_end(id)
}

impl TokenizerEnv for Vocabulary {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        let text = str::from_utf8(bytes).ok();
        let tokens = text.map(|text| self.tokenizer.encode(text));
        // A tokenizer may spell a text its own way, or lack a part of it; what must come is to come
        // as it is.
        let is_same = |tokens: &Vec<TokenId>| {
            let words = tokens.iter().flat_map(|id| self.trie.token(*id));
            words.eq(bytes)
        };
        let tokens = tokens.filter(is_same);
        tokens.unwrap_or_else(|| self.trie.greedy_tokenize(bytes))
    }

    /// Whether a text in the middle of another becomes the same tokens as alone, so that what must
    /// come can be written at once.
    fn tokenize_is_canonical(&self) -> bool {
        !self.tokenizer.begins_with_space()
    }
}
