//! What this process holds of the memory.

use std::fs;

/// The memory of a process, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProcessMemory {
    /// All that is in memory now, mapped files included.
    pub(crate) resident_bytes: u64,
    /// What it alone holds, that which was swapped out included.
    pub(crate) private_bytes: u64,
}

/// The memory of this process, where the system tells (Linux).
pub(crate) fn process_memory() -> Option<ProcessMemory> {
    read(&fs::read_to_string("/proc/self/status").ok()?)
}

fn read(status: &str) -> Option<ProcessMemory> {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        kilobytes.checked_mul(1024)
    };
    Some(ProcessMemory {
        resident_bytes: field("VmRSS:")?,
        private_bytes: field("RssAnon:")?.checked_add(field("VmSwap:")?)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_swapped_out_counts() {
        let status = "Name:\tx\nVmRSS:\t    4096 kB\nRssAnon:\t 1024 kB\nVmSwap:\t  1 kB\n";
        let memory = read(status).expect("all fields");
        assert_eq!(memory.resident_bytes, 4 << 20);
        assert_eq!(memory.private_bytes, (1 << 20) + 1024);
        for broken in [
            "",
            "VmRSS: 1 kB\n",
            "VmRSS: 1 kB\nRssAnon: x kB\nVmSwap: 1 kB\n",
        ] {
            assert_eq!(read(broken), None);
        }
    }
}
