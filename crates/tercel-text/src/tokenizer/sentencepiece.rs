//! SentencePiece's byte-pair encoding: neighbours merge where their joint text is a token, the
//! best score first, and characters without a token are spelled in bytes.

use super::merge::{Merger, NO_TOKEN};
use super::vocab::{Arena, Vocab};
use super::{TokenId, TokenKind};
use crate::error::TextError;

/// SentencePiece's visible space, U+2581.
pub(super) const SPACE: char = '\u{2581}';

/// What encoding needs beyond the vocabulary.
pub(super) struct SentencePiece {
    /// Lower merges first: the scores, turned around.
    ranks: Vec<u32>,
    /// The token of each byte; [`NO_TOKEN`] where the vocabulary has none.
    bytes: Box<[TokenId; 256]>,
    unknown: TokenId,
    /// No token has a space after another character, so no merge crosses the start of a word.
    words_stand_alone: bool,
}

impl SentencePiece {
    pub(super) fn new(
        vocab: &Vocab,
        tokens: &[&str],
        scores: &[f32],
        unknown: Option<TokenId>,
    ) -> Result<Self, TextError> {
        if let Some(index) = scores.iter().position(|score| score.is_nan()) {
            let problem = "the score is not a number".into();
            return Err(TextError::Entry {
                field: "tokenizer.ggml.scores",
                index,
                problem,
            });
        }
        let mut bytes = Box::new([NO_TOKEN; 256]);
        let mut words_stand_alone = true;
        for (id, kind, text) in vocab.iter(tokens) {
            match kind {
                TokenKind::Byte => {
                    let byte = parse_byte(text).ok_or_else(|| TextError::Entry {
                        field: "tokenizer.ggml.tokens",
                        index: id as usize,
                        problem: "a byte token is not written <0x00> to <0xFF>".into(),
                    })?;
                    bytes[usize::from(byte)] = id;
                }
                TokenKind::Normal => {
                    words_stand_alone &= !text.trim_start_matches(SPACE).contains(SPACE);
                }
                _ => {}
            }
        }
        // An unknown space would let a run of unknown characters reach over the cut.
        let space = SPACE.encode_utf8(&mut [0; 4]).as_bytes().to_vec();
        words_stand_alone &= vocab.find_normal(&space).is_some();
        let unknown = unknown.unwrap_or(NO_TOKEN);
        if unknown == NO_TOKEN && bytes.contains(&NO_TOKEN) {
            let problem = "byte tokens are missing and there is no unknown token".into();
            return Err(TextError::Vocabulary { problem });
        }
        let ranks = scores.iter().map(|score| rank(*score)).collect();
        Ok(Self {
            ranks,
            bytes,
            unknown,
            words_stand_alone,
        })
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.ranks.capacity() * size_of::<u32>() + size_of_val(&*self.bytes)
    }

    /// Appends the ids of `text`, whose spaces are U+2581 already.
    pub(super) fn encode(
        &self,
        vocab: &Vocab,
        text: &str,
        merger: &mut Merger,
        out: &mut Vec<TokenId>,
    ) {
        if !self.words_stand_alone {
            return self.encode_word(vocab, text, merger, out);
        }
        let mut rest = text;
        while !rest.is_empty() {
            let spaces = rest.len() - rest.trim_start_matches(SPACE).len();
            let end = rest[spaces..]
                .find(SPACE)
                .map_or(rest.len(), |at| spaces + at);
            let (word, after) = rest.split_at(end);
            self.encode_word(vocab, word, merger, out);
            rest = after;
        }
    }

    fn encode_word(&self, vocab: &Vocab, word: &str, merger: &mut Merger, out: &mut Vec<TokenId>) {
        if let Some(id) = self.whole(vocab, word) {
            out.push(id);
            return;
        }
        merger.clear();
        for (at, c) in word.char_indices() {
            let text = &word.as_bytes()[at..at + c.len_utf8()];
            merger.push(at, text.len(), vocab.find_normal(text).unwrap_or(NO_TOKEN));
        }
        merger.run(|left, right| {
            let text = word.as_bytes().get(left.start..right.start + right.len)?;
            let id = vocab.find_normal(text)?;
            Some((*self.ranks.get(id as usize)?, id))
        });
        // One unknown token stands for a run of unknown characters.
        let mut unknown = false;
        for symbol in merger.symbols() {
            if symbol.id != NO_TOKEN {
                out.push(symbol.id);
                unknown = false;
                continue;
            }
            let text = &word.as_bytes()[symbol.start..symbol.start + symbol.len];
            if !self.spell(text, out) {
                if !unknown {
                    out.push(self.unknown);
                }
                unknown = true;
            }
        }
    }

    /// A word of one character needs no merging.
    fn whole(&self, vocab: &Vocab, word: &str) -> Option<TokenId> {
        let mut chars = word.chars();
        chars.next()?;
        chars
            .next()
            .is_none()
            .then(|| vocab.find_normal(word.as_bytes()))
            .flatten()
    }

    /// A character as its bytes; false where a byte has no token.
    fn spell(&self, text: &[u8], out: &mut Vec<TokenId>) -> bool {
        let token = |byte: &u8| self.bytes[usize::from(*byte)];
        let spelled = text.iter().all(|byte| token(byte) != NO_TOKEN);
        if spelled {
            out.extend(text.iter().map(token));
        }
        spelled
    }
}

/// The bytes that each token stands for.
pub(super) fn pieces(vocab: &Vocab, tokens: &[&str]) -> Result<Arena, TextError> {
    let mut pieces = Arena::with_capacity(vocab.len(), 0);
    let mut spelled = String::new();
    for (_, kind, text) in vocab.iter(tokens) {
        match kind {
            TokenKind::Control | TokenKind::Unknown | TokenKind::Unused => pieces.push(&[])?,
            TokenKind::Byte => pieces.push(parse_byte(text).as_slice())?,
            TokenKind::Normal | TokenKind::UserDefined => {
                if text.contains(SPACE) {
                    spelled.clear();
                    spelled.extend(text.chars().map(|c| if c == SPACE { ' ' } else { c }));
                    pieces.push(spelled.as_bytes())?;
                } else {
                    pieces.push(text.as_bytes())?;
                }
            }
        }
    }
    pieces.shrink();
    Ok(pieces)
}

/// `<0x0A>` gives 10.
pub(super) fn parse_byte(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    let hex = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    hex.then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}

/// An integer that falls as the score rises.
fn rank(score: f32) -> u32 {
    // Adding zero makes -0.0 and 0.0 one score.
    let bits = (score + 0.0).to_bits();
    if bits >> 31 == 1 {
        bits
    } else {
        !(bits | 1 << 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_fall_as_scores_rise() {
        let scores = [
            f32::INFINITY,
            3.5,
            1.0,
            1e-30,
            0.0,
            -1e-30,
            -2.0,
            -1e9,
            f32::NEG_INFINITY,
        ];
        for pair in scores.windows(2) {
            assert!(rank(pair[0]) < rank(pair[1]), "{pair:?}");
        }
        assert_eq!(rank(-0.0), rank(0.0));
    }

    #[test]
    fn byte_tokens_are_two_hex_digits() {
        let cases = [
            ("<0x0A>", Some(10)),
            ("<0xff>", Some(255)),
            ("<0x-1>", None),
            ("<0x+1>", None),
        ];
        for (text, byte) in cases {
            assert_eq!(parse_byte(text), byte, "{text}");
        }
        assert_eq!(parse_byte("<0x1>"), None);
        assert_eq!(parse_byte("0x0A"), None);
    }
}
