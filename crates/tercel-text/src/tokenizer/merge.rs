//! Merging neighbours, best pair first: what both kinds of byte-pair encoding have in common.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::TokenId;

/// No token: a symbol that the vocabulary has no entry for.
pub(super) const NO_TOKEN: TokenId = TokenId::MAX;

/// A stretch of the text and the token it stands for at this point of the merging.
#[derive(Debug, Clone, Copy)]
pub(super) struct Symbol {
    /// First byte in the text.
    pub(super) start: usize,
    /// Length in bytes; 0 once the symbol is part of its left neighbour.
    pub(super) len: usize,
    pub(super) id: TokenId,
    prev: usize,
    next: usize,
}

/// A pair that may be merged. Lower ranks go first, then pairs further left.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    rank: u32,
    left: usize,
    right: usize,
    /// The bytes of both when the pair was seen: it is stale when they have changed.
    len: usize,
    merged: TokenId,
}

/// The work space of merging, kept from word to word.
#[derive(Debug, Default)]
pub(super) struct Merger {
    symbols: Vec<Symbol>,
    queue: BinaryHeap<Reverse<Candidate>>,
}

impl Merger {
    /// Forgets the last word.
    pub(super) fn clear(&mut self) {
        self.symbols.clear();
        self.queue.clear();
    }

    /// Appends a symbol to the word.
    pub(super) fn push(&mut self, start: usize, len: usize, id: TokenId) {
        let here = self.symbols.len();
        let symbol = Symbol {
            start,
            len,
            id,
            prev: here.wrapping_sub(1),
            next: here + 1,
        };
        self.symbols.push(symbol);
    }

    /// Makes the last symbol of the word longer by `len` bytes.
    pub(super) fn extend_last(&mut self, len: usize) {
        if let Some(last) = self.symbols.last_mut() {
            last.len += len;
        }
    }

    /// Merges until `rule` knows no pair any more, in O(n log n) for n symbols. `rule` gives the
    /// rank and the resulting token of a pair, or `None` where it may not be merged.
    pub(super) fn run(&mut self, rule: impl Fn(&Symbol, &Symbol) -> Option<(u32, TokenId)>) {
        for left in 0..self.symbols.len() {
            self.offer(left, left + 1, &rule);
        }
        while let Some(Reverse(best)) = self.queue.pop() {
            let (left, right) = (self.symbols[best.left], self.symbols[best.right]);
            let alive = left.len > 0 && right.len > 0 && left.next == best.right;
            if !alive || left.len + right.len != best.len {
                continue;
            }
            let merged = &mut self.symbols[best.left];
            merged.len = best.len;
            merged.id = best.merged;
            merged.next = right.next;
            self.symbols[best.right].len = 0;
            if let Some(after) = self.symbols.get_mut(right.next) {
                after.prev = best.left;
            }
            self.offer(left.prev, best.left, &rule);
            self.offer(best.left, right.next, &rule);
        }
    }

    fn offer(
        &mut self,
        left: usize,
        right: usize,
        rule: &impl Fn(&Symbol, &Symbol) -> Option<(u32, TokenId)>,
    ) {
        let (Some(a), Some(b)) = (self.symbols.get(left), self.symbols.get(right)) else {
            return;
        };
        if let Some((rank, merged)) = rule(a, b) {
            let len = a.len + b.len;
            self.queue.push(Reverse(Candidate {
                rank,
                left,
                right,
                len,
                merged,
            }));
        }
    }

    /// The symbols that are left, in text order.
    pub(super) fn symbols(&self) -> impl Iterator<Item = &Symbol> {
        self.symbols.iter().filter(|symbol| symbol.len > 0)
    }
}
