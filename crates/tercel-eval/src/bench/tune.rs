//! Which settings answer fastest here: the search, one setting at a time.

use std::fmt;

use serde::Serialize;

/// What a trial showed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Measured {
    /// Milliseconds to the first token that 90 % of the requests keep to.
    pub ttft_p90_ms: f64,
    /// Tokens a second of all requests together.
    pub tokens_per_second: f64,
    /// The memory that it takes.
    pub memory_bytes: u64,
    /// Whether memory was so short that it was warned of.
    pub is_short_of_memory: bool,
}

impl Measured {
    /// A trial that went well.
    pub fn new(ttft_p90_ms: f64, tokens_per_second: f64, memory_bytes: u64) -> Self {
        Self {
            ttft_p90_ms,
            tokens_per_second,
            memory_bytes,
            is_short_of_memory: false,
        }
    }
}

/// What a trial must keep to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Target {
    /// Milliseconds to the first token, for 90 % of the requests.
    pub ttft_p90_ms: Option<f64>,
}

impl Target {
    /// The first token of 90 % of the requests after so many milliseconds at most.
    pub fn ttft_p90_ms(milliseconds: f64) -> Self {
        Self {
            ttft_p90_ms: Some(milliseconds),
        }
    }

    fn is_met(&self, trial: &Measured) -> bool {
        let ttft = self.ttft_p90_ms;
        !trial.is_short_of_memory && ttft.is_none_or(|most| trial.ttft_p90_ms <= most)
    }
}

/// The index of the best trial: of those that meet the target, or of all where none does, the one
/// with the most tokens a second; where two differ by less than 1 %, which is noise, the one whose
/// first token comes earlier. `None` where there are no trials.
pub fn best(trials: &[Measured], target: &Target) -> Option<usize> {
    let meeting = |trial: &&(usize, &Measured)| target.is_met(trial.1);
    let all: Vec<(usize, &Measured)> = trials.iter().enumerate().collect();
    let met: Vec<_> = all.iter().filter(meeting).copied().collect();
    let among = if met.is_empty() { all } else { met };
    let fastest = among.iter().map(|(_, trial)| trial.tokens_per_second);
    let fastest = fastest.fold(0.0, f64::max);
    among
        .into_iter()
        .filter(|(_, trial)| trial.tokens_per_second >= 0.99 * fastest)
        .min_by(|a, b| a.1.ttft_p90_ms.total_cmp(&b.1.ttft_p90_ms))
        .map(|(index, _)| index)
}

/// What the search goes through, in this order: what has most effect first, memory last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Knob {
    /// Compute threads.
    Threads,
    /// The cores that the process keeps to.
    Cores,
    /// Requests that run at once.
    Batch,
    /// How keys and values are stored.
    Kv,
    /// The winner, once more.
    Again,
}

impl fmt::Display for Knob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Threads => "threads",
            Self::Cores => "cores",
            Self::Batch => "batch",
            Self::Kv => "kv",
            Self::Again => "again",
        })
    }
}

/// Tries settings, one knob at a time, and gives the trials and the index of the best. Each knob
/// starts from the best so far and is tried at all values of `values`; `measure` is told the knob,
/// and gives nothing for a setting that the model cannot run with.
///
/// # Errors
/// The first error of `measure`.
pub fn search<S: Clone + PartialEq, E>(
    start: S,
    knobs: &[Knob],
    target: &Target,
    values: impl Fn(Knob, &S) -> Vec<S>,
    mut measure: impl FnMut(Knob, &S) -> Result<Option<Measured>, E>,
) -> Result<(Vec<(S, Measured)>, usize), E> {
    let mut trials: Vec<(S, Measured)> = Vec::new();
    let mut chosen = start;
    for &knob in knobs {
        for setting in values(knob, &chosen) {
            // What a knob starts from was measured by the one before.
            if knob == Knob::Again || !trials.iter().any(|(known, _)| *known == setting) {
                let measured = measure(knob, &setting)?;
                trials.extend(measured.map(|measured| (setting, measured)));
            }
        }
        if let Some(index) = best_of(&trials, target) {
            chosen = trials[index].0.clone();
        }
    }
    let index = best_of(&trials, target).unwrap_or(0);
    Ok((trials, index))
}

fn best_of<S>(trials: &[(S, Measured)], target: &Target) -> Option<usize> {
    let measured: Vec<Measured> = trials.iter().map(|(_, measured)| *measured).collect();
    best(&measured, target)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GB: f64 = (1u64 << 30) as f64;

    /// Of a trial: threads, batch, wait in ms and memory kept for the cache beyond the first guess in
    /// percent; TTFT p90 in ms, tokens/s, GB, and whether memory was short.
    type Trial = ((u32, u32, u32, u32), f64, f64, f64, bool);

    /// The trials of chapter 4.4.
    const TRIALS: [Trial; 10] = [
        ((2, 1, 0, 0), 220.0, 18.0, 6.2, false),
        ((3, 1, 0, 0), 205.0, 19.2, 6.3, false),
        ((4, 1, 0, 0), 198.0, 20.1, 6.4, false),
        ((6, 1, 0, 0), 215.0, 19.0, 6.5, false),
        ((4, 2, 10, 0), 240.0, 26.5, 7.1, false),
        ((4, 2, 30, 0), 290.0, 27.0, 7.1, false),
        ((4, 2, 10, 20), 245.0, 26.2, 8.0, false),
        ((4, 2, 10, 35), 250.0, 26.0, 9.2, false),
        ((4, 2, 10, 45), 260.0, 24.5, 10.8, true),
        ((5, 2, 10, 20), 235.0, 27.4, 8.1, false),
    ];

    fn measured(trial: usize) -> Measured {
        let (_, ttft, rate, gb, is_short) = TRIALS[trial];
        Measured {
            is_short_of_memory: is_short,
            ..Measured::new(ttft, rate, (gb * GB) as u64)
        }
    }

    #[test]
    fn the_worked_trials_pick_four_threads_and_then_trial_ten() {
        let all: Vec<Measured> = (0..TRIALS.len()).map(measured).collect();
        for target in [Target::default(), Target::ttft_p90_ms(240.0)] {
            assert_eq!(best(&all[..4], &target), Some(2), "four threads");
            assert_eq!(best(&all, &target), Some(9), "trial 10");
        }
        // Without the last, the target decides between a wait of 10 and of 30 ms.
        assert_eq!(best(&all[..6], &Target::default()), Some(5));
        assert_eq!(best(&all[..6], &Target::ttft_p90_ms(240.0)), Some(4));
    }

    #[test]
    fn memory_that_is_short_rules_a_trial_out() {
        let mut all = vec![measured(0), measured(8)];
        assert_eq!(best(&all, &Target::default()), Some(0));
        // Where all are, one is still the best.
        all.remove(0);
        assert_eq!(best(&all, &Target::default()), Some(0));
        assert_eq!(best(&[], &Target::default()), None);
    }

    #[test]
    fn noise_does_not_decide() {
        let trials = [
            Measured::new(100.0, 50.0, 1),
            Measured::new(200.0, 50.3, 1),
            Measured::new(90.0, 48.0, 1),
        ];
        assert_eq!(best(&trials, &Target::default()), Some(0));
    }

    #[test]
    fn a_knob_starts_from_the_best_and_tries_nothing_twice() {
        use Knob::{Again, Batch, Threads};
        // A machine of four cores that likes two at once.
        let speed = |&(threads, batch): &(u32, u32)| {
            let threads = f64::from(4 - threads.abs_diff(4));
            Measured::new(100.0, threads * f64::from(batch.min(2)), 0)
        };
        let mut tried = Vec::new();
        let (trials, best) = search(
            (1, 1),
            &[Threads, Batch, Again],
            &Target::default(),
            |knob, &(threads, batch)| match knob {
                Threads => [1, 2, 4, 6].map(|threads| (threads, batch)).to_vec(),
                Batch => [1, 2].map(|batch| (threads, batch)).to_vec(),
                _ => vec![(threads, batch)],
            },
            |knob, setting| {
                tried.push((knob, *setting));
                Ok::<_, ()>((setting.0 != 6).then(|| speed(setting)))
            },
        )
        .expect("nothing fails");
        assert_eq!(
            tried,
            [
                (Threads, (1, 1)),
                (Threads, (2, 1)),
                (Threads, (4, 1)),
                (Threads, (6, 1)),
                (Batch, (4, 2)),
                (Again, (4, 2)),
            ]
        );
        assert_eq!(trials[best].0, (4, 2));
    }
}
