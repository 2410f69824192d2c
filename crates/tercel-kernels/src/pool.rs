//! A pool of workers that does not sleep between operations.
//!
//! A decode step is hundreds of short parallel regions. Waking a sleeping thread costs more than
//! most of them, so an idle worker first spins, for about the time between two tokens, and parks
//! only after that. Work is claimed piece by piece: when the system runs something else on a
//! worker's core, the others do its share, and nobody waits for a worker that has not begun.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::available_parallelism;

use crate::sync::{
    AtomicBool, AtomicU64, AtomicUsize, Builder, JoinHandle, Ordering, UnsafeCell, park, spin_loop,
    yield_now,
};

/// Rounds of the spin loop before a worker parks: some hundred microseconds.
const SPINS_BEFORE_PARKING: u32 = 20_000;
/// Rounds where there are more threads than processors, and spinning only takes time from the
/// others.
const SPINS_OVERSUBSCRIBED: u32 = 20;
/// Rounds under loom: one that spins and one that parks are all there is to tell apart.
const SPINS_MODELLED: u32 = 2;
/// More threads than any machine of the targets has processors.
const MAX_THREADS: usize = 1024;
/// Rounds before a waiting caller lets other threads run, for machines with too few cores.
const SPINS_BEFORE_YIELDING: u32 = 2_000;
/// Pieces that each thread's share is cut into.
const PIECES_PER_THREAD: usize = 4;

/// Threads that work on one region at a time, owned by whoever made them.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

type Job = *const (dyn Fn(usize, Range<usize>) + Sync);

struct Shared {
    gate: Gate,
    /// The current region, valid while the gate is open or a worker is inside.
    region: UnsafeCell<Option<Region>>,
    /// First item of the current region that nobody has claimed.
    next: AtomicUsize,
    /// One flag per worker: it is parked or about to park.
    parked: Vec<AtomicBool>,
    panicked: AtomicBool,
    stop: AtomicBool,
}

#[derive(Clone, Copy)]
struct Region {
    job: Job,
    items: usize,
    piece: usize,
}

// SAFETY: `region` is written only by the thread inside `run`, which holds `&mut Pool`, while the
// gate is closed and no worker is inside; workers read it only inside the gate.
unsafe impl Sync for Shared {}
// SAFETY: the pointer in `region` is only followed as described above.
unsafe impl Send for Shared {}

impl Pool {
    /// A pool of `threads` threads, the caller's own counted; at least one, at most 1024.
    ///
    /// # Errors
    /// The operating system's error when a thread cannot be started.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let n_workers = threads.clamp(1, MAX_THREADS) - 1;
        let processors = available_parallelism().map_or(1, NonZeroUsize::get);
        let spins = if cfg!(loom) {
            SPINS_MODELLED
        } else if threads > processors {
            SPINS_OVERSUBSCRIBED
        } else {
            SPINS_BEFORE_PARKING
        };
        let shared = Arc::new(Shared {
            gate: Gate(AtomicU64::new(0)),
            region: UnsafeCell::new(None),
            next: AtomicUsize::new(0),
            parked: (0..n_workers).map(|_| AtomicBool::new(false)).collect(),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let mut pool = Self {
            shared,
            workers: Vec::with_capacity(n_workers),
        };
        for index in 0..n_workers {
            let shared = Arc::clone(&pool.shared);
            let name = format!("tercel-worker-{}", index + 1);
            let worker = Builder::new()
                .name(name)
                .spawn(move || work(&shared, index, spins))?;
            pool.workers.push(worker);
        }
        Ok(pool)
    }

    /// Threads, the caller's own counted.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `job(thread, range)` until the ranges cover `0..items`, each item once, and returns
    /// when all calls have. `thread` is below [`threads`](Self::threads), and no two calls with
    /// the same one run at the same time. A range has at least `grain` items where so many are
    /// left: what is not worth another thread's attention stays with the caller.
    ///
    /// # Panics
    /// When a call of `job` panics, after all the others have returned.
    pub fn run(&mut self, items: usize, grain: usize, job: impl Fn(usize, Range<usize>) + Sync) {
        let piece = grain.max(items.div_ceil(self.threads() * PIECES_PER_THREAD));
        if self.workers.is_empty() || items <= piece {
            if items > 0 {
                job(0, 0..items);
            }
            return;
        }
        let job: &(dyn Fn(usize, Range<usize>) + Sync) = &job;
        // SAFETY: only the lifetime changes. Workers use the reference inside the gate, and this
        // function does not return before the gate is closed and all of them are out.
        let job: Job = unsafe { std::mem::transmute(job) };
        let region = Region { job, items, piece };
        // SAFETY: the gate is closed and empty (`&mut self`), so no worker reads the cell.
        self.shared
            .region
            .with_mut(|cell| unsafe { *cell = Some(region) });
        self.shared.next.store(0, Ordering::Relaxed);
        self.shared.gate.open();
        // A worker without a piece of its own need not get up.
        self.wake(items.div_ceil(piece) - 1);
        let mine = catch_unwind(AssertUnwindSafe(|| self.shared.claim(region, 0)));
        self.shared.gate.close_and_wait();
        if let Err(panic) = mine {
            std::panic::resume_unwind(panic);
        }
        assert!(
            !self.shared.panicked.swap(false, Ordering::Relaxed),
            "a worker of the pool panicked"
        );
    }

    /// Wakes up to `n` workers that are parked.
    fn wake(&self, n: usize) {
        for (worker, parked) in self.workers.iter().zip(&self.shared.parked).take(n) {
            if parked.swap(false, Ordering::AcqRel) {
                worker.thread().unpark();
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker catches the panics of its jobs, so joining cannot fail.
            let _ = worker.join();
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({} threads)", self.threads())
    }
}

impl Shared {
    /// Claims and computes pieces of a region until none is left.
    fn claim(&self, region: Region, thread: usize) {
        loop {
            let start = self.next.fetch_add(region.piece, Ordering::Relaxed);
            if start >= region.items {
                return;
            }
            let end = region.items.min(start + region.piece);
            // SAFETY: the caller is `run` itself or inside the gate, so the job is alive.
            unsafe { (*region.job)(thread, start..end) };
        }
    }
}

/// Lets workers into a region, counts those inside, and tells regions apart.
///
/// One word: bit 0 says that the gate is open, bits 1 to 15 count the workers inside, the rest
/// counts regions, so that a worker can enter each only once and never a closed one.
struct Gate(AtomicU64);

const OPEN: u64 = 1;
const ONE_INSIDE: u64 = 2;
const INSIDE: u64 = 0xfffe;
const ONE_REGION: u64 = 0x1_0000;

impl Gate {
    /// Opens it for a new region. It must be closed and empty.
    fn open(&self) {
        self.0.fetch_add(ONE_REGION | OPEN, Ordering::AcqRel);
    }

    /// Closes it and waits until all are out.
    fn close_and_wait(&self) {
        self.0.fetch_and(!OPEN, Ordering::AcqRel);
        let mut spins = 0;
        while self.0.load(Ordering::Acquire) & INSIDE != 0 {
            spins += 1;
            if spins < SPINS_BEFORE_YIELDING {
                spin_loop();
            } else {
                yield_now();
            }
        }
    }

    /// Enters if it is open for another region than `last`, and gives back which.
    fn enter(&self, last: u64) -> Option<u64> {
        let now = self.0.load(Ordering::Relaxed);
        let region = now / ONE_REGION;
        if now & OPEN == 0 || region == last {
            return None;
        }
        let inside = now + ONE_INSIDE;
        let entered = self
            .0
            .compare_exchange(now, inside, Ordering::AcqRel, Ordering::Relaxed);
        entered.ok().map(|_| region)
    }

    fn leave(&self) {
        self.0.fetch_sub(ONE_INSIDE, Ordering::Release);
    }
}

/// The life of worker `index`: wait for a region, do what is left of it, leave. It parks after
/// `patience` rounds of spinning.
fn work(shared: &Shared, index: usize, patience: u32) {
    let mut last = 0;
    let mut spins = 0;
    while !shared.stop.load(Ordering::Relaxed) {
        if let Some(region) = shared.gate.enter(last) {
            last = region;
            spins = 0;
            // SAFETY: inside the gate nobody writes the cell.
            let region = shared.region.with(|cell| unsafe { *cell });
            if let Some(region) = region
                && catch_unwind(AssertUnwindSafe(|| shared.claim(region, index + 1))).is_err()
            {
                shared.panicked.store(true, Ordering::Relaxed);
            }
            shared.gate.leave();
            continue;
        }
        spins += 1;
        if spins < patience {
            spin_loop();
            continue;
        }
        // Both sides swap the flag: either the one that opens the gate finds it set and unparks, or
        // this finds what that one left, and so sees the gate open at one more look.
        shared.parked[index].swap(true, Ordering::AcqRel);
        let open = shared.gate.0.load(Ordering::Relaxed) & OPEN != 0;
        if !open && !shared.stop.load(Ordering::Acquire) {
            park();
        }
        shared.parked[index].store(false, Ordering::Relaxed);
        spins = 0;
    }
}

#[cfg(all(test, loom))]
mod models;
#[cfg(all(test, not(loom)))]
mod tests;
