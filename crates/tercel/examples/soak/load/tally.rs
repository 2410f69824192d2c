//! What happened, in numbers.

use std::sync::atomic::{AtomicU64, Ordering};

use tercel::{Reply, StopReason};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    Replies,
    Cancelled,
    TimedOut,
    Left,
    QueueFull,
    Refused,
    Scores,
    Chats,
    States,
    Engines,
    Known,
    Probes,
    PromptTokens,
    CachedTokens,
    GeneratedTokens,
    RightGuesses,
}

impl Count {
    const ALL: [(Self, &'static str); 16] = [
        (Self::Replies, "replies"),
        (Self::Cancelled, "of them cancelled"),
        (Self::TimedOut, "of them out of time"),
        (Self::Left, "streams left"),
        (Self::QueueFull, "queue full"),
        (Self::Refused, "bad requests refused"),
        (Self::Scores, "texts scored"),
        (Self::Chats, "conversations"),
        (Self::States, "states out and in"),
        (Self::Engines, "other engines"),
        (Self::Known, "known replies compared"),
        (Self::Probes, "probes compared"),
        (Self::PromptTokens, "prompt tokens"),
        (Self::CachedTokens, "of them cached"),
        (Self::GeneratedTokens, "generated tokens"),
        (Self::RightGuesses, "of them guessed"),
    ];
}

/// A number for each [`Count`].
#[derive(Debug, Default)]
pub(crate) struct Tally([AtomicU64; Count::ALL.len()]);

impl Tally {
    pub(crate) fn add(&self, count: Count, n: u64) {
        self.0[count as usize].fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn of(&self, count: Count) -> u64 {
        self.0[count as usize].load(Ordering::Relaxed)
    }

    /// Counts a reply and its tokens.
    pub(crate) fn reply(&self, reply: &Reply) {
        self.add(Count::Replies, 1);
        match reply.stop_reason {
            StopReason::Cancelled => self.add(Count::Cancelled, 1),
            StopReason::Timeout => self.add(Count::TimedOut, 1),
            _ => {}
        }
        let usage = &reply.usage;
        for (count, n) in [
            (Count::PromptTokens, usage.prompt_tokens),
            (Count::CachedTokens, usage.cached_tokens),
            (Count::GeneratedTokens, usage.generated_tokens),
            (Count::RightGuesses, usage.accepted_draft_tokens),
        ] {
            self.add(count, n as u64);
        }
    }

    /// Everything that callers finished: it grows as long as the engine under load moves.
    pub(crate) fn beats(&self) -> u64 {
        let all = Count::ALL.iter();
        let all = all.filter(|(count, _)| !matches!(count, Count::Engines | Count::Refused));
        all.map(|(count, _)| self.of(*count)).sum()
    }

    /// What never happened, though it should in any long run. Guesses are not every model's.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        let all = Count::ALL.iter();
        let wanted = all.filter(|(count, _)| *count != Count::RightGuesses);
        wanted
            .filter(|(count, _)| self.of(*count) == 0)
            .map(|(_, name)| *name)
            .collect()
    }

    /// A line for each number.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let all = Count::ALL.iter();
        all.map(|(count, name)| (*name, self.of(*count)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_count_has_its_place_and_is_missed_when_it_is_zero() {
        let tally = Tally::default();
        for (i, (count, _)) in Count::ALL.iter().enumerate() {
            assert_eq!(*count as usize, i);
            if ![Count::States, Count::RightGuesses].contains(count) {
                tally.add(*count, i as u64 + 1);
            }
        }
        assert_eq!(tally.missing(), ["states out and in"]);
        assert_eq!(tally.of(Count::Cancelled), 2);
        assert_eq!(tally.rows().nth(1), Some(("of them cancelled", 2)));
    }
}
