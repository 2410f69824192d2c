//! An allocator that counts what the process holds.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// The heap at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Heap {
    /// Bytes that were asked for and not given back.
    pub(crate) live_bytes: i64,
    /// In so many pieces.
    pub(crate) live_blocks: i64,
    /// Allocations so far.
    pub(crate) allocations: u64,
}

/// Counts of now. Other threads may be at work: each number is exact, together they may not be.
pub(crate) fn now() -> Heap {
    Heap {
        live_bytes: BYTES.load(Ordering::Relaxed),
        live_blocks: BLOCKS.load(Ordering::Relaxed),
        allocations: ALLOCATIONS.load(Ordering::Relaxed),
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static BYTES: AtomicI64 = AtomicI64::new(0);
static BLOCKS: AtomicI64 = AtomicI64::new(0);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

/// The system's allocator, with running counts.
struct Counting;

fn taken(layout: Layout) {
    BYTES.fetch_add(layout.size() as i64, Ordering::Relaxed);
    BLOCKS.fetch_add(1, Ordering::Relaxed);
    ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
}

// SAFETY: every call goes unchanged to the system's allocator, and the counters are plain atomics,
// which neither allocate nor panic.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        taken(layout);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    // The default would write to all of it, and so make pages resident that nobody uses.
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        taken(layout);
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        BYTES.fetch_add(new_size as i64 - layout.size() as i64, Ordering::Relaxed);
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, new_size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size() as i64, Ordering::Relaxed);
        BLOCKS.fetch_sub(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_counted() {
        // Far more than what other tests of this process do meanwhile.
        const BYTES: i64 = 512 << 20;
        let before = now();
        let mut held = vec![0_u8; BYTES as usize / 2];
        held.reserve_exact(BYTES as usize);
        let during = now();
        drop(held);
        let after = now();
        assert!(during.live_bytes > before.live_bytes + BYTES, "{during:?}");
        assert!(during.allocations >= before.allocations + 2, "{during:?}");
        assert!(after.live_bytes < before.live_bytes + BYTES / 8);
    }
}
