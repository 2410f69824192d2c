//! Which sets of cores are worth trying.

use tercel::cores::{CoreSet, Topology};

/// Sets of the `allowed` processors that a model may answer faster on than on all of them, all of
/// them first: one processor of each core, the cores with the highest clock rate, and each half of
/// the cores where there are more than two, which on many machines are clusters with a cache of
/// their own. Each set is there once.
pub fn core_sets(topology: &Topology, allowed: &CoreSet) -> Vec<CoreSet> {
    let physical = topology.physical(allowed);
    let fastest = topology.fastest(&physical);
    let count = physical.count();
    let half = |skip: usize, take: usize| {
        let is_half = count > 2;
        let cores = physical.iter().skip(skip).take(take);
        CoreSet::new(cores).filter(|_| is_half)
    };
    let (lower, upper) = (half(0, count / 2), half(count / 2, count));
    let mut sets = vec![allowed.clone()];
    for set in [Some(physical.clone()), Some(fastest), lower, upper] {
        sets.extend(set.filter(|set| !sets.contains(set)));
    }
    sets
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Processors from 0 on: the list of siblings and the clock rate of each.
    fn topology(processors: &[(&str, Option<u64>)]) -> Topology {
        let processors = processors.iter().enumerate();
        Topology::new(processors.map(|(number, (siblings, max_khz))| {
            let siblings = siblings.parse().expect("a list");
            (number, siblings, *max_khz)
        }))
    }

    #[test]
    fn sets_follow_what_the_machine_is() {
        let alike = |n: usize| {
            let numbers: Vec<String> = (0..n).map(|n| n.to_string()).collect();
            topology(
                &numbers
                    .iter()
                    .map(|n| (n.as_str(), None))
                    .collect::<Vec<_>>(),
            )
        };
        let threaded = topology(&[("0,2", None), ("1,3", None), ("0,2", None), ("1,3", None)]);
        let (fast, slow) = (Some(3_000_000), Some(1_800_000));
        let clusters = topology(&[
            ("0", slow),
            ("1", slow),
            ("2", slow),
            ("3", slow),
            ("4", fast),
            ("5", fast),
        ]);
        for (topology, allowed, expected) in [
            (&alike(1), "0", &["0"][..]),
            (&alike(2), "0-1", &["0-1"]),
            (&alike(8), "0-7", &["0-7", "0-3", "4-7"]),
            (&alike(8), "1,3,5", &["1,3,5", "1", "3,5"]),
            (&threaded, "0-3", &["0-3", "0-1"]),
            (&threaded, "0,2", &["0,2", "0"]),
            (&clusters, "0-5", &["0-5", "4-5", "0-2", "3-5"]),
            (&clusters, "0-3", &["0-3", "0-1", "2-3"]),
            (&Topology::default(), "0-3", &["0-3", "0-1", "2-3"]),
        ] {
            let set = |text: &&str| text.parse::<CoreSet>().expect("a list");
            let expected: Vec<CoreSet> = expected.iter().map(set).collect();
            assert_eq!(core_sets(topology, &set(&allowed)), expected, "{allowed}");
        }
    }
}
