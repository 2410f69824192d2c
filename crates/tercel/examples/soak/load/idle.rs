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

/// Entries of a folder; none where it cannot be read.
fn entries(folder: &str) -> usize {
    fs::read_dir(folder).map_or(0, Iterator::count)
}

#[cfg(test)]
mod tests {
    use super::*;

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
