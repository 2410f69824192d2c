//! GPT-2's byte-level alphabet: every byte is a printable character.

use super::TokenKind;
use super::vocab::{Arena, Vocab};
use crate::error::TextError;

/// The bytes that each token stands for.
pub(super) fn pieces(vocab: &Vocab, tokens: &[&str]) -> Result<Arena, TextError> {
    let mut pieces = Arena::with_capacity(vocab.len(), 0);
    let mut spelled = Vec::new();
    for (_, kind, text) in vocab.iter(tokens) {
        spelled.clear();
        match kind {
            TokenKind::Control | TokenKind::Unknown | TokenKind::Unused => {}
            TokenKind::UserDefined => spelled.extend_from_slice(text.as_bytes()),
            TokenKind::Normal | TokenKind::Byte => spell(text, &mut spelled),
        }
        pieces.push(&spelled)?;
    }
    pieces.shrink();
    Ok(pieces)
}

/// Appends the bytes that a text in the alphabet stands for. A text outside it is written as it
/// reads.
pub(super) fn spell(text: &str, out: &mut Vec<u8>) {
    let start = out.len();
    for c in text.chars() {
        let Some(byte) = char_to_byte(c) else {
            out.truncate(start);
            out.extend_from_slice(text.as_bytes());
            return;
        };
        out.push(byte);
    }
}

/// The byte-level alphabet: printable bytes of Latin-1 stand for themselves, the other 68 for the
/// characters from U+0100 on, in order (GPT-2, `bytes_to_unicode`).
pub(super) fn byte_to_char(byte: u8) -> char {
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
