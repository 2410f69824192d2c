//! One reply's way through a grammar.

use llguidance::Matcher;
use llguidance::toktrie::SimpleVob;

use super::{GrammarError, one_line};
use crate::tokenizer::TokenId;

/// What a reply may go on with, token by token.
pub struct Constraint {
    matcher: Matcher,
    /// Of the first token, until it is asked for or the text has begun.
    first: Option<SimpleVob>,
}

/// The tokens that may come next. The ends of a reply are among them where the text may end.
#[derive(Clone)]
pub struct Mask {
    bits: SimpleVob,
}

impl Constraint {
    /// Stands at the beginning of a text.
    ///
    /// # Errors
    /// Why there is no text that could begin.
    pub(super) fn new(mut matcher: Matcher) -> Result<Self, String> {
        let first = matcher.compute_mask_or_eos();
        let first = first.map_err(|error| match matcher.get_error() {
            // What is called for does not end, such as a schema that refers to itself.
            Some(error) if error.contains("NoExtension") => "no text can be made by it".to_owned(),
            _ => error.to_string(),
        })?;
        Ok(Self {
            matcher,
            first: Some(first),
        })
    }

    /// The tokens that may come next: some 50 microseconds, now and then some milliseconds.
    ///
    /// # Errors
    /// [`GrammarError::Stuck`].
    pub fn mask(&mut self) -> Result<Mask, GrammarError> {
        let bits = match self.first.take() {
            Some(bits) => bits,
            None => self.matcher.compute_mask_or_eos().map_err(stuck)?,
        };
        Ok(Mask { bits })
    }

    /// Goes on with a token that [`Constraint::mask`] allows.
    ///
    /// # Errors
    /// [`GrammarError::Stuck`], also for a token that may not come.
    pub fn accept(&mut self, token: TokenId) -> Result<(), GrammarError> {
        self.first = None;
        self.matcher.consume_token(token).map_err(stuck)
    }

    /// The tokens that must come next, where there is no choice; they are to be accepted.
    ///
    /// # Errors
    /// [`GrammarError::Stuck`].
    pub fn forced(&mut self) -> Result<Vec<TokenId>, GrammarError> {
        let forced = self.matcher.compute_ff_tokens();
        self.check()?;
        Ok(forced)
    }

    /// Whether the text is complete and nothing can follow it.
    ///
    /// # Errors
    /// [`GrammarError::Stuck`].
    pub fn is_over(&self) -> Result<bool, GrammarError> {
        self.check()?;
        Ok(self.matcher.is_stopped())
    }

    /// What has failed is stopped as well, and tells nothing of the text.
    fn check(&self) -> Result<(), GrammarError> {
        match self.matcher.get_error() {
            Some(error) => Err(stuck(error)),
            None => Ok(()),
        }
    }
}

fn stuck(error: impl std::fmt::Display) -> GrammarError {
    GrammarError::Stuck {
        problem: one_line(&error.to_string()),
    }
}

impl Mask {
    /// All of so many tokens but these.
    pub fn all_but(vocab_size: usize, tokens: &[TokenId]) -> Self {
        let mut bits = SimpleVob::alloc_ones(vocab_size);
        for token in tokens {
            bits.disallow_token(*token);
        }
        Self { bits }
    }

    /// Whether a token may come.
    pub fn allows(&self, token: TokenId) -> bool {
        (token as usize) < self.bits.len() && self.bits.is_allowed(token)
    }

    /// Lets a token come that the grammar does not know.
    pub fn allow(&mut self, token: TokenId) {
        if (token as usize) < self.bits.len() {
            self.bits.allow_token(token);
        }
    }

    /// How many tokens may come.
    pub fn count(&self) -> usize {
        self.bits.num_set()
    }

    /// Makes what may not come impossible: `logits` is `(vocab_size)`, and gets negative infinity.
    pub fn apply(&self, logits: &mut [f32]) {
        let words = self
            .bits
            .as_slice()
            .iter()
            .copied()
            .chain(std::iter::repeat(0));
        for (logits, word) in logits.chunks_mut(u32::BITS as usize).zip(words) {
            match word {
                0 => logits.fill(f32::NEG_INFINITY),
                u32::MAX => {}
                _ => {
                    for (bit, logit) in logits.iter_mut().enumerate() {
                        if word >> bit & 1 == 0 {
                            *logit = f32::NEG_INFINITY;
                        }
                    }
                }
            }
        }
    }
}

impl std::fmt::Debug for Constraint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Constraint").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mask")
            .field("count", &self.count())
            .finish()
    }
}
