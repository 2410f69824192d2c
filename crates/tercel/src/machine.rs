//! What the machine offers: physical cores and available memory.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::thread;

/// Physical cores that this process may use, at least 1. Where the system does not tell cores from
/// hyper-threads, every logical processor counts.
pub(crate) fn physical_cores() -> usize {
    let allowed = thread::available_parallelism().map_or(1, usize::from);
    match cores_of(Path::new("/sys/devices/system/cpu")) {
        Some(cores) => cores.min(allowed),
        None => allowed,
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

/// Counts distinct sets of sibling threads under Linux' `sysfs`.
fn cores_of(cpus: &Path) -> Option<usize> {
    let mut cores = HashSet::new();
    for entry in fs::read_dir(cpus).ok()?.flatten() {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("cpu"));
        if number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit())) {
            let siblings = entry.path().join("topology/thread_siblings_list");
            // An offline processor has no topology.
            if let Ok(siblings) = fs::read_to_string(siblings) {
                cores.insert(siblings);
            }
        }
    }
    (!cores.is_empty()).then_some(cores.len())
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
    fn hyper_threads_of_a_core_count_once() {
        let root = tempfile::tempdir().expect("a directory");
        for (cpu, siblings) in [
            ("cpu0", "0,2"),
            ("cpu1", "1,3"),
            ("cpu2", "0,2"),
            ("cpu3", "1,3"),
        ] {
            let topology = root.path().join(cpu).join("topology");
            fs::create_dir_all(&topology).expect("created");
            fs::write(topology.join("thread_siblings_list"), siblings).expect("written");
        }
        fs::create_dir_all(root.path().join("cpufreq")).expect("created");
        fs::create_dir_all(root.path().join("cpu4")).expect("created");
        assert_eq!(cores_of(root.path()), Some(2));
        assert_eq!(cores_of(&root.path().join("cpufreq")), None);
        assert!(physical_cores() >= 1);
    }

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
