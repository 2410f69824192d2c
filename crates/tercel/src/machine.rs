//! What the machine offers: physical cores and available memory.

use std::fs;
use std::path::Path;
use std::thread;

use crate::cores::{self, Topology};

/// Physical cores that this process may use, at least 1. Where the system does not tell cores from
/// hyper-threads, every logical processor counts.
pub(crate) fn physical_cores() -> usize {
    // A control group may give less time than its processors have.
    let most = thread::available_parallelism().map_or(1, usize::from);
    match cores::of_process() {
        Some(allowed) => Topology::of_machine().physical(&allowed).count().min(most),
        None => most,
    }
}

/// The most compute threads that make sense to ask for: some more than there are processors, so that
/// a request made for a larger machine still runs, but not so many that they only wait for each other.
pub(crate) fn most_threads() -> usize {
    thread::available_parallelism()
        .map_or(1, usize::from)
        .saturating_mul(4)
        .max(8)
}

/// Bytes that can be allocated without swapping, where the system tells: on Linux the smaller of
/// `MemAvailable` and what the control group leaves.
pub(crate) fn available_bytes() -> Option<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let system = meminfo_available(&meminfo)?;
    Some(group_available(Path::new("/sys/fs/cgroup")).map_or(system, |group| group.min(system)))
}

fn meminfo_available(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// The limit of a version 2 control group less its use; the page cache counts as free.
fn group_available(group: &Path) -> Option<u64> {
    let read = |name: &str| fs::read_to_string(group.join(name)).ok();
    let limit: u64 = read("memory.max")?.trim().parse().ok()?;
    let used: u64 = read("memory.current")?.trim().parse().ok()?;
    let cache = read("memory.stat").and_then(|stat| {
        let line = stat
            .lines()
            .find_map(|line| line.strip_prefix("inactive_file "))?;
        line.trim().parse::<u64>().ok()
    });
    Some(limit.saturating_sub(used.saturating_sub(cache.unwrap_or(0))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read_from_what_linux_writes() {
        let meminfo = "MemTotal:       24689160 kB\nMemAvailable:    1024 kB\nBuffers: 1 kB\n";
        assert_eq!(meminfo_available(meminfo), Some(1 << 20));
        assert_eq!(meminfo_available("MemTotal: 1 kB\n"), None);

        let group = tempfile::tempdir().expect("a directory");
        assert_eq!(group_available(group.path()), None);
        let write = |name: &str, text: &str| {
            fs::write(group.path().join(name), text).expect("written");
        };
        write("memory.current", "700\n");
        write("memory.max", "max\n");
        assert_eq!(group_available(group.path()), None);
        write("memory.max", "1000\n");
        assert_eq!(group_available(group.path()), Some(300));
        write("memory.stat", "anon 1\ninactive_file 200\n");
        assert_eq!(group_available(group.path()), Some(500));
    }
}
