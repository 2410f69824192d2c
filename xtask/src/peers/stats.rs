//! Medians, spread, and ratios of what was measured side by side.

use std::collections::BTreeMap;

/// Middle and ends of some values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// None of no values.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some(Self { median, min, max })
    }
}

/// The ratios `ours / theirs` of rounds that have both: what slows a machine down for a while then
/// slows down both sides of a ratio.
pub(crate) fn paired(ours: &BTreeMap<u32, f64>, theirs: &BTreeMap<u32, f64>) -> Option<Spread> {
    let both = ours
        .iter()
        .filter_map(|(round, ours)| Some((ours, theirs.get(round)?)));
    Spread::of(both.map(|(ours, theirs)| ours / theirs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_of_the_middle() {
        for (values, want) in [
            (&[3.0][..], (3.0, 3.0, 3.0)),
            (&[4.0, 1.0], (2.5, 1.0, 4.0)),
            (&[9.0, 1.0, 2.0], (2.0, 1.0, 9.0)),
            (&[5.0, 1.0, 3.0, 100.0], (4.0, 1.0, 100.0)),
        ] {
            let spread = Spread::of(values.iter().copied()).unwrap();
            assert_eq!((spread.median, spread.min, spread.max), want);
        }
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn ratios_are_of_one_round_each() {
        // The machine was half as fast in round 2, and round 3 lacks a side.
        let ours = BTreeMap::from([(1, 40.0), (2, 22.0), (3, 1.0)]);
        let theirs = BTreeMap::from([(1, 20.0), (2, 10.0), (4, 1.0)]);
        let ratio = paired(&ours, &theirs).unwrap();
        assert_eq!((ratio.min, ratio.max), (2.0, 2.2));
        assert!((ratio.median - 2.1).abs() < 1e-12, "{ratio:?}");
        assert_eq!(paired(&ours, &BTreeMap::from([(7, 1.0)])), None);
    }
}
