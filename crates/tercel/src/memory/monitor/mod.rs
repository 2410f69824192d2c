//! Watching the memory of running requests: when to log, to do less, or to stop.
//!
//! The scheduler takes a [`Sample`] after the load, before a generation, whenever the number of
//! tokens crosses a multiple of [`MonitorOptions::every_tokens`], and at the end.
//! [`Monitor::observe`] makes it a [`Record`], decides, and has an [`Alert`] where one is due.

mod decision;
mod record;

use std::collections::HashMap;

use serde::Serialize;

pub use decision::{Action, Level, Thresholds, decide};
pub use record::{Alert, Diagnosis, Record, Verdict, diagnose};

use super::measure::{ProcessMemory, measure};

/// How a [`Monitor`] is made.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct MonitorOptions {
    /// What the process may hold, in units of 2^20 bytes; nothing is watched but the KV cache when
    /// `None`.
    pub budget_mb: Option<f64>,
    /// The shares of the budget, and of the plan of the KV cache.
    pub thresholds: Thresholds,
    /// Tokens between two samples of a running request: at least 1, by default 16.
    pub every_tokens: usize,
    /// How many requests start with half the concurrency after one had to do less, by default 4.
    pub careful_requests: usize,
}

impl Default for MonitorOptions {
    fn default() -> Self {
        Self {
            budget_mb: None,
            thresholds: Thresholds::default(),
            every_tokens: 16,
            careful_requests: 4,
        }
    }
}

/// When a sample was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// After the load: what weights and buffers take.
    Loaded,
    /// Before a generation: with what is planned.
    Start,
    /// While tokens come.
    Running,
    /// After the last token. The request is forgotten.
    End,
}

/// What the scheduler knows of a request at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The request.
    pub request_id: String,
    /// When it is taken.
    pub stage: Stage,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// The most tokens it may generate.
    pub max_new_tokens: usize,
    /// Tokens it has generated.
    pub actual_new_tokens: usize,
    /// Tokens of it that are in the context.
    pub context_tokens_used: usize,
    /// What its pages take now.
    pub kv_cache_est_bytes: u64,
    /// What was planned for it.
    pub kv_cache_plan_bytes: u64,
}

/// What [`Monitor::observe`] found.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Observation {
    /// What to do.
    pub action: Action,
    /// What was seen.
    pub record: Record,
    /// The line to log, where something is to be done.
    pub alert: Option<Alert>,
}

/// Watches the requests of an engine.
pub struct Monitor {
    options: MonitorOptions,
    /// Asked for the memory of the process at each sample.
    measure: Box<dyn FnMut() -> Option<ProcessMemory> + Send>,
    /// The most that the process held while each request ran, in bytes.
    peaks: HashMap<String, u64>,
    /// Requests that are still to start with half the concurrency.
    careful: usize,
}

impl Monitor {
    /// One that measures this process.
    pub fn new(options: MonitorOptions) -> Self {
        Self::measuring(options, measure)
    }

    /// One that asks `measure` what the process holds.
    pub fn measuring(
        options: MonitorOptions,
        measure: impl FnMut() -> Option<ProcessMemory> + Send + 'static,
    ) -> Self {
        Self {
            options,
            measure: Box::new(measure),
            peaks: HashMap::new(),
            careful: 0,
        }
    }

    /// Whether a running request that had `before` tokens and has `after` is due for a sample.
    pub fn is_due(&self, before: usize, after: usize) -> bool {
        crosses_multiple(before, after, self.options.every_tokens)
    }

    /// Measures, decides, and remembers the peak of the request until its last sample.
    ///
    /// Where the system does not tell what the process holds, the figures of the RSS are missing
    /// and only the KV cache is watched.
    pub fn observe(&mut self, sample: &Sample) -> Observation {
        let rss_bytes = (self.measure)().map(|process| process.rss_bytes);
        let peak = match (rss_bytes, sample.stage) {
            (None, _) => None,
            (Some(now), Stage::End) => {
                let before = self.peaks.remove(&sample.request_id);
                Some(before.unwrap_or(0).max(now))
            }
            (Some(now), _) => {
                let peak = self.peaks.entry(sample.request_id.clone()).or_insert(0);
                *peak = now.max(*peak);
                Some(*peak)
            }
        };
        let record = Record::new(sample, rss_bytes, peak);
        let action = decide(
            &self.options.thresholds,
            self.options.budget_mb,
            record.rss_mb_now,
            record.kv_cache_est_mb,
            record.kv_cache_plan_mb,
        );
        if action >= Action::ReduceWork {
            self.careful = self.options.careful_requests;
        }
        let alert = action.level().map(|level| Alert::now(level, &record));
        Observation {
            action,
            record,
            alert,
        }
    }

    /// How many requests may run at once, where `most` are allowed: half of that, at least 1, for
    /// some starts after a request had to do less. Call it once for each request that starts.
    pub fn concurrency_at_start(&mut self, most: usize) -> usize {
        let now = self.concurrency(most);
        self.started();
        now
    }

    /// How many requests may run at once now, where `most` are allowed.
    pub fn concurrency(&self, most: usize) -> usize {
        if self.careful == 0 {
            most
        } else {
            (most / 2).max(1)
        }
    }

    /// A request has started: one less that is to be careful.
    pub fn started(&mut self) {
        self.careful = self.careful.saturating_sub(1);
    }

    /// What the process holds now, where the system tells.
    pub fn held_bytes(&mut self) -> Option<u64> {
        (self.measure)().map(|process| process.rss_bytes)
    }

    /// Forgets a request that did not start.
    pub fn forget(&mut self, request_id: &str) {
        self.peaks.remove(request_id);
    }

    /// What a request that is to do less may still generate in all: half of what is left, at least
    /// one token more.
    pub fn reduced_max_new_tokens(generated: usize, max_new_tokens: usize) -> usize {
        let left = max_new_tokens.saturating_sub(generated);
        max_new_tokens.min(generated.saturating_add((left / 2).max(1)))
    }

    /// How it was made.
    pub fn options(&self) -> &MonitorOptions {
        &self.options
    }
}

impl std::fmt::Debug for Monitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Monitor")
            .field("options", &self.options)
            .field("careful", &self.careful)
            .finish_non_exhaustive()
    }
}

/// Whether a count that goes from `before` to `after` reaches or passes a multiple of `step`; a
/// remainder of 0 would be missed by a jump over it.
pub fn crosses_multiple(before: usize, after: usize, step: usize) -> bool {
    let step = step.max(1);
    after / step > before / step
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    const MB: u64 = 1 << 20;

    fn sample(stage: Stage, actual_new_tokens: usize) -> Sample {
        Sample {
            request_id: "7".to_owned(),
            stage,
            prompt_tokens: 100,
            max_new_tokens: 64,
            actual_new_tokens,
            context_tokens_used: 100 + actual_new_tokens,
            kv_cache_est_bytes: 10 * MB,
            kv_cache_plan_bytes: 20 * MB,
        }
    }

    /// A monitor with a budget of 1000 MB, and what the process holds by its account.
    fn watched() -> (Monitor, Arc<AtomicU64>) {
        let rss = Arc::new(AtomicU64::new(0));
        let of_monitor = Arc::clone(&rss);
        let options = MonitorOptions {
            budget_mb: Some(1000.0),
            ..MonitorOptions::default()
        };
        let monitor = Monitor::measuring(options, move || {
            let rss_bytes = of_monitor.load(Ordering::Relaxed);
            let own_bytes = rss_bytes;
            Some(ProcessMemory {
                rss_bytes,
                own_bytes,
                peak_rss_bytes: rss_bytes,
            })
        });
        (monitor, rss)
    }

    #[test]
    fn a_sample_is_due_at_each_multiple_whatever_the_steps() {
        for (before, after, due) in [
            (0, 15, false),
            (15, 16, true),
            (16, 17, false),
            (15, 18, true),
            (14, 50, true),
            (31, 31, false),
            (47, 49, true),
        ] {
            assert_eq!(crosses_multiple(before, after, 16), due, "{before} {after}");
        }
        assert!(crosses_multiple(3, 4, 0));
        let monitor = Monitor::new(MonitorOptions {
            every_tokens: 32,
            ..MonitorOptions::default()
        });
        assert!(!monitor.is_due(16, 31) && monitor.is_due(31, 33));
    }

    #[test]
    fn a_request_is_followed_to_its_peak_and_forgotten() {
        let (mut monitor, rss) = watched();
        let mut at = |stage, tokens, mb: u64| {
            rss.store(mb * MB, Ordering::Relaxed);
            monitor.observe(&sample(stage, tokens))
        };
        for (stage, tokens, mb, action, peak) in [
            (Stage::Start, 0, 500, Action::Ok, 500.0),
            (Stage::Running, 16, 810, Action::LogAndContinue, 810.0),
            (Stage::Running, 32, 910, Action::ReduceWork, 910.0),
            (Stage::Running, 48, 960, Action::StopGeneration, 960.0),
            (Stage::End, 48, 400, Action::Ok, 960.0),
            // The same name again is another request.
            (Stage::Start, 0, 300, Action::Ok, 300.0),
        ] {
            let seen = at(stage, tokens, mb);
            assert_eq!(seen.action, action, "{mb}");
            assert_eq!(seen.record.rss_mb_now, Some(mb as f64));
            assert_eq!(seen.record.rss_mb_peak, Some(peak));
            assert_eq!(seen.alert.is_some(), action != Action::Ok);
        }
    }

    #[test]
    fn after_less_work_some_requests_start_with_half_the_concurrency() {
        let (mut monitor, rss) = watched();
        assert_eq!(monitor.concurrency_at_start(8), 8);
        rss.store(905 * MB, Ordering::Relaxed);
        monitor.observe(&sample(Stage::Running, 16));
        let starts: Vec<usize> = (0..6).map(|_| monitor.concurrency_at_start(8)).collect();
        assert_eq!(starts, [4, 4, 4, 4, 8, 8]);
        rss.store(905 * MB, Ordering::Relaxed);
        monitor.observe(&sample(Stage::Running, 32));
        assert_eq!(monitor.concurrency_at_start(1), 1);
    }

    #[test]
    fn a_request_that_does_less_still_goes_on() {
        for (generated, most, reduced) in [
            (0, 64, 32),
            (32, 64, 48),
            (63, 64, 64),
            (64, 64, 64),
            (0, 1, 1),
        ] {
            assert_eq!(Monitor::reduced_max_new_tokens(generated, most), reduced);
        }
    }

    #[test]
    fn without_a_figure_of_the_process_the_kv_cache_is_watched_alone() {
        let options = MonitorOptions {
            budget_mb: Some(1.0),
            ..MonitorOptions::default()
        };
        let mut monitor = Monitor::measuring(options, || None);
        let mut sample = sample(Stage::Running, 16);
        let seen = monitor.observe(&sample);
        assert_eq!((seen.action, seen.record.rss_mb_now), (Action::Ok, None));
        sample.kv_cache_est_bytes = 22 * MB;
        assert_eq!(monitor.observe(&sample).action, Action::LogAndContinue);
    }
}
