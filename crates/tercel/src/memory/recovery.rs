//! The ladder down from a request that runs out of memory: four levels, each with less, then an
//! error.

use std::fmt;

use serde::Serialize;

use super::normalize::Adjustment;
use crate::error::Error;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Asked {
    /// The most tokens to generate.
    pub max_new_tokens: usize,
    /// Tokens of the prompt.
    pub context_tokens: usize,
    /// Sequences that run at once.
    pub batch: usize,
}

/// One step of a [`Ladder`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Attempt {
    /// 0 as asked, then 1 to 3.
    pub level: u8,
    /// The most tokens to generate.
    pub max_new_tokens: usize,
    /// What the prompt may keep: system text, and as many of the last turns as fit.
    pub context_tokens: usize,
    /// Sequences that run at once.
    pub batch: usize,
}

impl Attempt {
    /// Tokens that the KV cache must hold for it, for a budget that is computed anew.
    pub fn kv_tokens(&self) -> usize {
        self.context_tokens
            .saturating_add(self.max_new_tokens)
            .saturating_mul(self.batch)
    }

    /// What decides about the size of the KV cache.
    fn kv_parts(&self) -> [usize; 3] {
        [self.max_new_tokens, self.context_tokens, self.batch]
    }
}

/// Which attempts follow each other when memory runs short. Each level keeps what the ones before
/// it lowered:
///
/// - 0: as asked,
/// - 1: half the reply, at least one token; the prompt is kept,
/// - 2: the prompt cut to its system text and last turns,
/// - 3: one sequence at a time.
///
/// A level that would change nothing is left out: what has just failed would fail again.
#[derive(Clone, Debug)]
pub struct Ladder {
    current: Attempt,
    /// Those to come, the gravest first.
    fallbacks: Vec<Attempt>,
    adjustments: Vec<Adjustment>,
}

/// How a request came through, for its reply and the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Outcome {
    /// Whether there is a result.
    pub status: Status,
    /// The level that was tried last: 0 to 3.
    pub fallback_level: u8,
    /// What was changed, in the order of the changes; those of parameters first.
    pub adjustments: Vec<Adjustment>,
    /// What happened, in one line; of an error its message.
    pub message: String,
}

/// Whether there is a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// There is one.
    Ok,
    /// There is none.
    Error,
}

impl Ladder {
    /// What a prompt is cut to at level 2, in tokens, unless told otherwise.
    pub const KEPT_TOKENS: usize = 2048;

    /// The ladder of a request whose parameters were changed by `adjustments` already.
    pub fn new(asked: Asked, adjustments: Vec<Adjustment>) -> Self {
        Self::keeping(asked, adjustments, Self::KEPT_TOKENS)
    }

    /// As [`new`](Self::new), with a prompt of `kept_tokens` (at least 1) at level 2.
    pub fn keeping(asked: Asked, adjustments: Vec<Adjustment>, kept_tokens: usize) -> Self {
        let Asked {
            max_new_tokens,
            context_tokens,
            batch,
        } = asked;
        let first = Attempt {
            level: 0,
            max_new_tokens,
            context_tokens,
            batch,
        };
        let shorter = Attempt {
            level: 1,
            max_new_tokens: (max_new_tokens / 2).max(1),
            ..first
        };
        let truncated = Attempt {
            level: 2,
            context_tokens: context_tokens.min(kept_tokens.max(1)),
            ..shorter
        };
        let single = Attempt {
            level: 3,
            batch: batch.min(1),
            ..truncated
        };
        let mut fallbacks: Vec<Attempt> = Vec::new();
        for attempt in [shorter, truncated, single] {
            let before = fallbacks.last().unwrap_or(&first);
            if attempt.kv_parts() != before.kv_parts() {
                fallbacks.push(attempt);
            }
        }
        fallbacks.reverse();
        Self {
            current: first,
            fallbacks,
            adjustments,
        }
    }

    /// What to try now.
    pub fn current(&self) -> Attempt {
        self.current
    }

    /// Goes one level down after the current attempt ran out of memory; `None` when there is no
    /// level left.
    pub fn step_down(&mut self) -> Option<Attempt> {
        let next = self.fallbacks.pop()?;
        let names = ["max_new_tokens", "context_tokens", "batch"];
        let changes = self.current.kv_parts().into_iter().zip(next.kv_parts());
        for (field, (from, to)) in names.into_iter().zip(changes) {
            if from != to {
                let change = Adjustment::new(field, &from, &to, "out of memory");
                self.adjustments.push(change);
            }
        }
        self.current = next;
        Some(next)
    }

    /// How it came about that there is a result, or, with the message of the last error, that there
    /// is none.
    pub fn outcome(self, error: Option<&dyn fmt::Display>) -> Outcome {
        let level = self.current.level;
        let (status, message) = match error {
            Some(error) => (Status::Error, error.to_string()),
            None if level == 0 => (Status::Ok, "as asked".to_owned()),
            None => (
                Status::Ok,
                format!("out of memory at first; done at fallback level {level}"),
            ),
        };
        Outcome {
            status,
            fallback_level: level,
            adjustments: self.adjustments,
            message,
        }
    }

    /// Makes attempt after attempt, until one succeeds or fails for another reason than memory.
    /// Gives the last result, and how it came about.
    pub fn climb_down<T, E: fmt::Display>(
        mut self,
        mut attempt: impl FnMut(&Attempt) -> Result<T, E>,
        is_out_of_memory: impl Fn(&E) -> bool,
    ) -> (Result<T, E>, Outcome) {
        loop {
            match attempt(&self.current) {
                Ok(value) => return (Ok(value), self.outcome(None)),
                Err(error) if is_out_of_memory(&error) && self.step_down().is_some() => {}
                Err(error) => {
                    let outcome = self.outcome(Some(&error));
                    return (Err(error), outcome);
                }
            }
        }
    }
}

impl Outcome {
    /// The outcome of a request whose parameters could not be brought into range: nothing ran.
    pub fn rejected(error: &Error) -> Self {
        Self {
            status: Status::Error,
            fallback_level: 0,
            adjustments: Vec::new(),
            message: error.to_string(),
        }
    }
}

/// Whether an error says that memory is short: the one place that decides it.
pub fn is_out_of_memory(error: &Error) -> bool {
    matches!(
        error.kind(),
        "insufficient_memory" | "out_of_memory" | "oom_kv_cache"
    )
}

#[cfg(test)]
mod tests {
    use tercel_nn::NnError;

    use super::*;
    use crate::memory::normalize::{Counts, normalize};
    use crate::sampling::Sampling;

    const ASKED: Asked = Asked {
        max_new_tokens: 512,
        context_tokens: 4096,
        batch: 4,
    };

    fn short() -> Error {
        Error::Inference(NnError::OutOfMemory {
            bytes: 1,
            what: "the KV cache",
        })
    }

    /// Fails as long as more tokens are held than `room`.
    fn with_room(ladder: Ladder, room: usize) -> (Vec<Attempt>, Outcome) {
        let mut seen = Vec::new();
        let attempt = |attempt: &Attempt| {
            seen.push(*attempt);
            if attempt.kv_tokens() > room {
                Err(short())
            } else {
                Ok(())
            }
        };
        let (result, outcome) = ladder.climb_down(attempt, is_out_of_memory);
        assert_eq!(result.is_ok(), outcome.status == Status::Ok);
        (seen, outcome)
    }

    #[test]
    fn levels_are_cumulative() {
        let (seen, outcome) = with_room(Ladder::new(ASKED, Vec::new()), 0);
        let got: Vec<_> = seen
            .iter()
            .map(|one| (one.level, one.max_new_tokens, one.context_tokens, one.batch))
            .collect();
        assert_eq!(
            got,
            [
                (0, 512, 4096, 4),
                (1, 256, 4096, 4),
                (2, 256, 2048, 4),
                (3, 256, 2048, 1)
            ]
        );
        assert_eq!((outcome.status, outcome.fallback_level), (Status::Error, 3));
        assert_eq!(outcome.message, short().to_string());
        let told: Vec<_> = outcome
            .adjustments
            .iter()
            .map(|one| (one.field, one.from.as_str(), one.to.as_str()))
            .collect();
        assert_eq!(
            told,
            [
                ("max_new_tokens", "512", "256"),
                ("context_tokens", "4096", "2048"),
                ("batch", "4", "1")
            ]
        );
        let json = serde_json::to_value(&outcome).expect("JSON");
        assert_eq!(
            (&json["status"], &json["fallback_level"]),
            (&"error".into(), &3.into())
        );
    }

    #[test]
    fn it_goes_no_further_down_than_it_must() {
        for (room, level) in [
            (4 * 4608, 0),
            (4 * 4608 - 1, 1),
            (4 * 4352 - 1, 2),
            (4 * 2304 - 1, 3),
        ] {
            let (seen, outcome) = with_room(Ladder::new(ASKED, Vec::new()), room);
            assert_eq!(
                (outcome.status, outcome.fallback_level),
                (Status::Ok, level)
            );
            assert_eq!(seen.len(), usize::from(level) + 1);
            assert_eq!(outcome.adjustments.len(), usize::from(level));
        }
    }

    #[test]
    fn a_level_that_changes_nothing_is_not_tried() {
        let levels = |max_new_tokens, context_tokens, batch| {
            let asked = Asked {
                max_new_tokens,
                context_tokens,
                batch,
            };
            let (seen, _) = with_room(Ladder::new(asked, Vec::new()), 0);
            seen.iter().map(|one| one.level).collect::<Vec<_>>()
        };
        assert_eq!(levels(1, 100, 1), [0]);
        assert_eq!(levels(0, 100, 1), [0, 1]);
        assert_eq!(levels(9, 100, 1), [0, 1]);
        assert_eq!(levels(1, 2049, 1), [0, 2]);
        assert_eq!(levels(1, 2048, 2), [0, 3]);
    }

    #[test]
    fn only_memory_is_worth_another_try() {
        let mut tries = 0;
        let (result, outcome) = Ladder::new(ASKED, Vec::new()).climb_down(
            |_| -> Result<(), Error> {
                tries += 1;
                Err(Error::InvalidLogits { tokens: 3 })
            },
            is_out_of_memory,
        );
        assert!(result.is_err());
        assert_eq!((tries, outcome.fallback_level), (1, 0));
    }

    #[test]
    fn the_worked_request_from_its_parameters_to_its_outcome() {
        let sampling = Sampling {
            max_new_tokens: Some(0),
            temperature: Some(-0.3),
            top_p: Some(1.7),
            ..Sampling::default()
        };
        let counts = |prompt_tokens| Counts {
            prompt_tokens,
            max_context: 4096,
        };
        let normalized = normalize(&sampling, counts(4096)).expect("numbers");
        let asked = Asked {
            max_new_tokens: normalized.sampling.max_new_tokens.expect("set"),
            context_tokens: normalized.prompt_tokens,
            batch: 1,
        };
        let (_, outcome) = with_room(Ladder::new(asked, normalized.adjustments), 4096);
        assert_eq!((outcome.status, outcome.fallback_level), (Status::Ok, 0));
        let fields: Vec<_> = outcome.adjustments.iter().map(|one| one.field).collect();
        assert_eq!(
            fields,
            ["temperature", "top_p", "max_new_tokens", "prompt_tokens"]
        );

        let nan = Sampling {
            temperature: Some(f32::NAN),
            ..Sampling::default()
        };
        let error = normalize(&nan, counts(10)).expect_err("not a number");
        assert!(!is_out_of_memory(&error));
        let outcome = Outcome::rejected(&error);
        assert_eq!((outcome.status, outcome.fallback_level), (Status::Error, 0));
        assert!(outcome.message.contains("NaN"), "{}", outcome.message);
    }
}
