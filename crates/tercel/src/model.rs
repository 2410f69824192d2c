//! What the scheduler needs of a model: sequences of tokens, and the logits after them.

use tercel_nn::{
    Chunk, Holding, Identity, KvUsage, Logits, NnError, Options, Prefix, Runner, SequenceId,
};

use crate::TokenId;
use crate::speculate::MAX_DRAFT;

/// The most tokens that one pass may want logits of: enough for scoring to be fast, few enough for
/// a large vocabulary.
pub(crate) const MAX_ROWS: usize = 32;

/// Requests that share the memory of one context, unless told otherwise.
const SHARING: usize = 4;

/// What a runner is made for that has a whole context for each of `sequences`, or one that some
/// share, and whose passes take up to `prefill_chunk` tokens of prompts.
pub(crate) fn options(
    max_context: usize,
    sequences: Option<usize>,
    prefill_chunk: usize,
    threads: usize,
) -> Options {
    let max_sequences = sequences.unwrap_or(SHARING);
    // Every open reply may have its token in a pass beside the prompts, or one its guesses.
    let max_batch_tokens = prefill_chunk.max(1 + MAX_DRAFT) + max_sequences - 1;
    Options {
        max_context,
        max_sequences,
        max_batch_tokens,
        max_outputs: MAX_ROWS.min(max_batch_tokens).max(max_sequences),
        kv_tokens: sequences.is_none().then_some(max_context),
        threads,
        ..Options::default()
    }
}

/// A model that holds some sequences.
pub(crate) trait Model: Send {
    /// See [`Runner::open_sequence`].
    fn open(
        &mut self,
        tokens: &[TokenId],
        reusable: usize,
        max_len: usize,
        identity: Identity,
    ) -> Result<(SequenceId, Prefix), NnError>;

    /// See [`Runner::remove_sequence`].
    fn close(&mut self, id: SequenceId);

    /// See [`Runner::until_stop`].
    fn until_stop(&self, id: SequenceId) -> usize;

    /// See [`Runner::roll_back`].
    fn roll_back(&mut self, id: SequenceId, n: usize);

    /// See [`Runner::can_roll_back`].
    fn can_roll_back(&self) -> bool;

    /// See [`Runner::forward`].
    fn forward(&mut self, chunks: &[Chunk<'_>]) -> Result<Logits<'_>, NnError>;

    /// See [`Runner::holding`].
    fn holding(&self, id: SequenceId) -> Holding;

    /// See [`Runner::kv_usage`].
    fn usage(&self) -> KvUsage;

    /// See [`Runner::clear_prefixes`].
    fn clear_prefixes(&mut self);

    /// See [`Runner::export`].
    fn export(&self, tokens: &[TokenId], identity: Identity) -> Option<Vec<u8>>;

    /// See [`Runner::import`].
    fn import(
        &mut self,
        tokens: &[TokenId],
        identity: Identity,
        saved: &[u8],
    ) -> Result<usize, NnError>;

    /// The most tokens and rows of logits of a pass.
    fn limits(&self) -> (usize, usize);
}

impl Model for Runner {
    fn open(
        &mut self,
        tokens: &[TokenId],
        reusable: usize,
        max_len: usize,
        identity: Identity,
    ) -> Result<(SequenceId, Prefix), NnError> {
        self.open_sequence(tokens, reusable, max_len, identity)
    }

    fn close(&mut self, id: SequenceId) {
        self.remove_sequence(id);
    }

    fn until_stop(&self, id: SequenceId) -> usize {
        Self::until_stop(self, id)
    }

    fn roll_back(&mut self, id: SequenceId, n: usize) {
        Self::roll_back(self, id, n);
    }

    fn can_roll_back(&self) -> bool {
        Self::can_roll_back(self)
    }

    fn forward(&mut self, chunks: &[Chunk<'_>]) -> Result<Logits<'_>, NnError> {
        Self::forward(self, chunks)
    }

    fn holding(&self, id: SequenceId) -> Holding {
        Self::holding(self, id)
    }

    fn usage(&self) -> KvUsage {
        self.kv_usage()
    }

    fn clear_prefixes(&mut self) {
        Self::clear_prefixes(self);
    }

    fn export(&self, tokens: &[TokenId], identity: Identity) -> Option<Vec<u8>> {
        Self::export(self, tokens, identity)
    }

    fn import(
        &mut self,
        tokens: &[TokenId],
        identity: Identity,
        saved: &[u8],
    ) -> Result<usize, NnError> {
        Self::import(self, tokens, identity, saved)
    }

    fn limits(&self) -> (usize, usize) {
        let options = self.options();
        (options.max_batch_tokens, options.max_outputs)
    }
}
