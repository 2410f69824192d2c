//! Byte-level byte-pair encoding, as GPT-2 brought it: every byte is a character of a printable
//! alphabet, and pairs are merged in the order of a list.

use std::collections::HashMap;

use super::merge::{Merger, NO_TOKEN};
use super::pretokenize::PreTokenizer;
use super::vocab::{Arena, Vocab};
use super::{TokenId, TokenKind};
use crate::error::TextError;

/// What encoding needs beyond the vocabulary.
pub(super) struct ByteLevel {
    pre: PreTokenizer,
    /// The token of each byte; [`NO_TOKEN`] where the vocabulary has none.
    bytes: Box<[TokenId; 256]>,
    /// From a pair of tokens to its rank and the token it becomes.
    merges: HashMap<(TokenId, TokenId), (u32, TokenId)>,
    /// A word that is itself a token is taken whole, whatever the merges would give.
    whole_words: bool,
}

const FIELD: &str = "tokenizer.ggml.merges";

impl ByteLevel {
    /// `merges` are pairs as files write them: two token texts with a space between.
    ///
    /// A pair that would build anything but a normal token is left out, so that no plain text
    /// can turn into a control token.
    pub(super) fn new(
        vocab: &Vocab,
        pre: PreTokenizer,
        merges: &[&str],
    ) -> Result<Self, TextError> {
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
        let mut table = HashMap::with_capacity(merges.len());
        let mut joined = String::new();
        for (index, (merge, rank)) in merges.iter().zip(0..).enumerate() {
            let entry = |problem: String| TextError::Entry {
                field: FIELD,
                index,
                problem,
            };
            let (left, right) = split_merge(merge)
                .ok_or_else(|| entry(format!("`{}` is not two tokens", clip(merge))))?;
            joined.clear();
            joined.push_str(left);
            joined.push_str(right);
            let find = |text: &str| {
                let unknown = || entry(format!("`{}` is not in the vocabulary", clip(text)));
                vocab.find(text.as_bytes()).ok_or_else(unknown)
            };
            let (left, right, merged) = (find(left)?, find(right)?, find(&joined)?);
            if vocab.kind(merged) == TokenKind::Normal {
                table.entry((left, right)).or_insert((rank, merged));
            }
        }
        let whole_words = pre == PreTokenizer::Llama3;
        Ok(Self {
            pre,
            bytes,
            merges: table,
            whole_words,
        })
    }

    /// Appends the ids of `text`. Bytes that have no token are left out, as in the models' own
    /// training; [`ByteLevel::lost_bytes`] counts them.
    pub(super) fn encode(
        &self,
        vocab: &Vocab,
        text: &str,
        merger: &mut Merger,
        out: &mut Vec<TokenId>,
    ) {
        let mut spelled = String::new();
        self.pre.split(text, |word| {
            if self.whole_words {
                spelled.clear();
                spelled.extend(word.bytes().map(byte_to_char));
                if let Some(id) = vocab.find_normal(spelled.as_bytes()) {
                    out.push(id);
                    return;
                }
            }
            merger.clear();
            for (at, byte) in word.bytes().enumerate() {
                let id = self.bytes[usize::from(byte)];
                if id != NO_TOKEN {
                    merger.push(at, 1, id);
                }
            }
            merger.run(|left, right| self.merges.get(&(left.id, right.id)).copied());
            out.extend(merger.symbols().map(|symbol| symbol.id));
        });
    }

    /// Whether models of this scheme begin every text with a token, unless the file says no.
    pub(super) fn wants_bos(&self) -> bool {
        self.pre == PreTokenizer::Llama3
    }

    /// How many bytes of `text` no token stands for.
    pub(super) fn lost_bytes(&self, text: &str) -> usize {
        text.bytes()
            .filter(|byte| self.bytes[usize::from(*byte)] == NO_TOKEN)
            .count()
    }
}

/// The bytes that each token stands for.
pub(super) fn pieces(vocab: &Vocab, tokens: &[&str]) -> Result<Arena, TextError> {
    let mut pieces = Arena::with_capacity(vocab.len(), 0);
    let mut spelled = Vec::new();
    for (_, kind, text) in vocab.iter(tokens) {
        spelled.clear();
        match kind {
            TokenKind::Control | TokenKind::Unknown | TokenKind::Unused => {}
            TokenKind::UserDefined => spelled.extend_from_slice(text.as_bytes()),
            TokenKind::Normal | TokenKind::Byte => {
                for c in text.chars() {
                    let Some(byte) = char_to_byte(c) else {
                        // A token outside the alphabet is written as it reads.
                        spelled.clear();
                        spelled.extend_from_slice(text.as_bytes());
                        break;
                    };
                    spelled.push(byte);
                }
            }
        }
        pieces.push(&spelled)?;
    }
    Ok(pieces)
}

/// `Ġ t` gives `Ġ` and `t`. Neither side is empty; a side may be a space only in vocabularies
/// outside the byte-level alphabet, which have no merges.
fn split_merge(merge: &str) -> Option<(&str, &str)> {
    let (left, right) = merge.split_once(' ')?;
    (!left.is_empty() && !right.is_empty() && !right.contains(' ')).then_some((left, right))
}

/// The start of a text from a file, for an error message.
fn clip(text: &str) -> String {
    let mut short: String = text.chars().take(40).flat_map(char::escape_debug).collect();
    if text.chars().nth(40).is_some() {
        short.push_str("..");
    }
    short
}

/// The byte-level alphabet: printable bytes of Latin-1 stand for themselves, the other 68 for the
/// characters from U+0100 on, in order (GPT-2, `bytes_to_unicode`).
fn byte_to_char(byte: u8) -> char {
    let offset = match byte {
        0x00..=0x20 => u32::from(byte),
        0x7f..=0xa0 => u32::from(byte) - 0x7f + 0x21,
        0xad => 0x43,
        _ => return char::from(byte),
    };
    char::from_u32(0x100 + offset).unwrap_or(char::REPLACEMENT_CHARACTER)
}

fn char_to_byte(c: char) -> Option<u8> {
    let code = u32::from(c);
    let byte = match code {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => code,
        0x100..=0x120 => code - 0x100,
        0x121..=0x142 => code - 0x121 + 0x7f,
        0x143 => 0xad,
        _ => return None,
    };
    u8::try_from(byte).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alphabet_is_a_bijection() {
        let mut seen = std::collections::BTreeSet::new();
        for byte in 0..=255 {
            assert_eq!(char_to_byte(byte_to_char(byte)), Some(byte));
            assert!(seen.insert(byte_to_char(byte)));
        }
        assert_eq!(byte_to_char(b' '), '\u{120}');
        assert_eq!(byte_to_char(b'\n'), '\u{10a}');
    }
}
