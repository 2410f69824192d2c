//! The goals, as ratios to llama.cpp in the same run.

use super::metric::Metric;
use super::subject::Facts;

/// The peer that goals are ratios to.
pub(crate) const RIVAL: &str = "llama.cpp";

/// A bound that a ratio is to keep.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

impl Goal {
    pub(crate) fn is_reached(self, ratio: f64) -> bool {
        match self {
            Self::AtLeast(bound) => ratio >= bound,
            Self::AtMost(bound) => ratio <= bound,
        }
    }
}

impl std::fmt::Display for Goal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtLeast(bound) => write!(f, "at least {bound:.2}"),
            Self::AtMost(bound) => write!(f, "at most {bound:.2}"),
        }
    }
}

/// The columns of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    SmolLm2Q4_1,
    Gemma3,
    SmolLm2F16,
    SmolLm2Other,
}

impl Column {
    fn of(facts: &Facts) -> Option<Self> {
        match (facts.architecture.as_str(), facts.parameters / 1_000_000) {
            ("llama", 134) => Some(match facts.dtype.as_str() {
                "Q4_1" => Self::SmolLm2Q4_1,
                "F16" => Self::SmolLm2F16,
                _ => Self::SmolLm2Other,
            }),
            ("gemma3", 268) => Some(Self::Gemma3),
            _ => None,
        }
    }
}

/// The ratio of Tercel to [`RIVAL`] that a figure of a model is to reach.
pub(crate) fn ratio(facts: &Facts, metric: Metric, threads: u32) -> Option<Goal> {
    use Column::{Gemma3, SmolLm2F16, SmolLm2Other, SmolLm2Q4_1};
    let column = Column::of(facts)?;
    let by_column = |smollm2: f64, gemma3: f64, other: f64| match column {
        SmolLm2Q4_1 => smollm2,
        Gemma3 => gemma3,
        SmolLm2F16 | SmolLm2Other => other,
    };
    let at_least = match metric {
        Metric::Decode { depth: 0 } => by_column(1.9, 1.5, 1.3),
        Metric::Decode { depth: 2048 } => by_column(4.0, 1.7, 3.0),
        Metric::Decode { depth: 7000 } => by_column(6.0, 1.7, 5.0),
        Metric::Prefill { tokens: 128 | 512 } if column == SmolLm2F16 => 1.2,
        Metric::Prefill { tokens: 128 | 512 } => by_column(4.0, 2.5, 1.8),
        Metric::Chats => by_column(4.0, 3.0, 3.0),
        Metric::FirstToken => {
            return match column {
                SmolLm2Q4_1 => Some(Goal::AtMost(0.6)),
                Gemma3 => Some(Goal::AtMost(0.4)),
                SmolLm2F16 | SmolLm2Other => None,
            };
        }
        Metric::Serve { clients: 8 } if column == SmolLm2Q4_1 => 3.0,
        Metric::ServeFirstToken {
            clients: 8,
            percent: 95,
        } if column == SmolLm2Q4_1 => return Some(Goal::AtMost(1.0 / 3.0)),
        Metric::PeakMemory { context: 2048 } => return Some(Goal::AtMost(1.0)),
        _ => return None,
    };
    match threads {
        // The same ratios less a tenth.
        1 => Some(Goal::AtLeast(at_least * 0.9)),
        2 => Some(Goal::AtLeast(at_least)),
        _ => None,
    }
}

/// The share of a limit of the machine that a figure of a model is to reach.
pub(crate) fn share(facts: &Facts, metric: Metric) -> Option<Goal> {
    let column = Column::of(facts)?;
    let is_four_bits = column == Column::Gemma3 || facts.dtype.starts_with("Q4");
    match metric {
        Metric::Decode { .. } if is_four_bits => Some(Goal::AtLeast(0.85)),
        Metric::Prefill { tokens: 512 } => Some(Goal::AtLeast(0.5)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_goal_is_that_of_its_column_and_row() {
        let smollm2 = |dtype: &str| Facts::of_kind("llama", 134_515_008, dtype);
        let gemma3 = Facts::of_kind("gemma3", 268_098_176, "Q5_0");
        let decode = |depth| Metric::Decode { depth };
        let prefill = |tokens| Metric::Prefill { tokens };
        let memory = |context| Metric::PeakMemory { context };
        let (least, most) = (
            |bound| Some(Goal::AtLeast(bound)),
            |bound| Some(Goal::AtMost(bound)),
        );
        for (facts, metric, threads, want) in [
            (&smollm2("Q4_1"), decode(0), 2, least(1.9)),
            (&smollm2("Q4_1"), decode(7000), 2, least(6.0)),
            (&smollm2("Q4_1"), decode(7000), 1, least(5.4)),
            (&smollm2("Q4_1"), decode(7000), 4, None),
            (&smollm2("Q4_1"), decode(256), 2, None),
            (&smollm2("Q4_1"), prefill(512), 2, least(4.0)),
            (&smollm2("Q4_1"), prefill(2048), 2, None),
            (&smollm2("Q8_0"), prefill(128), 2, least(1.8)),
            (&smollm2("F16"), prefill(128), 2, least(1.2)),
            (&smollm2("F16"), decode(2048), 2, least(3.0)),
            (&smollm2("Q8_0"), Metric::FirstToken, 2, None),
            (&smollm2("Q4_1"), Metric::FirstToken, 1, most(0.6)),
            (&gemma3, Metric::FirstToken, 2, most(0.4)),
            (&gemma3, Metric::Chats, 2, least(3.0)),
            (&gemma3, decode(2048), 2, least(1.7)),
            (&gemma3, memory(2048), 2, most(1.0)),
            (&gemma3, memory(512), 2, None),
            (
                &Facts::of_kind("qwen3", 600_000_000, "Q4_K"),
                decode(0),
                2,
                None,
            ),
        ] {
            assert_eq!(
                ratio(facts, metric, threads),
                want,
                "{facts:?} {metric:?} {threads}"
            );
        }
        for (facts, metric, want) in [
            (&smollm2("Q4_1"), decode(7000), least(0.85)),
            (&smollm2("Q8_0"), decode(7000), None),
            (&gemma3, prefill(512), least(0.5)),
            (&gemma3, prefill(128), None),
        ] {
            assert_eq!(share(facts, metric), want, "{facts:?} {metric:?}");
        }
        assert!(Goal::AtLeast(2.0).is_reached(2.0) && !Goal::AtLeast(2.0).is_reached(1.99));
        assert!(Goal::AtMost(0.6).is_reached(0.6) && !Goal::AtMost(0.6).is_reached(0.61));
    }
}
