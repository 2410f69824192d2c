//! The directory of the result: written under another name, and there as a whole or not at all.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::error::ConvertError;

/// A directory that is gone unless it is finished.
pub(super) struct Place {
    output: PathBuf,
    temporary: PathBuf,
    finished: bool,
}

impl Place {
    /// Makes the directory beside `output`, on a disk with at least `needed` bytes free.
    pub(super) fn new(output: &Path, needed: u64) -> Result<Self, ConvertError> {
        let exists = || ConvertError::Exists {
            path: output.to_owned(),
        };
        if fs::symlink_metadata(output).is_ok() {
            return Err(exists());
        }
        let name = output.file_name().ok_or_else(exists)?;
        let parent = match output.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        fs::create_dir_all(parent).map_err(ConvertError::write(parent))?;
        if let Some(available_bytes) = available_bytes(parent).filter(|free| *free < needed) {
            return Err(ConvertError::DiskFull {
                path: parent.to_owned(),
                needed_bytes: needed,
                available_bytes,
            });
        }
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}", std::process::id()));
        let temporary = parent.join(hidden);
        fs::create_dir(&temporary).map_err(ConvertError::write(&temporary))?;
        Ok(Self {
            output: output.to_owned(),
            temporary,
            finished: false,
        })
    }

    /// Where to write for now.
    pub(super) fn path(&self) -> &Path {
        &self.temporary
    }

    /// Gives the directory its name.
    pub(super) fn finish(mut self) -> Result<(), ConvertError> {
        let wrong = ConvertError::write(&self.output);
        let entries = fs::read_dir(&self.temporary).map_err(&wrong)?;
        for entry in entries {
            let path = entry.map_err(&wrong)?.path();
            File::open(path)
                .and_then(|file| file.sync_all())
                .map_err(&wrong)?;
        }
        sync_directory(&self.temporary)?;
        // To rename would replace an empty directory that came up meanwhile.
        if fs::symlink_metadata(&self.output).is_ok() {
            return Err(ConvertError::Exists {
                path: self.output.clone(),
            });
        }
        fs::rename(&self.temporary, &self.output).map_err(&wrong)?;
        self.finished = true;
        self.output.parent().map_or(Ok(()), sync_directory)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.finished {
            // Nothing is to be done where this fails; the name says what it is.
            let _ = fs::remove_dir_all(&self.temporary);
        }
    }
}

/// Makes the names in a directory durable. A no-op where directories cannot be synced.
fn sync_directory(path: &Path) -> Result<(), ConvertError> {
    if cfg!(unix) && path != Path::new("") {
        let sync = || File::open(path)?.sync_all();
        sync().map_err(ConvertError::write(path))?;
    }
    Ok(())
}

#[cfg(unix)]
fn available_bytes(directory: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(directory).ok()?;
    stat.f_bavail.checked_mul(stat.f_frsize)
}

#[cfg(not(unix))]
fn available_bytes(_directory: &Path) -> Option<u64> {
    None
}
