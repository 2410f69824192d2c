//! The vocabulary: token texts in one arena, their kinds, and the way from a text to its id.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

use super::TokenId;
use crate::error::TextError;

/// Most tokens a vocabulary may hold; the largest published ones have about 262,000.
pub(super) const MAX_TOKENS: usize = 1 << 24;

/// What a token is for, as `tokenizer.ggml.token_type` says it (gguf-py, `TokenType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TokenKind {
    /// A piece of text.
    Normal,
    /// Stands for whatever the vocabulary cannot express.
    Unknown,
    /// Steers the model and has no text, such as the end of a turn.
    Control,
    /// A piece of text that is always matched whole, before anything else.
    UserDefined,
    /// A reserved entry that no text maps to.
    Unused,
    /// One byte, written `<0x0A>`: how SentencePiece spells what it has no piece for.
    Byte,
}

impl TokenKind {
    pub(super) fn from_file(value: i32) -> Option<Self> {
        Some(match value {
            1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => return None,
        })
    }
}

/// Byte strings, one after the other.
#[derive(Default)]
pub(super) struct Arena {
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

impl Arena {
    pub(super) fn with_capacity(entries: usize, bytes: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(bytes),
            ends: Vec::with_capacity(entries),
        }
    }

    /// Appends an entry. Fails when the arena would pass 4 GiB.
    pub(super) fn push(&mut self, entry: &[u8]) -> Result<(), TextError> {
        self.bytes.extend_from_slice(entry);
        let end = u32::try_from(self.bytes.len()).map_err(|_| TextError::Vocabulary {
            problem: "more than 4 GiB of text".into(),
        })?;
        self.ends.push(end);
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Gives back the room that growing took ahead.
    pub(super) fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
        self.ends.shrink_to_fit();
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.bytes.capacity() + self.ends.capacity() * size_of::<u32>()
    }

    pub(super) fn get(&self, id: TokenId) -> Option<&[u8]> {
        let id = id as usize;
        let end = *self.ends.get(id)? as usize;
        let start = if id == 0 {
            0
        } else {
            self.ends[id - 1] as usize
        };
        self.bytes.get(start..end)
    }
}

/// Token texts as the file writes them, with their kinds.
pub(super) struct Vocab {
    texts: Arena,
    kinds: Vec<TokenKind>,
    slots: Box<[Slot]>,
    /// Keyed, so that a crafted vocabulary cannot make every entry collide.
    hasher: RandomState,
    longest: usize,
    duplicate: Option<TokenId>,
}

/// A place in the hash table: part of the hash, and the id plus one.
#[derive(Clone, Copy, Default)]
struct Slot {
    tag: u32,
    entry: u32,
}

impl Vocab {
    /// The slots of the hash table of so many tokens.
    fn slots(tokens: usize) -> usize {
        tokens.saturating_mul(2).next_power_of_two()
    }

    /// What a vocabulary of so many tokens takes, whose texts have `text_bytes` in all.
    pub(super) fn estimate(tokens: usize, text_bytes: usize) -> usize {
        let each = size_of::<u32>() + size_of::<TokenKind>();
        text_bytes + tokens * each + Self::slots(tokens) * size_of::<Slot>()
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let kinds = self.kinds.capacity() * size_of::<TokenKind>();
        self.texts.heap_bytes() + kinds + size_of_val(&*self.slots)
    }

    /// Indexes the tokens. Of several tokens with one text, the first is found.
    pub(super) fn new(tokens: &[&str], kinds: Vec<TokenKind>) -> Result<Self, TextError> {
        if tokens.is_empty() || tokens.len() > MAX_TOKENS {
            let problem = format!("{} tokens, expected 1 to {MAX_TOKENS}", tokens.len());
            return Err(TextError::Vocabulary { problem });
        }
        let total = tokens.iter().map(|token| token.len()).sum();
        let mut texts = Arena::with_capacity(tokens.len(), total);
        let slots = vec![Slot::default(); Self::slots(tokens.len())];
        let mut vocab = Self {
            texts: Arena::default(),
            kinds,
            slots: slots.into_boxed_slice(),
            hasher: RandomState::new(),
            longest: tokens.iter().map(|token| token.len()).max().unwrap_or(0),
            duplicate: None,
        };
        for (token, entry) in tokens.iter().zip(1..) {
            texts.push(token.as_bytes())?;
            vocab.insert(&texts, token.as_bytes(), entry);
        }
        vocab.texts = texts;
        Ok(vocab)
    }

    fn insert(&mut self, texts: &Arena, text: &[u8], entry: u32) {
        let (mut at, tag) = self.place(text);
        while self.slots[at].entry != 0 {
            let slot = self.slots[at];
            if slot.tag == tag && texts.get(slot.entry - 1) == Some(text) {
                if self.kind(entry - 1) != TokenKind::Unused {
                    self.duplicate.get_or_insert(entry - 1);
                }
                return;
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
        self.slots[at] = Slot { tag, entry };
    }

    /// The id of the token whose text is exactly `text`.
    pub(super) fn find(&self, text: &[u8]) -> Option<TokenId> {
        if text.len() > self.longest {
            return None;
        }
        let (mut at, tag) = self.place(text);
        loop {
            let slot = self.slots[at];
            let id = slot.entry.checked_sub(1)?;
            if slot.tag == tag && self.texts.get(id) == Some(text) {
                return Some(id);
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    /// The first token whose text another has too, reserved ones aside.
    pub(super) fn duplicate(&self) -> Option<TokenId> {
        self.duplicate
    }

    /// Like [`Vocab::find`], for tokens that merging may build out of plain text.
    pub(super) fn find_normal(&self, text: &[u8]) -> Option<TokenId> {
        self.find(text)
            .filter(|id| self.kind(*id) == TokenKind::Normal)
    }

    fn place(&self, text: &[u8]) -> (usize, u32) {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(text);
        let hash = hasher.finish();
        (
            (hash as usize) & (self.slots.len() - 1),
            (hash >> 32) as u32,
        )
    }

    pub(super) fn len(&self) -> usize {
        self.texts.len()
    }

    /// `Unused` for an id outside the vocabulary.
    pub(super) fn kind(&self, id: TokenId) -> TokenKind {
        self.kinds
            .get(id as usize)
            .copied()
            .unwrap_or(TokenKind::Unused)
    }

    pub(super) fn text(&self, id: TokenId) -> Option<&str> {
        std::str::from_utf8(self.texts.get(id)?).ok()
    }

    /// Every id with its kind and text, in order, where `tokens` are those it was built of.
    pub(super) fn iter<'t>(
        &self,
        tokens: &[&'t str],
    ) -> impl Iterator<Item = (TokenId, TokenKind, &'t str)> {
        // Reading the texts back would check all of them for UTF-8 again.
        (0..)
            .zip(&self.kinds)
            .zip(tokens)
            .map(|((id, kind), text)| (id, *kind, *text))
    }
}
