//! What an engine holds when nobody asks it anything.

use std::fs;
use std::thread;
use std::time::Duration;

use tercel::{Engine, KvUsage};

use crate::Problem;
use crate::heap::{self, Heap};

/// What may differ between two idle moments: buffers of a queue, a set or a table that grow to the
/// most that was ever in them. A request leaves some ten kilobytes if it leaves itself, and a run
/// has thousands.
const BYTES: i64 = 64 << 10;
const BLOCKS: i64 = 64;

/// A moment in which nothing runs and nothing is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Idle {
    pub(crate) heap: Heap,
    pub(crate) usage: KvUsage,
    pub(crate) waiting: usize,
    /// Threads and open files of the process, where the system tells.
    pub(crate) threads: usize,
    pub(crate) files: usize,
}

impl Idle {
    /// Empties the prefix cache and looks. Threads that were told to end may take a moment.
    pub(crate) fn of(engine: &Engine) -> Result<Self, Problem> {
        engine.clear_prefixes()?;
        let look = || -> Result<Self, Problem> {
            Ok(Self {
                usage: engine.kv_usage()?,
                waiting: engine.waiting(),
                threads: entries("/proc/self/task"),
                files: entries("/proc/self/fd"),
                heap: heap::now(),
            })
        };
        let mut last = look()?;
        for _ in 0..20 {
            thread::sleep(Duration::from_millis(25));
            let now = look()?;
            if now.heap.live_bytes == last.heap.live_bytes && now.threads == last.threads {
                break;
            }
            last = now;
        }
        look()
    }

    /// What is wrong with an engine that should be empty.
    pub(crate) fn leftovers(&self) -> Option<String> {
        let KvUsage {
            sequences,
            pages,
            free_pages,
            cached_states,
            used_bytes,
            ..
        } = self.usage;
        let is_empty = sequences == 0 && free_pages == pages && cached_states == 0;
        (!is_empty || used_bytes != 0 || self.waiting != 0).then(|| {
            format!(
                "an idle engine has {sequences} sequences, {free_pages} of {pages} pages free, \
                 {cached_states} states, {used_bytes} bytes in use, {} requests waiting",
                self.waiting
            )
        })
    }

    /// What is held now and was not held at an earlier moment.
    pub(crate) fn more_than(&self, earlier: &Self) -> Option<String> {
        let bytes = self.heap.live_bytes - earlier.heap.live_bytes;
        let blocks = self.heap.live_blocks - earlier.heap.live_blocks;
        let is_same = bytes <= BYTES
            && blocks <= BLOCKS
            && self.threads <= earlier.threads
            && self.files <= earlier.files;
        (!is_same).then(|| {
            format!(
                "the idle engine holds {bytes:+} bytes in {blocks:+} blocks, {:+} threads, \
                 {:+} files more than after the warm-up",
                self.threads as i64 - earlier.threads as i64,
                self.files as i64 - earlier.files as i64
            )
        })
    }
}

/// What the process has computed so far, to a hundredth of a second; nothing where the system does
/// not tell.
pub(super) fn cpu_time() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    ticks(&stat).map_or(Duration::ZERO, |ticks| Duration::from_millis(10 * ticks))
}

/// User and system time, the 14th and 15th field of `/proc/self/stat` (proc_pid_stat(5)); the
/// second, in parentheses, may hold anything. Linux counts 100 in a second.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_ascii_whitespace().skip(11);
    let user: u64 = times.next()?.parse().ok()?;
    let system: u64 = times.next()?.parse().ok()?;
    user.checked_add(system)
}

/// Entries of a folder; none where it cannot be read.
fn entries(folder: &str) -> usize {
    fs::read_dir(folder).map_or(0, Iterator::count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_process_is_read() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194304 100 0 0 0 250 31 0 0 20 0 3 0 99";
        assert_eq!(ticks(stat), Some(281));
        for broken in ["", "7 (a) S 1 2", "7 a S 1 7 7 0 -1 4 1 0 0 0 2 3"] {
            assert_eq!(ticks(broken), None, "{broken}");
        }
    }

    #[test]
    fn what_is_left_behind_is_told() {
        let family = crate::families::Family::open("llama");
        let engine = family.builder().load().expect("a model");
        let idle = Idle::of(&engine).expect("running");
        assert_eq!(idle.leftovers(), None);
        assert_eq!(idle.more_than(&idle), None);
        let kept = Idle {
            usage: KvUsage {
                free_pages: idle.usage.pages - 1,
                ..idle.usage
            },
            ..idle
        };
        assert!(kept.leftovers().expect("a page").contains("pages free"));
        let mut leaked = idle;
        leaked.heap.live_bytes += BYTES + 1;
        let problem = leaked.more_than(&idle).expect("a leak");
        assert!(problem.contains("+65537 bytes"), "{problem}");
        assert_eq!(idle.more_than(&leaked), None);
        let mut more = idle;
        more.threads += 1;
        assert!(more.more_than(&idle).is_some());
    }
}
