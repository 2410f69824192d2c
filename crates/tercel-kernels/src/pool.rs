//! A pool of workers that does not sleep between operations.
//!
//! A decode step is hundreds of short parallel regions. Waking a sleeping thread costs more than
//! most of them, so an idle worker first spins, for about the time between two tokens, and parks
//! only after that.

use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

/// Rounds of the spin loop before a worker parks: some hundred microseconds.
const SPINS_BEFORE_PARKING: u32 = 20_000;
/// Rounds before a waiting caller lets other threads run, for machines with too few cores.
const SPINS_BEFORE_YIELDING: u32 = 2_000;

/// Threads that run the same closure side by side, owned by whoever made them.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

type Job = *const (dyn Fn(usize) + Sync);

struct Shared {
    /// Counts regions; a change tells the workers that `job` is new.
    generation: AtomicU32,
    /// The closure of the current region.
    job: UnsafeCell<Option<Job>>,
    /// Workers that have not finished the current region.
    remaining: AtomicUsize,
    /// One flag per worker: it is parked or about to park.
    parked: Vec<AtomicBool>,
    panicked: AtomicBool,
    stop: AtomicBool,
}

// SAFETY: `job` is written only by the thread inside `run`, which holds `&mut Pool`, while
// `remaining` is 0, and read by workers only between the release of `generation` and their
// decrement of `remaining`.
unsafe impl Sync for Shared {}
// SAFETY: the pointer in `job` is only followed as described above.
unsafe impl Send for Shared {}

impl Pool {
    /// A pool of `threads` threads, the caller's own counted; at least one.
    ///
    /// # Errors
    /// The operating system's error when a thread cannot be started.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let n_workers = threads.saturating_sub(1);
        let shared = Arc::new(Shared {
            generation: AtomicU32::new(0),
            job: UnsafeCell::new(None),
            remaining: AtomicUsize::new(0),
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
            let worker = thread::Builder::new()
                .name(name)
                .spawn(move || work(&shared, index))?;
            pool.workers.push(worker);
        }
        Ok(pool)
    }

    /// Threads, the caller's own counted.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `job(0)`, `job(1)`, ... `job(threads - 1)`, each on its own thread, and returns when
    /// all have.
    ///
    /// # Panics
    /// When a call of `job` panics, after all the others have returned.
    pub fn run(&mut self, job: impl Fn(usize) + Sync) {
        if self.workers.is_empty() {
            return job(0);
        }
        let job: &(dyn Fn(usize) + Sync) = &job;
        // SAFETY: only the lifetime changes. Workers use the reference between here and the
        // moment `remaining` is back at 0, and this function does not return before that.
        let job: Job = unsafe { std::mem::transmute(job) };
        // SAFETY: no region is running (`&mut self`), so no worker reads the cell.
        unsafe { *self.shared.job.get() = Some(job) };
        self.shared
            .remaining
            .store(self.workers.len(), Ordering::Relaxed);
        self.shared.generation.fetch_add(1, Ordering::SeqCst);
        self.wake();
        // SAFETY: `job` points to the closure above, which is alive.
        let mine = catch_unwind(AssertUnwindSafe(|| unsafe { (*job)(0) }));
        self.wait();
        if let Err(panic) = mine {
            std::panic::resume_unwind(panic);
        }
        assert!(
            !self.shared.panicked.swap(false, Ordering::Relaxed),
            "a worker of the pool panicked"
        );
    }

    /// Splits `0..items` into one contiguous range per thread and calls `job` with each; with the
    /// whole at once, on the caller's thread, when it is not `worth_it`.
    ///
    /// # Panics
    /// As [`Pool::run`].
    pub fn run_ranges(
        &mut self,
        items: usize,
        worth_it: bool,
        job: impl Fn(std::ops::Range<usize>) + Sync,
    ) {
        let threads = self.threads();
        if items <= 1 || threads == 1 || !worth_it {
            return job(0..items);
        }
        self.run(|index| {
            let range = items * index / threads..items * (index + 1) / threads;
            if !range.is_empty() {
                job(range);
            }
        });
    }

    fn wake(&self) {
        for (worker, parked) in self.workers.iter().zip(&self.shared.parked) {
            if parked.swap(false, Ordering::SeqCst) {
                worker.thread().unpark();
            }
        }
    }

    fn wait(&self) {
        let mut spins = 0;
        while self.shared.remaining.load(Ordering::Acquire) > 0 {
            spins += 1;
            if spins < SPINS_BEFORE_YIELDING {
                std::hint::spin_loop();
            } else {
                thread::yield_now();
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.generation.fetch_add(1, Ordering::SeqCst);
        for worker in &self.workers {
            worker.thread().unpark();
        }
        for worker in self.workers.drain(..) {
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

/// The life of worker `index`: wait for a region, run its part, report.
fn work(shared: &Shared, index: usize) {
    let mut seen = 0;
    loop {
        seen = next_generation(shared, index, seen);
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        // SAFETY: the generation changed, so `run` has published a job and waits for this
        // worker's decrement of `remaining` before it ends the job's life.
        let job = unsafe { (*shared.job.get()).map(|job| &*job) };
        if let Some(job) = job
            && catch_unwind(AssertUnwindSafe(|| job(index + 1))).is_err()
        {
            shared.panicked.store(true, Ordering::Relaxed);
        }
        shared.remaining.fetch_sub(1, Ordering::Release);
    }
}

/// Waits until the generation is another than `seen`: spinning first, then parked.
fn next_generation(shared: &Shared, index: usize, seen: u32) -> u32 {
    for _ in 0..SPINS_BEFORE_PARKING {
        let now = shared.generation.load(Ordering::Acquire);
        if now != seen {
            return now;
        }
        std::hint::spin_loop();
    }
    loop {
        shared.parked[index].store(true, Ordering::SeqCst);
        let now = shared.generation.load(Ordering::SeqCst);
        if now != seen {
            shared.parked[index].store(false, Ordering::SeqCst);
            return now;
        }
        thread::park();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_index_runs_once_per_region() {
        for threads in 1..=4 {
            let mut pool = Pool::new(threads).unwrap();
            assert_eq!(pool.threads(), threads);
            let counts: Vec<AtomicU64> = (0..threads).map(|_| AtomicU64::new(0)).collect();
            for round in 0..500 {
                if round % 100 == 99 {
                    thread::sleep(Duration::from_millis(5)); // long enough for workers to park
                }
                pool.run(|index| {
                    counts[index].fetch_add(1, Ordering::Relaxed);
                });
            }
            assert!(
                counts
                    .iter()
                    .all(|count| count.load(Ordering::Relaxed) == 500)
            );
        }
    }

    #[test]
    fn ranges_cover_all_items_without_overlap() {
        let mut pool = Pool::new(3).unwrap();
        for items in [0, 1, 2, 3, 7, 100] {
            let hits: Vec<AtomicU64> = (0..items).map(|_| AtomicU64::new(0)).collect();
            pool.run_ranges(items, true, |range| {
                for hit in &hits[range] {
                    hit.fetch_add(1, Ordering::Relaxed);
                }
            });
            assert!(
                hits.iter().all(|hit| hit.load(Ordering::Relaxed) == 1),
                "{items} items"
            );
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let mut pool = Pool::new(2).unwrap();
        for culprit in 0..2 {
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.run(|index| assert_ne!(index, culprit, "on purpose"));
            }));
            assert!(result.is_err());
        }
        let count = AtomicU64::new(0);
        pool.run(|_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(count.load(Ordering::Relaxed), 2);
    }
}
