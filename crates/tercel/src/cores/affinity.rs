//! Keeping this process to some of its processors.

use super::{CoreSet, CoresError};

/// The processors that this process was started with, and the means to keep to some of them.
///
/// One value is made before anything changes the mask, and asked for every change: what the process
/// was started with, as by `taskset`, is never left.
#[derive(Clone, Debug)]
pub struct Affinity {
    allowed: CoreSet,
}

impl Affinity {
    /// Reads the mask of this process.
    ///
    /// # Errors
    /// [`CoresError::Unsupported`] where the system has none.
    pub fn of_process() -> Result<Self, CoresError> {
        let allowed = allowed().ok_or(CoresError::Unsupported)?;
        Ok(Self { allowed })
    }

    /// The processors that the process was started with.
    pub fn allowed(&self) -> &CoreSet {
        &self.allowed
    }

    /// Keeps all threads of this process, and those that they will start, to `cores`. A set for one
    /// engine alone is not possible: its threads wait for each other.
    ///
    /// # Errors
    /// [`CoresError::NotAllowed`] for a core outside of [`allowed`](Self::allowed),
    /// [`CoresError::Refused`] where the system does not do it, as for a core that was taken away
    /// since.
    pub fn keep_to(&self, cores: &CoreSet) -> Result<(), CoresError> {
        if let Some(core) = cores.first_outside(&self.allowed) {
            let allowed = self.allowed.clone();
            return Err(CoresError::NotAllowed { core, allowed });
        }
        system::keep_to(cores)
    }
}

/// The processors that the calling thread may use, where the system tells. Those that are offline
/// are not among them.
pub(super) fn allowed() -> Option<CoreSet> {
    system::allowed()
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod system {
    use std::fs;

    use rustix::io::Errno;
    use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity};

    use super::{CoreSet, CoresError};

    pub(super) fn allowed() -> Option<CoreSet> {
        let mask = sched_getaffinity(None).ok()?;
        CoreSet::new((0..CpuSet::MAX_CPU).filter(|core| mask.is_set(*core)))
    }

    /// The mask belongs to threads: those that are there are changed one by one, later ones have it
    /// from the thread that starts them.
    pub(super) fn keep_to(cores: &CoreSet) -> Result<(), CoresError> {
        let refused = |reason: String| CoresError::Refused {
            cores: cores.clone(),
            reason,
        };
        let before = sched_getaffinity(None).map_err(|error| refused(error.to_string()))?;
        let mut mask = CpuSet::new();
        for core in cores.iter().filter(|core| *core < CpuSet::MAX_CPU) {
            mask.set(core);
        }
        sched_setaffinity(None, &mask).map_err(|error| refused(error.to_string()))?;
        // The kernel leaves out in silence what a control group keeps from the process.
        if allowed().as_ref() != Some(cores) {
            sched_setaffinity(None, &before).map_err(|error| refused(error.to_string()))?;
            return Err(refused("the system keeps some of them away".to_owned()));
        }
        for thread in other_threads() {
            match sched_setaffinity(Some(thread), &mask) {
                // It has ended meanwhile.
                Ok(()) | Err(Errno::SRCH) => {}
                Err(error) => return Err(refused(error.to_string())),
            }
        }
        Ok(())
    }

    /// Without `/proc` only the calling thread is known, and what it starts.
    fn other_threads() -> impl Iterator<Item = Pid> {
        let tasks = fs::read_dir("/proc/self/task").into_iter().flatten();
        tasks.flatten().filter_map(|task| {
            let number = task.file_name().to_str()?.parse().ok()?;
            Pid::from_raw(number)
        })
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod system {
    use super::{CoreSet, CoresError};

    pub(super) fn allowed() -> Option<CoreSet> {
        None
    }

    pub(super) fn keep_to(_: &CoreSet) -> Result<(), CoresError> {
        Err(CoresError::Unsupported)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    /// In one test, since the mask is the whole process's.
    #[test]
    fn all_threads_keep_to_the_set_and_back() {
        let affinity = Affinity::of_process().expect("Linux tells");
        let all = affinity.allowed().clone();
        let first = CoreSet::new(all.iter().take(1)).expect("at least one");
        let (ask, asked) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        let older = thread::spawn(move || {
            for () in asked {
                tell.send(allowed()).expect("someone listens");
            }
        });
        let sets = || {
            ask.send(()).expect("it lives");
            let older = told.recv().expect("an answer");
            let newer = thread::spawn(allowed).join().expect("no panic");
            [allowed(), older, newer].map(|set| set.expect("Linux tells"))
        };
        affinity.keep_to(&first).expect("it is allowed");
        assert_eq!(sets(), [first.clone(), first.clone(), first.clone()]);
        assert_eq!(affinity.allowed(), &all, "what it was started with");
        assert_eq!(crate::machine::physical_cores(), 1);
        affinity.keep_to(&all).expect("and all again");
        assert_eq!(sets(), [all.clone(), all.clone(), all.clone()]);

        let missing = CoreSet::new([9999]).expect("one");
        let error = affinity.keep_to(&missing).expect_err("there is none");
        assert_eq!(
            error,
            CoresError::NotAllowed {
                core: 9999,
                allowed: all.clone()
            }
        );
        // What it was kept from at the start, it is kept from for ever.
        let kept = Affinity { allowed: first };
        if let Some(other) = all.iter().nth(1) {
            let other = CoreSet::new([other]).expect("one");
            let error = kept.keep_to(&other).expect_err("it is outside");
            assert_eq!(error.kind(), "core_not_allowed");
        }
        assert_eq!(sets(), [all.clone(), all.clone(), all]);
        drop(ask);
        older.join().expect("no panic");
    }
}
