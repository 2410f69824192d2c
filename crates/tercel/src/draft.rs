//! A second, smaller model that guesses what the first will say.
//!
//! It follows the texts of replies with sequences of its own and draws each guess as the reply's
//! sampler would from the true logits, with the same chance, so that where the models agree their
//! tokens do (Leviathan et al., 2023). A guess never changes a reply: what the small model cannot
//! do, or does wrong, only costs time.

use std::time::Instant;

use smallvec::SmallVec;
use tercel_nn::{Chunk, Identity, SequenceId, Wanted};

use crate::TokenId;
use crate::model::Model;
use crate::sampler::Sampler;

/// How much a pass says about the next ones.
const WEIGHT: f64 = 0.2;
/// Sequences that a pass handles without touching the heap.
const INLINE: usize = 16;

/// The model that guesses.
pub(crate) struct Drafter {
    model: Box<dyn Model>,
    /// Tokens that a text may have.
    max_context: usize,
    /// Seconds of a guess, once known.
    seconds: Option<f64>,
}

/// The text of one reply, as far as the model that guesses has read it.
#[derive(Debug)]
pub(crate) struct Follower {
    sequence: SequenceId,
    held: usize,
}

/// A reply that is to get guesses.
pub(crate) struct Want<'a> {
    pub(crate) follower: &'a mut Follower,
    /// Prompt and reply; guesses are appended.
    pub(crate) tokens: &'a mut Vec<TokenId>,
    pub(crate) sampler: &'a mut Sampler,
    /// The step of the first guess.
    pub(crate) step: u64,
    /// How many are wanted, and then how many there are.
    pub(crate) guesses: usize,
    /// Tokens of the vocabulary.
    pub(crate) vocab_size: usize,
}

impl Drafter {
    pub(crate) fn new(model: Box<dyn Model>, max_context: usize) -> Self {
        Self {
            model,
            max_context,
            seconds: None,
        }
    }

    /// What each guess costs beside its check, in seconds; nothing until there was one.
    pub(crate) fn seconds(&self) -> f64 {
        self.seconds.unwrap_or(0.0)
    }

    /// Begins to follow a reply of up to `max_len` tokens, its prompt counted. Nothing where there
    /// is no room.
    pub(crate) fn follow(&mut self, max_len: usize) -> Option<Follower> {
        let opened = self.model.open(&[], 0, max_len, Identity::default());
        let (sequence, _) = opened.ok()?;
        Some(Follower { sequence, held: 0 })
    }

    /// Stops following.
    pub(crate) fn leave(&mut self, follower: &Follower) {
        self.model.close(follower.sequence);
    }

    /// Takes back what was read after the first `len` tokens.
    pub(crate) fn take_back(&mut self, follower: &mut Follower, len: usize) {
        if follower.held > len {
            self.model.roll_back(follower.sequence, follower.held - len);
            follower.held = len;
        }
    }

    /// Appends guesses to the texts in `wants`. A text of which much is unread gets none now: a
    /// piece of it is read, so that others need not wait long.
    pub(crate) fn guess(&mut self, wants: &mut [Want<'_>]) {
        let most = wants.iter().map(|want| want.guesses).max().unwrap_or(0);
        let mut wanted: SmallVec<[usize; INLINE]> = SmallVec::new();
        for want in wants.iter_mut() {
            wanted.push(std::mem::take(&mut want.guesses));
        }
        for round in 0..most {
            let begun = Instant::now();
            let read = self.round(wants, &wanted, round);
            match read {
                Some(0) | None => return,
                // Later rounds read one token each: that is what a guess costs.
                Some(_) if round > 0 || self.seconds.is_none() => {
                    let took = begun.elapsed().as_secs_f64();
                    let mean = self.seconds.get_or_insert(took);
                    *mean += WEIGHT * (took.min(4.0 * *mean) - *mean);
                }
                Some(_) => {}
            }
        }
    }

    /// One more guess for each text that wants as many; gives how many got one. `None` where the
    /// model fails: then there are no more.
    fn round(&mut self, wants: &mut [Want<'_>], wanted: &[usize], round: usize) -> Option<usize> {
        let (mut room, mut rows) = self.model.limits();
        let mut chunks: SmallVec<[Chunk<'_>; INLINE]> = SmallVec::new();
        let mut guessing: SmallVec<[usize; INLINE]> = SmallVec::new();
        for (i, (want, wanted)) in wants.iter().zip(wanted).enumerate() {
            let unread = &want.tokens[want.follower.held.min(want.tokens.len())..];
            // A text that was not read to its end has no guesses to go on from.
            let goes_on = round == 0 || want.guesses == round;
            let fits = want.tokens.len() <= self.max_context;
            if round >= *wanted || !goes_on || !fits || unread.is_empty() || room == 0 || rows == 0
            {
                continue;
            }
            let tokens = &unread[..unread.len().min(room)];
            let is_read = tokens.len() == unread.len();
            room -= tokens.len();
            rows -= usize::from(is_read);
            guessing.push(i);
            chunks.push(Chunk {
                sequence: want.follower.sequence,
                tokens,
                wanted: if is_read { Wanted::Last } else { Wanted::None },
            });
        }
        if chunks.is_empty() {
            return Some(0);
        }
        let logits = self.model.forward(&chunks).ok()?;
        let read: SmallVec<[(usize, bool); INLINE]> = chunks
            .iter()
            .map(|chunk| (chunk.tokens.len(), chunk.wanted == Wanted::Last))
            .collect();
        drop(chunks);
        let (mut row, mut guessed) = (0, 0);
        for (i, (tokens, is_read)) in guessing.into_iter().zip(read) {
            let want = &mut wants[i];
            want.follower.held += tokens;
            if !is_read {
                continue;
            }
            let logits = logits.row(row);
            row += 1;
            let logits = &logits[..logits.len().min(want.vocab_size)];
            let step = want.step + want.guesses as u64;
            // Logits that are no numbers give no guess.
            if let Ok(token) = want.sampler.sample(step, logits) {
                want.tokens.push(token);
                want.guesses += 1;
                guessed += 1;
            }
        }
        Some(guessed)
    }
}
