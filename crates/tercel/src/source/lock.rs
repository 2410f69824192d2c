//! One writer for each model, among threads and processes.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::SourceError;
use super::error::write_error;
use super::fetch::Job;

/// Held while a model is fetched or removed; the operating system frees it if the process dies.
pub(super) struct ModelLock {
    /// Unset where the file system knows no locks.
    file: Option<File>,
    path: PathBuf,
}

impl ModelLock {
    /// Waits for the lock, and tells the user if that takes long.
    pub(super) fn wait(path: &Path, job: &mut Job<'_>) -> Result<Self, SourceError> {
        const POLL: Duration = Duration::from_millis(100);
        let mut told = false;
        loop {
            if let Some(lock) = Self::attempt(path)? {
                return Ok(lock);
            }
            if !told {
                job.tracker
                    .note("another fetch of this model is running, waiting for it");
                told = true;
            }
            job.pause(POLL)?;
        }
    }

    /// Takes the lock unless it is held.
    pub(super) fn attempt(path: &Path) -> Result<Option<Self>, SourceError> {
        let unwritable = |error| write_error(path, error);
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .map_err(unwritable)?;
        match file.try_lock() {
            // The former holder may have removed the file between the opening and the locking.
            Ok(()) if !is_still_at(&file, path) => Ok(None),
            Ok(()) => Ok(Some(Self {
                file: Some(file),
                path: path.to_owned(),
            })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                Ok(Some(Self {
                    file: None,
                    path: path.to_owned(),
                }))
            }
            Err(TryLockError::Error(error)) => Err(unwritable(error)),
        }
    }
}

impl Drop for ModelLock {
    fn drop(&mut self) {
        // Elsewhere an open file cannot be removed in time; an empty one does no harm.
        if cfg!(unix) && self.file.is_some() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(unix)]
fn is_still_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), fs::metadata(path)) {
        (Ok(held), Ok(there)) => held.ino() == there.ino() && held.dev() == there.dev(),
        _ => false,
    }
}

#[cfg(not(unix))]
fn is_still_at(_file: &File, _path: &Path) -> bool {
    true
}
