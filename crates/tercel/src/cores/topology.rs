//! What the machine's processors are: which share a core, and which are faster.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::CoreSet;

/// The processors that are at work in the machine, whoever may use them, where the system tells.
pub fn online() -> Option<CoreSet> {
    let list = fs::read_to_string("/sys/devices/system/cpu/online").ok()?;
    list.parse().ok()
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Processor {
    /// All processors of its core, itself among them.
    siblings: CoreSet,
    /// The highest clock rate, where the system tells.
    max_khz: Option<u64>,
}

/// The processors of the machine by their numbers, as far as the system describes them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology(BTreeMap<usize, Processor>);

impl Topology {
    /// What this machine is; nothing where the system does not tell.
    pub fn of_machine() -> Self {
        Self::read(Path::new("/sys/devices/system/cpu"))
    }

    /// A machine of these processors: the number of each, all processors of its core, itself among
    /// them, and its highest clock rate in kHz where that is known.
    pub fn new(processors: impl IntoIterator<Item = (usize, CoreSet, Option<u64>)>) -> Self {
        let processor = |(number, siblings, max_khz)| (number, Processor { siblings, max_khz });
        Self(processors.into_iter().map(processor).collect())
    }

    /// Reads a directory such as Linux has under `/sys/devices/system/cpu`. What is missing or is no
    /// description is left out.
    fn read(directory: &Path) -> Self {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        let processors = entries.filter_map(|entry| {
            let name = entry.file_name();
            let digits = name.to_str()?.strip_prefix("cpu")?;
            let number: usize = digits.parse().ok()?;
            let read = |name: &str| fs::read_to_string(entry.path().join(name)).ok();
            // A processor that is offline has no topology.
            let siblings = read("topology/thread_siblings_list")?.parse().ok()?;
            let max_khz = read("cpufreq/cpuinfo_max_freq").and_then(|khz| khz.trim().parse().ok());
            Some((number, siblings, max_khz))
        });
        Self::new(processors)
    }

    /// One processor of each core that has any in `cores`. Where nothing is known of a processor, it
    /// counts as a core.
    pub fn physical(&self, cores: &CoreSet) -> CoreSet {
        let mut seen = Vec::new();
        let physical = cores.iter().filter(|core| {
            let Some(processor) = self.0.get(core) else {
                return true;
            };
            let is_first = !seen.contains(&&processor.siblings);
            seen.push(&processor.siblings);
            is_first
        });
        CoreSet::new(physical).unwrap_or_else(|| cores.clone())
    }

    /// Those of `cores` with the highest clock rate; all of them where it is not known of each.
    pub fn fastest(&self, cores: &CoreSet) -> CoreSet {
        let rate = |core: usize| self.0.get(&core)?.max_khz;
        let rates: Option<Vec<u64>> = cores.iter().map(rate).collect();
        let highest = rates.and_then(|rates| rates.into_iter().max());
        let fastest = cores.iter().filter(|core| rate(*core) == highest);
        CoreSet::new(fastest)
            .filter(|_| highest.is_some())
            .unwrap_or_else(|| cores.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> CoreSet {
        text.parse().expect("a list")
    }

    #[test]
    fn cores_and_clock_rates_are_read_from_what_linux_writes() {
        let root = tempfile::tempdir().expect("a directory");
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("inside")).expect("created");
            fs::write(path, text).expect("written");
        };
        // Two cores of two hyper-threads, two slow ones, one offline, and what is none.
        for (cpu, siblings, khz) in [
            (0, "0,4\n", "5000000\n"),
            (1, "1,5\n", "5000000\n"),
            (2, "2\n", "3000000\n"),
            (3, "3\n", "3000000\n"),
            (4, "0,4\n", "5000000\n"),
            (5, "1,5\n", "5000000\n"),
        ] {
            write(&format!("cpu{cpu}/topology/thread_siblings_list"), siblings);
            write(&format!("cpu{cpu}/cpufreq/cpuinfo_max_freq"), khz);
        }
        write("cpu6/online", "0\n");
        write("cpufreq/boost", "1\n");
        write("cpu7/topology/thread_siblings_list", "nonsense\n");
        let topology = Topology::read(root.path());
        for (cores, physical, fastest) in [
            ("0-5", "0-3", "0,1,4,5"),
            ("4,5", "4,5", "4,5"),
            ("0,4", "0", "0,4"),
            ("2-4", "2-4", "4"),
            // Of 6 and 7 nothing is known.
            ("0,4,6,7", "0,6,7", "0,4,6,7"),
        ] {
            let cores = set(cores);
            assert_eq!(topology.physical(&cores), set(physical), "{cores}");
            assert_eq!(topology.fastest(&cores), set(fastest), "{cores}");
        }
        let nothing = Topology::read(&root.path().join("no"));
        assert_eq!(nothing, Topology::default());
        assert_eq!(nothing.physical(&set("0-3")), set("0-3"));
        assert_eq!(nothing.fastest(&set("0-3")), set("0-3"));
    }
}
