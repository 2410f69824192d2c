//! New counts beside recorded ones.

use std::fmt;

use super::record::{Count, Record};

/// Percent that counts of the same code may lie apart, for other versions of the C library.
const MARGIN: u128 = 2;

/// What is worth saying of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// More instructions than recorded, by more than the margin.
    Rose { from: u64, to: u64 },
    /// Fewer, by more than the margin.
    Fell { from: u64, to: u64 },
    /// It was not recorded, or as one that computes something else.
    New,
    /// It is recorded and not measured any more.
    Gone,
}

impl Finding {
    /// Whether a check fails by it.
    pub(super) fn is_failure(self) -> bool {
        !matches!(self, Self::Fell { .. })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Rose { from, to } | Self::Fell { from, to } => {
                let percent = (to as f64 / from as f64 - 1.0) * 100.0;
                write!(f, "{to} instructions, {from} recorded ({percent:+.1} %)")
            }
            Self::New => write!(f, "not recorded"),
            Self::Gone => write!(f, "recorded, but there is no such case"),
        }
    }
}

/// What differs from the newest release of the record, by case.
pub(super) fn findings(record: &Record, counts: &[Count]) -> Vec<(String, Finding)> {
    let mut findings = Vec::new();
    for count in counts {
        let recorded = record.newest(&count.case, &count.work);
        if let Some(finding) = finding(recorded, count.instructions) {
            findings.push((count.case.clone(), finding));
        }
    }
    let is_gone = |case: &&String| counts.iter().all(|count| count.case != **case);
    let gone = record.cases().filter(is_gone);
    findings.extend(gone.map(|case| (case.clone(), Finding::Gone)));
    findings
}

fn finding(recorded: Option<u64>, to: u64) -> Option<Finding> {
    let Some(from) = recorded else {
        return Some(Finding::New);
    };
    let (before, now) = (u128::from(from), u128::from(to));
    if now * 100 > before * (100 + MARGIN) {
        Some(Finding::Rose { from, to })
    } else if now * 100 < before * (100 - MARGIN) {
        Some(Finding::Fell { from, to })
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::count;
    use super::*;

    #[test]
    fn only_what_differs_by_more_than_the_margin_is_found() {
        let mut record = Record::default();
        let old = vec![count("a", 64, 900), count("b", 64, 5)];
        record.set("0.1.0".to_owned(), String::new(), old);
        let new = vec![count("a", 64, 1000), count("b", 64, 5)];
        record.set("0.2.0".to_owned(), String::new(), new);
        let rose = |to| Some(Finding::Rose { from: 1000, to });
        let fell = |to| Some(Finding::Fell { from: 1000, to });
        for (amount, instructions, want) in [
            (64, 1000, None),
            (64, 1020, None),
            (64, 1021, rose(1021)),
            (64, 2000, rose(2000)),
            (64, 980, None),
            (64, 979, fell(979)),
            (64, 0, fell(0)),
            (65, 1000, Some(Finding::New)),
        ] {
            let counts = [count("a", amount, instructions), count("b", 64, 5)];
            let want: Vec<_> = want
                .map(|found| ("a".to_owned(), found))
                .into_iter()
                .collect();
            assert_eq!(findings(&record, &counts), want, "{amount}, {instructions}");
        }
    }

    #[test]
    fn cases_that_came_or_went_are_found() {
        let mut record = Record::default();
        record.set("0.1.0".to_owned(), String::new(), vec![count("a", 1, 10)]);
        let found = findings(&record, &[count("b", 1, 10)]);
        let (a, b) = ("a".to_owned(), "b".to_owned());
        assert_eq!(found, [(b, Finding::New), (a, Finding::Gone)]);
        let failures = found.iter().filter(|(_, finding)| finding.is_failure());
        assert_eq!(failures.count(), 2);
    }

    #[test]
    fn a_check_fails_by_more_instructions_not_by_fewer() {
        let (from, to) = (1000, 1100);
        let rose = Finding::Rose { from, to };
        assert!(rose.is_failure());
        let shown = "1100 instructions, 1000 recorded (+10.0 %)";
        assert_eq!(rose.to_string(), shown);
        let fell = Finding::Fell { from: to, to: from };
        assert!(!fell.is_failure());
        assert!(fell.to_string().contains("(-9.1 %)"), "{fell}");
    }
}
