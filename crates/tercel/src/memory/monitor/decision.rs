//! From figures to an action.

use std::fmt;

use serde::Serialize;

/// Where each action begins.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Thresholds {
    /// The share of the budget from which on there is a warning: 0.80.
    pub rss_warn: f64,
    /// The share from which on there is less work: 0.90.
    pub rss_critical: f64,
    /// The share from which on the generation stops: 0.95.
    pub rss_stop: f64,
    /// How many times its plan the KV cache may take before there is a warning: 1.05.
    pub kv_cache: f64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            rss_warn: 0.80,
            rss_critical: 0.90,
            rss_stop: 0.95,
            kv_cache: 1.05,
        }
    }
}

/// What to do, the gravest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Action {
    /// Nothing.
    Ok,
    /// Go on, and log more.
    LogAndContinue,
    /// Cap `max_new_tokens` now, or lower the concurrency for the next few requests.
    ReduceWork,
    /// End with the text so far, marked as cut by `resource_limit`.
    StopGeneration,
}

impl Action {
    /// Its name: `OK`, `LOG_AND_CONTINUE`, `REDUCE_WORK`, `STOP_GENERATION`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::LogAndContinue => "LOG_AND_CONTINUE",
            Self::ReduceWork => "REDUCE_WORK",
            Self::StopGeneration => "STOP_GENERATION",
        }
    }

    /// How its alert is marked; `None` where there is none.
    pub fn level(self) -> Option<Level> {
        match self {
            Self::Ok => None,
            Self::LogAndContinue => Some(Level::Warn),
            Self::ReduceWork => Some(Level::Crit),
            Self::StopGeneration => Some(Level::Stop),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How grave an alert is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Level {
    /// Worth a look.
    Warn,
    /// Less work from here on.
    Crit,
    /// The generation ends.
    Stop,
}

impl Level {
    /// Its name: `WARN`, `CRIT`, `STOP`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Warn => "WARN",
            Self::Crit => "CRIT",
            Self::Stop => "STOP",
        }
    }
}

/// The action for these figures, all in one unit. The gravest that applies is taken; figures that
/// are not known give no reason for any.
pub fn decide(
    thresholds: &Thresholds,
    budget: Option<f64>,
    rss: Option<f64>,
    kv_cache_est: f64,
    kv_cache_plan: f64,
) -> Action {
    let reaches = |share: f64| match (budget, rss) {
        (Some(budget), Some(rss)) => rss >= share * budget,
        _ => false,
    };
    let kv_alarm = kv_cache_est > kv_cache_plan * thresholds.kv_cache;
    if reaches(thresholds.rss_stop) {
        Action::StopGeneration
    } else if reaches(thresholds.rss_critical) {
        Action::ReduceWork
    } else if reaches(thresholds.rss_warn) || kv_alarm {
        Action::LogAndContinue
    } else {
        Action::Ok
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gravest_action_that_applies_is_taken() {
        use Action::*;
        let decided =
            |budget, rss, est, plan| decide(&Thresholds::default(), budget, rss, est, plan);
        for (rss, est, plan, action) in [
            (0.0, 0.0, 0.0, Ok),
            (799.9, 105.0, 100.0, Ok),
            (799.9, 105.1, 100.0, LogAndContinue),
            (800.0, 0.0, 0.0, LogAndContinue),
            (899.9, 0.0, 0.0, LogAndContinue),
            (900.0, 0.0, 0.0, ReduceWork),
            (900.0, 200.0, 100.0, ReduceWork),
            (949.9, 0.0, 0.0, ReduceWork),
            (950.0, 0.0, 0.0, StopGeneration),
            (5000.0, 0.0, 0.0, StopGeneration),
            // Pages without a plan are never as planned.
            (0.0, 0.1, 0.0, LogAndContinue),
        ] {
            assert_eq!(decided(Some(1000.0), Some(rss), est, plan), action, "{rss}");
        }
        assert_eq!(decided(None, Some(5000.0), 1.0, 1.0), Ok);
        assert_eq!(decided(Some(1000.0), None, 1.0, 1.0), Ok);
    }

    #[test]
    fn names_in_json_are_those_of_logs() {
        for action in [
            Action::Ok,
            Action::LogAndContinue,
            Action::ReduceWork,
            Action::StopGeneration,
        ] {
            assert_eq!(serde_json::to_value(action).expect("JSON"), action.name());
        }
        for level in [Level::Warn, Level::Crit, Level::Stop] {
            assert_eq!(serde_json::to_value(level).expect("JSON"), level.name());
        }
    }
}
