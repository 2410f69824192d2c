//! Memory that was freed and that the allocator keeps for later.

/// Gives back to the system what nobody uses any more: after a model was loaded or has left.
///
/// glibc keeps what a thread has freed in the arena of that thread. A load works in many blocks on
/// many threads, so that after some reloads of a model of 0.1 GB the arenas hold 1 to 2 GB of
/// nothing (malloc_trim(3)). Takes milliseconds; does nothing with other allocators.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "the library of C alone can ask its allocator")]
pub(crate) fn give_back() {
    // SAFETY: takes no pointer and keeps none; it locks each arena while it works on it.
    let _ = unsafe { libc::malloc_trim(0) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn give_back() {}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use std::thread;

    use super::*;
    use crate::memory::measure;

    #[test]
    fn what_was_freed_leaves_the_process() {
        const BLOCK: usize = 64 << 10;
        const BLOCKS: usize = 4096;
        let own = || measure().expect("Linux tells").own_bytes;
        let blocks =
            thread::spawn(|| -> Vec<_> { (0..BLOCKS).map(|_| vec![1_u8; BLOCK]).collect() });
        let blocks = blocks.join().expect("allocated");
        // As long as some are there, the arena cannot shrink from its end.
        let kept: Vec<Vec<u8>> = blocks.into_iter().step_by(64).collect();
        let before = own();
        give_back();
        let after = own();
        drop(kept);
        // Other tests of this process come and go.
        let least = (BLOCK * BLOCKS / 2) as u64;
        assert!(before >= after + least, "{before} {after}");
    }
}
