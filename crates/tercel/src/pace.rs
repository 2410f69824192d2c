//! What passes cost, and so how much of a prompt goes beside replies without slowing them.

use std::time::Duration;

/// How much longer than without prompts a pass may take where replies are under way.
const SLOWDOWN: f64 = 0.5;
/// Seconds that replies may be held up, now and then, so that a short prompt begins its own at once.
/// A prompt that takes less is short.
const STALL: f64 = 0.2;
/// A prompt goes on by at least this many tokens in each pass.
const LEAST: usize = 1;
/// Every so many passes, replies are alone: what they cost must be known.
const ALONE: u32 = 16;
/// How much a pass says about the next ones.
const WEIGHT: f64 = 0.2;
/// A pass that took longer than so many times what was expected was disturbed.
const OUTLIER: f64 = 4.0;
/// Replies beyond so many cost as much as these.
const SIZES: usize = 33;

/// Learns from passes that were timed.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Seconds of a pass of so many replies and no prompt.
    replies: [Option<f64>; SIZES],
    /// Seconds of each further token of a pass.
    token: Option<f64>,
    /// Passes since the replies were alone.
    mixed: u32,
}

/// What a pass costs, in seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Costs {
    /// One token.
    pub(crate) pass: f64,
    /// Each further token.
    pub(crate) token: f64,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            replies: [None; SIZES],
            token: None,
            mixed: 0,
        }
    }
}

impl Pace {
    /// How many tokens of prompts go into a pass with `replies` tokens of replies, at most `most`.
    pub(crate) fn allowance(&mut self, replies: usize, most: usize) -> usize {
        if replies == 0 {
            return most;
        }
        self.mixed += 1;
        if self.mixed >= ALONE {
            self.mixed = 0;
            return 0;
        }
        let (Some(alone), Some(token)) = (self.alone(replies), self.token) else {
            return LEAST.min(most);
        };
        let tokens = SLOWDOWN * alone / token.max(1e-9);
        (tokens as usize).max(LEAST).min(most)
    }

    /// How many tokens of prompts a pass may take at once for the sake of short ones; none while it
    /// is not known what they cost.
    pub(crate) fn burst(&self) -> usize {
        self.token
            .map_or(0, |token| (STALL / token.max(1e-9)) as usize)
    }

    /// Notes how long a pass took that had so many tokens of replies and of prompts.
    pub(crate) fn record(&mut self, replies: usize, prompts: usize, took: Duration) {
        let took = took.as_secs_f64();
        if prompts == 0 {
            let mean = &mut self.replies[replies.min(SIZES - 1)];
            update(mean, took);
            return;
        }
        let alone = if replies == 0 {
            Some(0.0)
        } else {
            self.alone(replies)
        };
        if let Some(alone) = alone {
            update(&mut self.token, (took - alone).max(0.0) / prompts as f64);
        }
    }

    /// The costs of a single reply, once known.
    pub(crate) fn costs(&self) -> Option<Costs> {
        Some(Costs {
            pass: self.replies[1]?,
            token: self.token?,
        })
    }

    /// What replies take by themselves: as measured for that many, or the next fewer.
    fn alone(&self, replies: usize) -> Option<f64> {
        let known = &self.replies[..=replies.min(SIZES - 1)];
        let fewer = known.iter().rev().find_map(|mean| *mean);
        fewer.or_else(|| self.replies.iter().find_map(|mean| *mean))
    }
}

fn update(mean: &mut Option<f64>, value: f64) {
    *mean = Some(match *mean {
        Some(mean) => mean + WEIGHT * (value.min(OUTLIER * mean) - mean),
        None => value,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine on which a pass takes 10 ms, and each token 2 ms more.
    fn took(replies: usize, prompts: usize) -> Duration {
        Duration::from_millis(8 + 2 * (replies + prompts) as u64)
    }

    #[test]
    fn a_prompt_slows_replies_by_a_share_at_most() {
        let mut pace = Pace::default();
        assert_eq!(pace.allowance(0, 256), 256, "nobody is slowed");
        assert_eq!(pace.allowance(4, 256), LEAST, "nothing is known");
        assert_eq!(pace.burst(), 0, "nothing is known");
        for _ in 0..100 {
            pace.record(4, 0, took(4, 0));
            let prompts = pace.allowance(4, 256);
            pace.record(4, prompts, took(4, prompts));
        }
        let slowest = (0..100).map(|_| took(4, pace.allowance(4, 256))).max();
        let alone = took(4, 0).as_secs_f64();
        let slowest = slowest.map_or(0.0, |slowest| slowest.as_secs_f64() / alone);
        assert!((1.2..=1.0 + SLOWDOWN).contains(&slowest), "{slowest}");
        let none = (0..160).filter(|_| pace.allowance(4, 256) == 0).count();
        assert_eq!(none, 10, "what replies cost alone stays known");
        assert_eq!(pace.allowance(4, 1), 1);
        assert!((95..=105).contains(&pace.burst()), "{}", pace.burst());
    }

    #[test]
    fn a_pass_that_was_disturbed_says_little() {
        let mut pace = Pace::default();
        for _ in 0..50 {
            pace.record(1, 0, took(1, 0));
        }
        pace.record(1, 0, Duration::from_secs(100));
        let alone = pace.alone(1).unwrap_or_default();
        assert!(alone < 0.02, "{alone}");
        for _ in 0..30 {
            pace.record(1, 0, took(1, 0));
        }
        let alone = pace.alone(1).unwrap_or_default();
        assert!((0.0099..0.0102).contains(&alone), "{alone}");
    }
}
