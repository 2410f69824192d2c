//! What the scheduler needs of a model: one sequence of tokens, and the logits after it.

use tercel_nn::{Chunk, NnError, Options, Runner, SequenceId, Wanted};

use crate::TokenId;

/// The most tokens that one step may want logits of: enough for scoring to be fast, few enough for
/// a large vocabulary.
pub(crate) const MAX_ROWS: usize = 32;

/// What a runner for one sequence is made for.
pub(crate) fn options(max_context: usize, prefill_chunk: usize, threads: usize) -> Options {
    Options {
        max_context,
        max_sequences: 1,
        max_batch_tokens: prefill_chunk,
        max_outputs: MAX_ROWS.min(prefill_chunk),
        threads,
        ..Options::default()
    }
}

/// A model that holds one sequence.
pub(crate) trait Model: Send {
    /// Forgets everything from position `len` on, and gives how many tokens are left: `len`, or
    /// fewer where there is no way back to it.
    fn truncate(&mut self, len: usize) -> usize;

    /// Appends `tokens` and shows each row of logits `(vocab_size)` that is `wanted`, in order,
    /// with its number. On an error nothing was appended.
    fn append(
        &mut self,
        tokens: &[TokenId],
        wanted: Wanted,
        row: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), NnError>;
}

/// A [`Runner`] with its one sequence.
pub(crate) struct RunnerModel {
    runner: Runner,
    sequence: SequenceId,
}

impl RunnerModel {
    pub(crate) fn new(mut runner: Runner) -> Result<Self, NnError> {
        let sequence = runner.add_sequence()?;
        Ok(Self { runner, sequence })
    }
}

impl Model for RunnerModel {
    fn truncate(&mut self, len: usize) -> usize {
        self.runner.truncate(self.sequence, len)
    }

    fn append(
        &mut self,
        tokens: &[TokenId],
        wanted: Wanted,
        row: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), NnError> {
        let logits = self.runner.forward(&[Chunk {
            sequence: self.sequence,
            tokens,
            wanted,
        }])?;
        (0..logits.rows()).for_each(|i| row(i, logits.row(i)));
        Ok(())
    }
}
