//! The account of a prompt, block by block.

use super::budget::{BlockKind, BlockLimit, BlockOutcome, BlockReport};

/// The account while it is written.
pub(super) struct Ledger {
    /// Tokens of the prompt so far.
    pub(super) before: usize,
    pub(super) remaining: usize,
    pub(super) blocks: Vec<BlockReport>,
}

/// A block before it is known what it takes.
pub(super) struct Row {
    kind: BlockKind,
    pub(super) name: Option<String>,
    pub(super) outcome: BlockOutcome,
    pub(super) reason: Option<BlockLimit>,
    tokens: usize,
    dropped_parts: usize,
}

impl Row {
    pub(super) fn whole(kind: BlockKind, tokens: usize) -> Self {
        Self {
            kind,
            name: None,
            outcome: BlockOutcome::Kept,
            reason: None,
            tokens,
            dropped_parts: 0,
        }
    }

    /// A block of `parts` parts, of which each limit in turn left so many.
    pub(super) fn parts(
        kind: BlockKind,
        tokens: usize,
        parts: usize,
        limits: [(usize, BlockLimit); 2],
    ) -> Self {
        let mut row = Self::whole(kind, tokens);
        let mut left = parts;
        for (kept, limit) in limits {
            if kept < left {
                row.reason = Some(limit);
                left = kept;
            }
        }
        row.dropped_parts = parts - left;
        row.outcome = match left {
            left if left == parts => BlockOutcome::Kept,
            0 => BlockOutcome::Dropped,
            _ => BlockOutcome::Shortened,
        };
        row
    }
}

impl Ledger {
    /// Enters a block after which the prompt has `total` tokens.
    pub(super) fn add(&mut self, row: Row, total: usize) {
        let kept = total.saturating_sub(self.before);
        self.before = total;
        self.enter(row, kept);
    }

    /// Enters the latest message, which was counted at the start.
    pub(super) fn add_user(&mut self, tokens: usize, kept: usize) {
        self.enter(Row::whole(BlockKind::User, tokens), kept);
    }

    fn enter(&mut self, row: Row, kept_tokens: usize) {
        self.remaining = self.remaining.saturating_sub(kept_tokens);
        self.blocks.push(BlockReport {
            protected: matches!(
                row.kind,
                BlockKind::System | BlockKind::Summary | BlockKind::User
            ),
            kind: row.kind,
            name: row.name,
            outcome: row.outcome,
            reason: row.reason,
            tokens: row.tokens,
            kept_tokens,
            dropped_parts: row.dropped_parts,
            remaining_tokens: self.remaining,
        });
    }
}
