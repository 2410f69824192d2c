//! What the kinds of sources share while one model is fetched.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::SourceError;
use super::disk::git_hashes;
use super::local::Checked;
use super::progress::{Phase, Progress, ProgressTracker};

/// One fetch as its steps see it: whom to tell, and whether to go on.
pub(super) struct Job<'a> {
    pub(super) model: String,
    pub(super) tracker: ProgressTracker<'a>,
    pub(super) cancel: &'a dyn Fn() -> bool,
    /// What was downloaded before the file that is being fetched.
    pub(super) before: u64,
    /// The size of all files, for a model of several.
    pub(super) sum: Option<Sum>,
}

/// What is to be downloaded altogether.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sum {
    Bytes(u64),
    /// Of several files, not all of which tell their size.
    Unknown,
}

impl Job<'_> {
    /// Fails once the caller has cancelled.
    pub(super) fn check(&self) -> Result<(), SourceError> {
        if (self.cancel)() {
            return Err(SourceError::Cancelled {
                model: self.model.clone(),
            });
        }
        Ok(())
    }

    /// Sleeps, unless cancelled.
    pub(super) fn pause(&self, duration: Duration) -> Result<(), SourceError> {
        const STEP: Duration = Duration::from_millis(50);
        let end = Instant::now() + duration;
        loop {
            self.check()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(STEP));
        }
    }

    pub(super) fn downloading(&mut self, done: u64, total: Option<u64>) {
        let total = match self.sum {
            Some(Sum::Bytes(bytes)) => Some(bytes),
            Some(Sum::Unknown) => None,
            None => total,
        };
        let done = done.saturating_add(self.before);
        self.tracker.bytes(Phase::Downloading, done, total);
    }

    pub(super) fn extracting(&mut self, done: u64, total: Option<u64>) {
        self.tracker.bytes(Phase::Extracting, done, total);
    }
}

/// What is known of a file before it is there.
#[derive(Clone, Debug, Default)]
pub(super) struct Expected {
    pub(super) size_bytes: Option<u64>,
    pub(super) sha256: Option<String>,
    /// The hash under which git keeps the file; the Hub gives it for small files.
    pub(super) git_sha1: Option<String>,
}

impl Expected {
    /// What is known here, and for the rest what `other` knows.
    pub(super) fn or(&self, other: &Self) -> Self {
        let or = |a: &Option<String>, b: &Option<String>| a.clone().or_else(|| b.clone());
        Self {
            size_bytes: self.size_bytes.or(other.size_bytes),
            sha256: or(&self.sha256, &other.sha256),
            git_sha1: or(&self.git_sha1, &other.git_sha1),
        }
    }

    /// What a file that passed [`Expected::check`] and [`Expected::check_git`] was compared with.
    pub(super) fn checked(&self) -> Checked {
        match self {
            Self {
                sha256: Some(_), ..
            } => Checked::Sha256,
            Self {
                git_sha1: Some(_), ..
            } => Checked::GitSha1,
            Self {
                size_bytes: Some(_),
                ..
            } => Checked::Size,
            _ => Checked::Unknown,
        }
    }

    /// Fails if a file is not the one of the git hash. Only asked where no better hash is known.
    pub(super) fn check_git(&self, place: &str, path: &Path) -> Result<(), SourceError> {
        let (None, Some(expected)) = (&self.sha256, &self.git_sha1) else {
            return Ok(());
        };
        let found = git_hashes(path)?;
        // Mirrors of the Hub are known to give the SHA-1 of the bytes instead.
        if found.contains(expected) {
            return Ok(());
        }
        let [found, _] = found;
        Err(SourceError::ChecksumMismatch {
            place: place.to_owned(),
            what: "git sha1",
            found,
            expected: expected.clone(),
        })
    }

    /// Fails if a known property differs from what arrived.
    pub(super) fn check(
        &self,
        place: &str,
        size_bytes: u64,
        sha256: Option<&str>,
    ) -> Result<(), SourceError> {
        if let Some(expected) = self.size_bytes
            && expected != size_bytes
        {
            return Err(SourceError::ChecksumMismatch {
                place: place.to_owned(),
                what: "size",
                found: size_bytes.to_string(),
                expected: expected.to_string(),
            });
        }
        match (&self.sha256, sha256) {
            (Some(expected), Some(found)) if expected != found => {
                Err(SourceError::ChecksumMismatch {
                    place: place.to_owned(),
                    what: "sha256",
                    found: found.to_owned(),
                    expected: expected.clone(),
                })
            }
            _ => Ok(()),
        }
    }
}

/// A complete, checked and synced file in the staging directory.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) path: PathBuf,
    pub(super) size_bytes: u64,
    pub(super) sha256: String,
    pub(super) checked: Checked,
    /// The commit of the repository, where the source has one.
    pub(super) commit: Option<String>,
}

/// How the caller of a fetch follows and steers it.
///
/// ```
/// use tercel::source::Control;
///
/// let mut show = |progress| eprintln!("{progress}");
/// let stop = || false;
/// let control = Control::new().on_progress(&mut show).cancel_when(&stop).offline(true);
/// ```
pub struct Control<'a> {
    progress: Option<&'a mut (dyn FnMut(Progress) + 'a)>,
    cancel: &'a dyn Fn() -> bool,
    offline: bool,
}

impl<'a> Control<'a> {
    /// Reports to nobody, is never cancelled, and may use the network unless the environment says
    /// otherwise.
    pub fn new() -> Self {
        Self {
            progress: None,
            cancel: &|| false,
            offline: false,
        }
    }

    /// Sets who is told. A fetch reports downloading and extracting; loading and ready are for the
    /// engine to report. A model that is already there is no reason for a report.
    #[must_use]
    pub fn on_progress(mut self, sink: &'a mut (dyn FnMut(Progress) + 'a)) -> Self {
        self.progress = Some(sink);
        self
    }

    /// Sets who is asked, some ten times a second, whether to stop.
    #[must_use]
    pub fn cancel_when(mut self, cancel: &'a dyn Fn() -> bool) -> Self {
        self.cancel = cancel;
        self
    }

    /// Forbids the network. The environment can forbid it too.
    #[must_use]
    pub fn offline(mut self, offline: bool) -> Self {
        self.offline = offline;
        self
    }

    pub(super) fn is_offline(&self) -> bool {
        self.offline
    }

    /// The job of one fetch of `model`.
    pub(super) fn job(&mut self, model: &str) -> Job<'_> {
        // The closure shortens the lifetime of the trait object, which the type alone would not.
        let sink = self
            .progress
            .as_mut()
            .map(|sink| &mut **sink as &mut (dyn FnMut(Progress) + '_));
        Job {
            model: model.to_owned(),
            tracker: ProgressTracker::new(model, sink),
            cancel: self.cancel,
            before: 0,
            sum: None,
        }
    }
}

impl Default for Control<'_> {
    fn default() -> Self {
        Self::new()
    }
}
