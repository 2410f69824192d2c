//! What this process holds of the memory, as the system tells.

use std::fs;

use serde::Serialize;

use crate::machine;

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ProcessMemory {
    /// Pages that are in memory, those of mapped files and shared ones included: the RSS.
    pub rss_bytes: u64,
    /// What the process allocated itself, in memory or swapped out: `RssAnon + VmSwap`. Mapped
    /// files, which the system may drop at will, are not in it.
    pub own_bytes: u64,
    /// The most that the RSS ever was.
    pub peak_rss_bytes: u64,
}

/// Measures this process; `None` where the system does not tell, which is everywhere but on Linux.
///
/// Reads two small files of `/proc`, some ten microseconds: for a sample now and then, not for
/// every token.
pub fn measure() -> Option<ProcessMemory> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let status = fs::read_to_string("/proc/self/status").ok()?;
    Some(ProcessMemory {
        rss_bytes: resident(&statm, page_bytes()?)?,
        own_bytes: own(&status)?,
        peak_rss_bytes: field(&status, "VmHWM:")?,
    })
}

/// Bytes that can be allocated without swapping, where the system tells: on Linux the smaller of
/// what it calls available and what the control group leaves.
pub fn available_bytes() -> Option<u64> {
    machine::available_bytes()
}

/// The second number of `/proc/self/statm` counts pages (proc_pid_statm(5)).
fn resident(statm: &str, page_bytes: u64) -> Option<u64> {
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    pages.checked_mul(page_bytes)
}

fn own(status: &str) -> Option<u64> {
    // A kernel without swap has no line for it.
    let swapped = field(status, "VmSwap:").unwrap_or(0);
    field(status, "RssAnon:")?.checked_add(swapped)
}

/// Bytes of a line of `/proc/self/status`, which has kilobytes.
fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(target_os = "linux")]
fn page_bytes() -> Option<u64> {
    u64::try_from(rustix::param::page_size()).ok()
}

#[cfg(not(target_os = "linux"))]
fn page_bytes() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_linux_writes_is_read() {
        assert_eq!(resident("5000 300 200 1 0 99 0\n", 4096), Some(300 * 4096));
        assert_eq!(resident("5000", 4096), None);
        assert_eq!(resident("1 18446744073709551615", 4096), None);
        let status = "Name:\tx\nVmRSS:\t 900 kB\nRssAnon:\t     700 kB\nVmSwap:\t  24 kB\n";
        assert_eq!(own(status), Some(724 * 1024));
        assert_eq!(own("RssAnon: 5 kB\n"), Some(5 * 1024));
        assert_eq!(own("VmRSS: 5 kB\n"), None);
        assert_eq!(field("VmHWM:\t 9 kB\n", "VmHWM:"), Some(9 * 1024));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_allocation_is_seen() {
        const BYTES: usize = 64 << 20;
        let before = measure().expect("Linux tells");
        let held = vec![1_u8; BYTES];
        let with = measure().expect("Linux tells");
        assert_eq!(held[BYTES / 2], 1);
        // Other tests of this process come and go.
        let least = (BYTES / 2) as u64;
        assert!(
            with.own_bytes > before.own_bytes + least,
            "{before:?} {with:?}"
        );
        assert!(
            with.rss_bytes > before.rss_bytes + least,
            "{before:?} {with:?}"
        );
    }
}
