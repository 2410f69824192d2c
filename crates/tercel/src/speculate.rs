//! Guesses at the next tokens, which one pass checks together.
//!
//! A guess never changes a reply: the sampler draws each token from the logits after the true
//! ones, and the first guess that differs ends the check (Leviathan et al., 2023, for a sampler
//! whose draw is a function of the step). Guesses come from the text itself: what followed the
//! last tokens where they stood before (prompt lookup). Where that says nothing, a smaller model
//! may: see [`draft`](crate::draft).

use crate::TokenId;
use crate::pace::Pace;

/// The most tokens that are guessed at once.
pub(crate) const MAX_DRAFT: usize = 7;
/// How many of the last tokens must have stood somewhere before, the longer first.
const CONTEXTS: [usize; 2] = [3, 2];
/// How much faster a pass with guesses must be expected to be.
const WORTH_IT: f64 = 1.05;
/// After so many passes without a guess, one is tried.
const RETRY: u32 = 48;
/// How much a guess says about the next ones.
const WEIGHT: f64 = 0.1;

/// How the guesses of one request do.
#[derive(Debug)]
pub(crate) struct Speculation {
    is_on: bool,
    /// The share of guesses that prove right.
    rate: f64,
    /// Passes since the last guess.
    idle: u32,
}

impl Speculation {
    pub(crate) fn new(is_on: bool) -> Self {
        Self {
            is_on,
            rate: 0.5,
            idle: 0,
        }
    }

    /// Whether there may be guesses.
    pub(crate) fn is_on(&self) -> bool {
        self.is_on
    }

    /// How many tokens to guess now, at most `most`, where each takes `seconds` beside its check;
    /// none where it would not pay.
    pub(crate) fn draft_len(&mut self, pace: &Pace, seconds: f64, most: usize) -> usize {
        if !self.is_on {
            return 0;
        }
        let Some(costs) = pace.costs() else {
            // What a token costs is not known yet, so there is nothing to weigh.
            return 0;
        };
        let speed = |guesses: usize| {
            // One token for certain, then as many as are right in a row.
            let tokens: f64 = (0..=guesses).map(|i| self.rate.powi(i as i32)).sum();
            tokens / (costs.pass + guesses as f64 * (costs.token + seconds))
        };
        let best = (1..=most.min(MAX_DRAFT)).max_by(|a, b| speed(*a).total_cmp(&speed(*b)));
        match best {
            Some(best) if speed(best) > WORTH_IT * speed(0) => best,
            Some(_) if self.idle >= RETRY => 1,
            _ => {
                self.idle += 1;
                0
            }
        }
    }

    /// Learns how many of `proposed` guesses were right.
    pub(crate) fn learn(&mut self, proposed: usize, accepted: usize) {
        self.idle = 0;
        // Guesses after the first wrong one were never put to the test.
        let tested = proposed.min(accepted + 1);
        for guess in 0..tested {
            let hit = f64::from(u8::from(guess < accepted));
            self.rate += WEIGHT * (hit - self.rate);
        }
    }
}

/// Appends to `tokens` up to `most` that followed its last ones where these stood last before, and
/// gives how many.
pub(crate) fn look_up(tokens: &mut Vec<TokenId>, most: usize) -> usize {
    let len = tokens.len();
    for context in CONTEXTS {
        if len <= context {
            continue;
        }
        let last = &tokens[len - context..];
        let found = tokens[..len - 1]
            .windows(context)
            .rposition(|before| before == last);
        if let Some(at) = found {
            let from = at + context;
            let n = most.min(len - from);
            tokens.extend_from_within(from..from + n);
            return n;
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_followed_last_time_is_guessed() {
        let cases: [(&[u32], usize, &[u32]); 7] = [
            (&[], 4, &[]),
            (&[1, 2, 3], 4, &[]),
            (&[1, 2, 3, 4, 5, 1, 2, 3], 2, &[4, 5]),
            (&[1, 2, 3, 4, 5, 1, 2, 3], 4, &[4, 5, 1, 2]),
            // The latest place counts, and two tokens are enough.
            (&[1, 2, 8, 1, 2, 9, 7, 1, 2], 1, &[9]),
            // Three tokens say more than two.
            (&[5, 1, 2, 8, 6, 1, 2, 9, 5, 1, 2], 1, &[8]),
            // A text that repeats itself goes on so.
            (&[4, 4, 4, 4], 4, &[4]),
        ];
        for (tokens, most, want) in cases {
            let mut all = tokens.to_vec();
            let n = look_up(&mut all, most);
            assert_eq!((&all[tokens.len()..], n), (want, want.len()), "{tokens:?}");
        }
    }

    #[test]
    fn guesses_stop_where_they_do_not_pay_and_are_tried_again() {
        let mut pace = Pace::default();
        let mut speculation = Speculation::new(true);
        assert_eq!(speculation.draft_len(&pace, 0.0, 7), 0, "nothing is known");
        // A token beside others costs a fifth of a pass.
        for _ in 0..20 {
            pace.record(1, 0, Duration::from_millis(10));
            pace.record(1, 100, Duration::from_millis(10 + 200));
        }
        assert!(speculation.draft_len(&pace, 0.0, 7) >= 2);
        for _ in 0..40 {
            speculation.learn(3, 3);
        }
        assert_eq!(speculation.draft_len(&pace, 0.0, 7), 7);
        assert_eq!(speculation.draft_len(&pace, 0.0, 3), 3);
        let dear = speculation.draft_len(&pace, 0.02, 7);
        assert_eq!(dear, 0, "a guess that takes longer than a pass");
        for _ in 0..60 {
            speculation.learn(3, 0);
        }
        let tried = (0..200)
            .filter(|_| speculation.draft_len(&pace, 0.0, 7) > 0)
            .count();
        assert!(tried > 0, "it is tried again");
        assert_eq!(
            (0..RETRY)
                .map(|_| {
                    speculation.learn(0, 0);
                    speculation.draft_len(&pace, 0.0, 7)
                })
                .max(),
            Some(0)
        );
        assert_eq!(Speculation::new(false).draft_len(&pace, 0.0, 7), 0);
    }
}
