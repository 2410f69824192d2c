//! Byte-pair encoding by a list of merges: neighbours become one token in the order of the list.
//!
//! The units that merging begins with are bytes, written in GPT-2's printable alphabet, or
//! characters.

use std::collections::HashMap;

use super::byte_level::byte_to_char;
use super::merge::NO_TOKEN;
use super::pipeline::Scratch;
use super::sentencepiece::SPACE;
use super::vocab::Vocab;
use super::{TokenId, TokenKind};
use crate::error::TextError;

/// What encoding needs beyond the vocabulary.
pub(super) struct Bpe {
    units: Units,
    /// From a pair of tokens to its rank and the token it becomes.
    merges: HashMap<(TokenId, TokenId), (u32, TokenId)>,
    unknown: Unknown,
    /// A word that is itself a token is taken whole, whatever the merges would give.
    whole_words: bool,
}

enum Units {
    /// The token of each byte; [`NO_TOKEN`] where the vocabulary has none.
    Bytes(Box<[TokenId; 256]>),
    /// `words_stand_alone`: no merge puts a visible space behind another character, so that a
    /// text may be cut in front of it.
    Characters { words_stand_alone: bool },
}

/// What becomes of a unit that is not in the vocabulary.
#[derive(Default)]
pub(super) struct Unknown {
    /// Stands for it; without one it leaves no id.
    pub(super) token: Option<TokenId>,
    /// One token stands for a whole run of unknown units.
    pub(super) fuse: bool,
    /// The tokens of single bytes, `<0x00>` to `<0xFF>`, that spell a character before the
    /// unknown token has to.
    pub(super) bytes: Option<Box<[TokenId; 256]>>,
}

/// How a list of merges is to be used.
#[derive(Default)]
pub(super) struct BpeOptions {
    /// Units are bytes, not characters.
    pub(super) byte_level: bool,
    pub(super) whole_words: bool,
    pub(super) unknown: Unknown,
    /// What the file calls the list of merges.
    pub(super) field: &'static str,
}

impl Bpe {
    /// `merges` are pairs of token texts, best first; `None` for an entry that is no pair.
    ///
    /// A pair that would build a control token is left out, so that no plain text can turn into
    /// one.
    pub(super) fn new<'a>(
        vocab: &Vocab,
        merges: impl ExactSizeIterator<Item = Result<(&'a str, &'a str), &'a str>>,
        options: BpeOptions,
    ) -> Result<Self, TextError> {
        let mut table = HashMap::with_capacity(merges.len());
        let mut words_stand_alone = !options.byte_level;
        let mut joined = String::new();
        for ((index, merge), rank) in merges.enumerate().zip(0..) {
            let entry = |problem: String| TextError::Entry {
                field: options.field,
                index,
                problem,
            };
            let (left, right) =
                merge.map_err(|text| entry(format!("`{}` is not two tokens", clip(text))))?;
            joined.clear();
            joined.push_str(left);
            joined.push_str(right);
            let find = |text: &str| {
                let unknown = || entry(format!("`{}` is not in the vocabulary", clip(text)));
                vocab.find(text.as_bytes()).ok_or_else(unknown)
            };
            if words_stand_alone {
                words_stand_alone = !joined.trim_start_matches(SPACE).contains(SPACE);
            }
            let (left, right, merged) = (find(left)?, find(right)?, find(&joined)?);
            if is_text(vocab.kind(merged)) {
                table.entry((left, right)).or_insert((rank, merged));
            }
        }
        let units = if options.byte_level {
            Units::Bytes(byte_units(vocab)?)
        } else {
            // An unknown space would let runs of unknown characters reach over the cut.
            let mut utf8 = [0; 4];
            let space = SPACE.encode_utf8(&mut utf8).as_bytes();
            let known = vocab.find(space).is_some_and(|id| is_text(vocab.kind(id)));
            let words_stand_alone = words_stand_alone && known && !options.whole_words;
            Units::Characters { words_stand_alone }
        };
        Ok(Self {
            units,
            merges: table,
            unknown: options.unknown,
            whole_words: options.whole_words,
        })
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let bytes = match &self.units {
            Units::Bytes(tokens) => size_of_val(&**tokens),
            Units::Characters { .. } => 0,
        };
        let unknown = self.unknown.bytes.as_deref().map_or(0, size_of_val);
        bytes + unknown + merges_bytes(self.merges.capacity())
    }

    /// Appends the ids of a word. Units that have no token are left out where there is no unknown
    /// token, as in the models' own training; [`Bpe::lost_bytes`] counts them.
    pub(super) fn encode(
        &self,
        vocab: &Vocab,
        word: &str,
        scratch: &mut Scratch,
        out: &mut Vec<TokenId>,
    ) {
        if self.whole_words
            && let Some(id) = self.whole(vocab, word, &mut scratch.spelled)
        {
            out.push(id);
            return;
        }
        let Units::Characters {
            words_stand_alone: true,
        } = self.units
        else {
            return self.encode_word(vocab, word, scratch, out);
        };
        let mut rest = word;
        while !rest.is_empty() {
            let spaces = rest.len() - rest.trim_start_matches(SPACE).len();
            let end = rest[spaces..]
                .find(SPACE)
                .map_or(rest.len(), |at| spaces + at);
            let (first, after) = rest.split_at(end);
            self.encode_word(vocab, first, scratch, out);
            rest = after;
        }
    }

    fn whole(&self, vocab: &Vocab, word: &str, spelled: &mut String) -> Option<TokenId> {
        let id = match self.units {
            Units::Bytes(_) => {
                spelled.clear();
                spelled.extend(word.bytes().map(byte_to_char));
                vocab.find(spelled.as_bytes())
            }
            Units::Characters { .. } => vocab.find(word.as_bytes()),
        };
        id.filter(|id| is_text(vocab.kind(*id)))
    }

    fn encode_word(
        &self,
        vocab: &Vocab,
        word: &str,
        scratch: &mut Scratch,
        out: &mut Vec<TokenId>,
    ) {
        let merger = &mut scratch.merger;
        merger.clear();
        // Where the last unit was unknown and the next may join it.
        let mut open = false;
        let mut unit = |at: usize, len: usize, id: Option<TokenId>| {
            if let Some(id) = id {
                merger.push(at, len, id);
                open = false;
            } else if let Some(bytes) = self.byte_tokens(&word.as_bytes()[at..at + len]) {
                for (offset, id) in bytes.enumerate() {
                    merger.push(at + offset, 1, id);
                }
                open = false;
            } else if let Some(unknown) = self.unknown.token {
                if open && self.unknown.fuse {
                    merger.extend_last(len);
                } else {
                    merger.push(at, len, unknown);
                }
                open = true;
            }
        };
        match &self.units {
            Units::Bytes(tokens) => {
                for (at, byte) in word.bytes().enumerate() {
                    let id = tokens[usize::from(byte)];
                    unit(at, 1, (id != NO_TOKEN).then_some(id));
                }
            }
            Units::Characters { .. } => {
                for (at, c) in word.char_indices() {
                    let len = c.len_utf8();
                    let id = vocab.find(&word.as_bytes()[at..at + len]);
                    unit(at, len, id.filter(|id| is_text(vocab.kind(*id))));
                }
            }
        }
        merger.run(|left, right| self.merges.get(&(left.id, right.id)).copied());
        out.extend(merger.symbols().map(|symbol| symbol.id));
    }

    /// The tokens that spell a unit in bytes, where the vocabulary has all of them.
    fn byte_tokens(&self, unit: &[u8]) -> Option<impl Iterator<Item = TokenId>> {
        let tokens = self.unknown.bytes.as_deref()?;
        let token = |byte: &u8| tokens[usize::from(*byte)];
        unit.iter()
            .all(|byte| token(byte) != NO_TOKEN)
            .then(|| unit.iter().map(token))
    }

    /// How many bytes of `text` no token stands for, not even the unknown token.
    pub(super) fn lost_bytes(&self, text: &str) -> usize {
        match &self.units {
            Units::Bytes(tokens) if self.unknown.token.is_none() => text
                .bytes()
                .filter(|byte| tokens[usize::from(*byte)] == NO_TOKEN)
                .count(),
            _ => 0,
        }
    }
}

/// What the table of so many merges takes. It is the standard library's: a power of two of places,
/// at most seven of eight in use, each with a byte of control, and 16 of those more.
pub(super) fn merges_bytes(merges: usize) -> usize {
    const PLACE: usize = size_of::<((TokenId, TokenId), (u32, TokenId))>() + 1;
    match merges {
        0 => 0,
        1..=3 => 4 * PLACE + 16,
        _ => merges.saturating_mul(8).div_ceil(7).next_power_of_two() * PLACE + 16,
    }
}

/// The tokens of the 256 bytes in the byte-level alphabet.
fn byte_units(vocab: &Vocab) -> Result<Box<[TokenId; 256]>, TextError> {
    let mut bytes = Box::new([NO_TOKEN; 256]);
    for (byte, id) in (0u8..=255).zip(bytes.iter_mut()) {
        let mut utf8 = [0; 4];
        let text = byte_to_char(byte).encode_utf8(&mut utf8);
        *id = vocab.find_normal(text.as_bytes()).unwrap_or(NO_TOKEN);
    }
    if bytes.iter().all(|id| *id == NO_TOKEN) {
        let problem = "no token stands for a single byte of the byte-level alphabet".into();
        return Err(TextError::Vocabulary { problem });
    }
    Ok(bytes)
}

/// Whether plain text may become a token of this kind.
fn is_text(kind: TokenKind) -> bool {
    matches!(kind, TokenKind::Normal | TokenKind::UserDefined)
}

/// `a b` gives `a` and `b`. Neither side is empty; a side may be a space only in vocabularies
/// outside the byte-level alphabet, which write their pairs as lists.
pub(super) fn split_merge(merge: &str) -> Result<(&str, &str), &str> {
    match merge.split_once(' ') {
        Some((left, right)) if !left.is_empty() && !right.is_empty() && !right.contains(' ') => {
            Ok((left, right))
        }
        _ => Err(merge),
    }
}

/// The start of a text from a file, for an error message.
pub(super) fn clip(text: &str) -> String {
    let mut short: String = text.chars().take(40).flat_map(char::escape_debug).collect();
    if text.chars().nth(40).is_some() {
        short.push_str("..");
    }
    short
}
