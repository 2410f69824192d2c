//! Everything that a run measured.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::metric::{Job, Metric};
use super::peer::Reading;
use super::stats::{self, Spread};

/// What figures belong to that are compared: a model, by its place in the list, and threads.
pub(crate) type Setting = (usize, u32);

/// The figures of all rounds so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    samples: Vec<Sample>,
    /// What was not measured, with the reason.
    gaps: Vec<Gap>,
    /// Peer, job, and the command that was run first.
    commands: Vec<(&'static str, String, String)>,
}

#[derive(Clone, Debug)]
struct Sample {
    setting: Setting,
    round: u32,
    peer: &'static str,
    metric: Metric,
    value: f64,
    peak_bytes: Option<u64>,
}

/// A job that a peer could not do.
#[derive(Clone, Debug)]
pub(crate) struct Gap {
    pub(crate) setting: Setting,
    pub(crate) peer: &'static str,
    pub(crate) job: Job,
    pub(crate) reason: String,
}

impl Record {
    pub(crate) fn add(
        &mut self,
        setting: Setting,
        round: u32,
        peer: &'static str,
        job: Job,
        reading: Reading,
    ) {
        let Reading {
            values,
            peak_bytes,
            command,
        } = reading;
        self.samples
            .extend(values.into_iter().map(|(metric, value)| Sample {
                setting,
                round,
                peer,
                metric,
                value,
                peak_bytes,
            }));
        let job = job.to_string();
        if !self
            .commands
            .iter()
            .any(|(by, of, _)| *by == peer && *of == job)
        {
            self.commands.push((peer, job, command));
        }
    }

    /// Notes why a job is not done. It is not tried again.
    pub(crate) fn give_up(&mut self, gap: Gap) {
        self.gaps.push(gap);
    }

    pub(crate) fn is_given_up(&self, setting: Setting, peer: &str, job: Job) -> bool {
        let mut gaps = self.gaps.iter();
        gaps.any(|gap| gap.setting == setting && gap.peer == peer && gap.job == job)
    }

    pub(crate) fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    pub(crate) fn commands(&self) -> &[(&'static str, String, String)] {
        &self.commands
    }

    /// What was measured of a setting, in the order of the report.
    pub(crate) fn metrics(&self, setting: Setting) -> Vec<Metric> {
        let samples = self
            .samples
            .iter()
            .filter(|sample| sample.setting == setting);
        let mut metrics: Vec<Metric> = samples.map(|sample| sample.metric).collect();
        metrics.sort_unstable();
        metrics.dedup();
        metrics
    }

    pub(crate) fn spread(&self, setting: Setting, peer: &str, metric: Metric) -> Option<Spread> {
        Spread::of(self.rounds(setting, peer, metric).into_values())
    }

    /// The ratios of two figures, round by round.
    pub(crate) fn ratio(
        &self,
        setting: Setting,
        ours: (&str, Metric),
        theirs: (&str, Metric),
    ) -> Option<Spread> {
        let ours = self.rounds(setting, ours.0, ours.1);
        stats::paired(&ours, &self.rounds(setting, theirs.0, theirs.1))
    }

    fn rounds(&self, setting: Setting, peer: &str, metric: Metric) -> BTreeMap<u32, f64> {
        let samples = self.samples.iter().filter(|sample| {
            sample.setting == setting && sample.peer == peer && sample.metric == metric
        });
        samples.map(|sample| (sample.round, sample.value)).collect()
    }

    /// Every figure on its own, in seconds, bytes, and units a second.
    pub(crate) fn samples_json(&self, models: &[String]) -> Value {
        let samples = self.samples.iter().map(|sample| {
            json!({
                "model": models.get(sample.setting.0),
                "threads": sample.setting.1,
                "round": sample.round,
                "peer": sample.peer,
                "metric": sample.metric.to_string(),
                "is_higher_better": sample.metric.is_higher_better(),
                "value": sample.value,
                "process_peak_bytes": sample.peak_bytes,
            })
        });
        samples.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_compared_within_their_setting_and_round() {
        let metric = Metric::Decode { depth: 0 };
        let job = Job::Decode {
            depth: 0,
            tokens: 4,
        };
        let reading = |value| Reading {
            values: vec![(metric, value)],
            peak_bytes: Some(1),
            command: "x".to_owned(),
        };
        let mut record = Record::default();
        for (setting, round, peer, value) in [
            ((0, 2), 1, "a", 30.0),
            ((0, 2), 1, "b", 10.0),
            ((0, 2), 2, "a", 50.0),
            ((0, 1), 2, "b", 1.0),
            ((1, 2), 2, "b", 1.0),
        ] {
            record.add(setting, round, peer, job, reading(value));
        }
        assert_eq!(record.metrics((0, 2)), [metric]);
        assert_eq!(record.spread((0, 2), "a", metric).unwrap().median, 40.0);
        let ratio = record.ratio((0, 2), ("a", metric), ("b", metric)).unwrap();
        assert_eq!((ratio.min, ratio.max), (3.0, 3.0));
        assert_eq!(record.ratio((0, 1), ("a", metric), ("b", metric)), None);
        assert_eq!(record.commands().len(), 2);
        let models = ["m".to_owned(), "n".to_owned()];
        let samples = record.samples_json(&models);
        assert_eq!(samples[4]["model"], "n");
        assert_eq!(samples[0]["value"], 30.0);
    }

    #[test]
    fn what_is_given_up_is_told_from_the_rest() {
        let mut record = Record::default();
        record.give_up(Gap {
            setting: (0, 2),
            peer: "a",
            job: Job::Start,
            reason: "no".to_owned(),
        });
        assert!(record.is_given_up((0, 2), "a", Job::Start));
        assert!(!record.is_given_up((0, 1), "a", Job::Start));
        assert!(!record.is_given_up((0, 2), "b", Job::Start));
        assert!(!record.is_given_up((0, 2), "a", Job::Prefill { tokens: 1 }));
    }
}
