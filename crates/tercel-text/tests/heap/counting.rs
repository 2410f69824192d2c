//! An allocator that counts what each thread holds.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Runs `build` and gives its result with the bytes that it still holds, counted on this thread.
pub(crate) fn held_by<T>(build: impl FnOnce() -> T) -> (T, usize) {
    let before = LIVE.get();
    let built = build();
    let held = usize::try_from(LIVE.get() - before).expect("something is held");
    (built, held)
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
}

/// The system's allocator, with a running count for each thread.
struct Counting;

impl Counting {
    fn count(change: isize) {
        LIVE.set(LIVE.get() + change);
    }
}

// SAFETY: every call goes unchanged to the system's allocator, and the counter, a constant
// thread-local cell of a plain integer, neither allocates nor panics.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::count(layout.size() as isize);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        Self::count(-(layout.size() as isize));
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}
