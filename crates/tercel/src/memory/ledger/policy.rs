//! How the sizes of tickets become a limit, and which of them fit together.

use std::fmt;

/// How the tickets of a group become one limit.
///
/// Tickets whose policies are of one group count together: equal policies, or budgets with one
/// `id`, whatever else they say; of those the latest to start decides. The limit of the process is
/// the largest of its groups.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Policy {
    /// Baseline and all sizes, at most `cap`. A ticket that would lead beyond it waits.
    Sum {
        /// The most bytes there may be; what the machine lends the process when `None`.
        cap: Option<u64>,
    },
    /// The baseline or the largest size, whichever is more. Every ticket is admitted.
    Max,
    /// Always the same. Every ticket is admitted.
    Fixed {
        /// The limit in bytes.
        limit: u64,
    },
    /// Baseline, `base_bytes` and all sizes, at most `cap`. A ticket that would lead beyond it
    /// waits.
    Budget {
        /// What there is besides the tickets, such as weights and workspace.
        base_bytes: u64,
        /// The most bytes there may be; what the machine lends the process when `None`.
        cap: Option<u64>,
        /// The name of the group.
        id: String,
    },
}

/// The group of a policy: see [`Policy`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Group {
    Sum(Option<u64>),
    Max,
    Fixed(u64),
    Budget(String),
}

impl Policy {
    /// [`Policy::Sum`].
    pub fn sum(cap: Option<u64>) -> Self {
        Self::Sum { cap }
    }

    /// [`Policy::Max`].
    pub fn max() -> Self {
        Self::Max
    }

    /// [`Policy::Fixed`].
    pub fn fixed(limit: u64) -> Self {
        Self::Fixed { limit }
    }

    /// [`Policy::Budget`].
    pub fn budget(base_bytes: u64, cap: Option<u64>, id: impl Into<String>) -> Self {
        Self::Budget {
            base_bytes,
            cap,
            id: id.into(),
        }
    }

    /// The most bytes that it allows, where it has a bound at all. `lent` is what the machine lends
    /// the process, where that is known.
    pub fn cap(&self, lent: Option<u64>) -> Option<u64> {
        match self {
            Self::Sum { cap } | Self::Budget { cap, .. } => cap.or(lent),
            Self::Max | Self::Fixed { .. } => None,
        }
    }

    /// The limit for tickets of these sizes over `baseline`.
    pub fn limit(&self, baseline: u64, lent: Option<u64>, sizes: &[u64]) -> u64 {
        match self {
            Self::Sum { .. } | Self::Budget { .. } => {
                let asked = self.asked(baseline, sizes);
                self.cap(lent).map_or(asked, |cap| asked.min(cap))
            }
            Self::Max => sizes.iter().copied().max().unwrap_or(0).max(baseline),
            Self::Fixed { limit } => *limit,
        }
    }

    /// Whether a ticket of `new` bytes may join those of `sizes`.
    pub fn admits(&self, baseline: u64, lent: Option<u64>, sizes: &[u64], new: u64) -> bool {
        let with_new = self.asked(baseline, sizes).saturating_add(new);
        self.cap(lent).is_none_or(|cap| with_new <= cap)
    }

    /// What is asked for, before a cap.
    fn asked(&self, baseline: u64, sizes: &[u64]) -> u64 {
        let base = match self {
            Self::Budget { base_bytes, .. } => *base_bytes,
            _ => 0,
        };
        sizes
            .iter()
            .fold(baseline.saturating_add(base), |sum, size| {
                sum.saturating_add(*size)
            })
    }

    pub(super) fn group(&self) -> Group {
        match self {
            Self::Sum { cap } => Group::Sum(*cap),
            Self::Max => Group::Max,
            Self::Fixed { limit } => Group::Fixed(*limit),
            Self::Budget { id, .. } => Group::Budget(id.clone()),
        }
    }
}

/// Its name, as events have it: `sum`, `sum(1024)`, `budget(chat)`.
impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sum { cap: None } => f.write_str("sum"),
            Self::Sum { cap: Some(cap) } => write!(f, "sum({cap})"),
            Self::Max => f.write_str("max"),
            Self::Fixed { limit } => write!(f, "fixed({limit})"),
            Self::Budget { id, .. } => write!(f, "budget({id})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_and_admission_of_each_policy() {
        let budget = |cap| Policy::budget(50, cap, "chat");
        // Policy, what the machine lends, sizes, a new one: the limit before, whether it joins.
        for (policy, lent, sizes, new, limit, joins) in [
            (Policy::sum(None), None, &[][..], 1 << 60, 100, true),
            (Policy::sum(None), None, &[10, 20], 1, 130, true),
            (Policy::sum(Some(130)), None, &[10], 20, 110, true),
            (Policy::sum(Some(130)), None, &[10], 21, 110, false),
            (Policy::sum(Some(120)), None, &[10, 20], 0, 120, false),
            (Policy::sum(None), Some(115), &[10], 6, 110, false),
            (Policy::sum(Some(999)), Some(115), &[10], 6, 110, true),
            (Policy::max(), Some(1), &[300, 200], 900, 300, true),
            (Policy::max(), None, &[30, 20], 900, 100, true),
            (Policy::max(), None, &[], 0, 100, true),
            (Policy::fixed(7), Some(1), &[30, 20], 900, 7, true),
            (budget(None), None, &[10, 20], 900, 180, true),
            (budget(Some(185)), None, &[10, 20], 5, 180, true),
            (budget(Some(185)), None, &[10, 20], 6, 180, false),
            (budget(None), Some(160), &[10], 1, 160, false),
            (Policy::sum(None), Some(9), &[u64::MAX], 1, 9, false),
        ] {
            let what = format!("{policy} {sizes:?} {new}");
            assert_eq!(policy.limit(100, lent, sizes), limit, "{what}");
            assert_eq!(policy.admits(100, lent, sizes, new), joins, "{what}");
        }
    }

    #[test]
    fn groups_are_of_equal_policies_and_of_budgets_with_one_name() {
        let same = Policy::budget(1, None, "a").group() == Policy::budget(2, Some(3), "a").group();
        assert!(same);
        assert_ne!(
            Policy::budget(1, None, "a").group(),
            Policy::budget(1, None, "b").group()
        );
        assert_ne!(Policy::sum(None).group(), Policy::sum(Some(1)).group());
        assert_eq!(Policy::max().group(), Policy::max().group());
        assert_ne!(Policy::max().group(), Policy::fixed(1).group());
    }
}
