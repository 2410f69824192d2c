//! Unigram: of all ways to spell a text in tokens, the one with the best sum of scores.

use super::merge::NO_TOKEN;
use super::pipeline::Scratch;
use super::trie::Trie;
use super::vocab::Vocab;
use super::{TokenId, TokenKind};
use crate::error::TextError;

/// How much worse than the worst token an unknown character is (SentencePiece, `kUnkPenalty`).
const UNKNOWN_PENALTY: f64 = 10.0;

/// Longest token, in bytes: all that a text may begin with are tried at each place.
const MAX_TOKEN_BYTES: usize = 1024;

/// What encoding needs beyond the vocabulary.
pub(super) struct Unigram {
    trie: Trie,
    scores: Vec<f64>,
    unknown: TokenId,
    unknown_score: f64,
    /// The tokens of single bytes, which spell what no token holds.
    bytes: Option<Box<[TokenId; 256]>>,
    /// Sums are rounded as SentencePiece, which adds in single precision, rounds them.
    single_precision: bool,
}

/// What a file says beyond tokens and scores.
pub(super) struct UnigramOptions {
    pub(super) unknown: TokenId,
    pub(super) bytes: Option<Box<[TokenId; 256]>>,
    /// The file is SentencePiece's own.
    pub(super) sentencepiece: bool,
    /// What the file calls the scores.
    pub(super) field: &'static str,
}

/// The best way to spell a text up to some place.
#[derive(Clone, Copy, Default)]
pub(super) struct Node {
    score: f64,
    /// Where its last token starts.
    start: usize,
    /// The last token plus one; 0 where no way is known.
    entry: u32,
}

impl Unigram {
    pub(super) fn heap_bytes(&self) -> usize {
        let bytes = self.bytes.as_deref().map_or(0, size_of_val);
        self.trie.heap_bytes() + self.scores.capacity() * size_of::<f64>() + bytes
    }

    pub(super) fn new(
        vocab: &Vocab,
        tokens: &[&str],
        scores: Vec<f64>,
        options: UnigramOptions,
    ) -> Result<Self, TextError> {
        if let Some(index) = scores.iter().position(|score| !score.is_finite()) {
            return Err(TextError::Entry {
                field: options.field,
                index,
                problem: "the score is not a number".into(),
            });
        }
        let normal = |id: TokenId| !options.sentencepiece || vocab.kind(id) == TokenKind::Normal;
        let scored = (0..).zip(&scores).filter(|(id, _)| normal(*id));
        let worst = scored
            .map(|(_, score)| *score)
            .fold(f64::INFINITY, f64::min);
        let mut entries: Vec<(&str, TokenId)> = vocab
            .iter(tokens)
            .filter(|(_, kind, text)| {
                let is_text = match kind {
                    TokenKind::Normal | TokenKind::UserDefined => true,
                    // The Python package `tokenizers` takes their names for them.
                    TokenKind::Byte => !options.sentencepiece,
                    _ => false,
                };
                is_text && !text.is_empty()
            })
            .filter(|(id, ..)| (*id as usize) < scores.len())
            .map(|(id, _, text)| (text, id))
            .collect();
        if let Some((text, id)) = entries
            .iter()
            .find(|(text, _)| text.len() > MAX_TOKEN_BYTES)
        {
            return Err(TextError::Entry {
                field: options.field,
                index: *id as usize,
                problem: format!("a token of {} bytes, at most 1024", text.len()),
            });
        }
        entries.sort_unstable();
        Ok(Self {
            trie: Trie::of_sorted(&entries)?,
            unknown: options.unknown,
            unknown_score: if worst.is_finite() {
                worst - UNKNOWN_PENALTY
            } else {
                0.0
            },
            bytes: options.bytes,
            single_precision: options.sentencepiece,
            scores,
        })
    }

    /// Appends the ids of a text. A run of characters that no token holds becomes bytes, or one
    /// unknown token.
    pub(super) fn encode(&self, text: &str, scratch: &mut Scratch, out: &mut Vec<TokenId>) {
        let nodes = &mut scratch.nodes;
        nodes.clear();
        nodes.resize(text.len() + 1, Node::default());
        for (start, c) in text.char_indices() {
            let before = nodes[start].score;
            let offer = |end: usize, score: f64, entry: u32, nodes: &mut Vec<Node>| {
                let node = &mut nodes[end];
                let score = self.rounded(score + before);
                if node.entry == 0 || score > node.score {
                    *node = Node {
                        score,
                        start,
                        entry,
                    };
                }
            };
            let mut single = false;
            self.trie.prefixes(&text.as_bytes()[start..], |length, id| {
                single |= length == c.len_utf8();
                offer(start + length, self.scores[id as usize], id + 1, nodes);
            });
            if !single {
                let end = start + c.len_utf8();
                offer(end, self.unknown_score, self.unknown + 1, nodes);
            }
        }
        self.trace(text, &scratch.nodes, out);
    }

    fn rounded(&self, score: f64) -> f64 {
        match self.single_precision {
            true => f64::from(score as f32),
            false => score,
        }
    }

    /// Walks back from the end; ids come out last first.
    fn trace(&self, text: &str, nodes: &[Node], out: &mut Vec<TokenId>) {
        let first = out.len();
        let mut end = text.len();
        while end > 0 {
            let node = nodes[end];
            let mut start = node.start;
            let id = node.entry.saturating_sub(1);
            if id != self.unknown {
                out.push(id);
            } else {
                while start > 0 && nodes[start].entry.saturating_sub(1) == self.unknown {
                    start = nodes[start].start;
                }
                self.spell(&text.as_bytes()[start..end], out);
            }
            end = start;
        }
        out[first..].reverse();
    }

    /// What no token holds, last byte first.
    fn spell(&self, run: &[u8], out: &mut Vec<TokenId>) {
        if let Some(bytes) = self.bytes.as_deref() {
            let token = |byte: &u8| bytes[usize::from(*byte)];
            if run.iter().all(|byte| token(byte) != NO_TOKEN) {
                out.extend(run.iter().rev().map(token));
                return;
            }
        }
        out.push(self.unknown);
    }
}
