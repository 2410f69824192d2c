//! A model file in memory: opened, checked and mapped. The crate's `unsafe` is here, and one
//! call in `memory/allocator.rs`.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
#[cfg(unix)]
use memmap2::UncheckedAdvice;

use crate::error::Error;

/// The bytes of a model file, read from disk as they are touched.
///
/// The file must not be written to while it is mapped, which is while a model loads: reading past
/// the new end of a truncated file kills the process. The store never changes a file in place.
#[derive(Debug)]
pub(crate) struct Weights {
    path: PathBuf,
    map: Mmap,
}

impl Weights {
    /// Maps the regular, non-empty file at `path`.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let unreadable = |reason: io::Error| Error::Unreadable {
            path: path.into(),
            reason,
        };
        // Before opening: to open a pipe would wait for its other end.
        let metadata = fs::metadata(path).map_err(unreadable)?;
        if !metadata.is_file() {
            let problem = if metadata.is_dir() {
                "is a directory"
            } else {
                "is no regular file"
            };
            return Err(Error::NotAModelFile {
                path: path.into(),
                problem,
            });
        }
        if metadata.len() == 0 {
            return Err(Error::NotAModelFile {
                path: path.into(),
                problem: "is empty",
            });
        }
        let file = File::open(path).map_err(unreadable)?;
        Ok(Self {
            path: path.into(),
            map: map(&file).map_err(unreadable)?,
        })
    }

    /// The file's bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Gives back the memory of those pages of `bytes` that lie in this file; to read them again
    /// would fetch them from disk.
    pub(crate) fn release(&self, bytes: &[u8]) {
        let file = self.map.as_ptr() as usize..self.map.as_ptr() as usize + self.map.len();
        let start = bytes.as_ptr() as usize;
        if file.contains(&start) && start + bytes.len() <= file.end {
            release(&self.map, start - file.start, bytes.len());
        }
    }

    /// The file's name, without the directory.
    pub(crate) fn name(&self) -> String {
        let name = self.path.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// The path as it was given.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

#[expect(
    unsafe_code,
    reason = "a memory map is the only way to load without copying the file"
)]
fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: the map is read-only, stays in this crate, and every view into it is checked against
    // its length. The one assumption the compiler cannot check is that nobody writes to the file
    // while it is mapped, which lasts until the weights are packed. The store's files are
    // immutable; for a file of the user's own, the contract of this module asks it of the user.
    unsafe { Mmap::map(file) }
}

/// Without effect where the system has no such call.
#[cfg(unix)]
#[expect(
    unsafe_code,
    reason = "only the system call can drop pages from memory"
)]
fn release(map: &Mmap, offset: usize, len: usize) {
    // Pages that reach beyond the range may hold what is still wanted: they stay, or come back.
    // SAFETY: the map is a shared, read-only view of a file, so a page that is dropped reads the
    // same when it is touched again.
    let _ = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, offset, len) };
}

#[cfg(not(unix))]
fn release(_map: &Mmap, _offset: usize, _len: usize) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_mapped_as_it_is() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("model.gguf");
        fs::write(&path, b"GGUF and more").expect("written");
        let weights = Weights::open(&path).expect("a regular file");
        assert_eq!(weights.bytes(), b"GGUF and more");
        assert_eq!(weights.path(), path);
    }

    #[test]
    fn what_is_no_model_file_is_refused_by_name() {
        let directory = tempfile::tempdir().expect("a directory");
        let empty = directory.path().join("empty.gguf");
        fs::write(&empty, b"").expect("written");
        let cases = [
            (
                directory.path().to_path_buf(),
                "is a directory",
                "model_load_failed",
            ),
            (empty, "is empty", "model_load_failed"),
            (
                directory.path().join("missing.gguf"),
                "cannot read",
                "model_not_found",
            ),
        ];
        for (path, problem, kind) in cases {
            let error = Weights::open(&path).expect_err("no model");
            let message = error.to_string();
            assert!(message.contains(problem), "{message}");
            assert!(message.contains(&path.display().to_string()), "{message}");
            assert_eq!(error.kind(), kind);
        }
        #[cfg(unix)]
        assert!(Weights::open(Path::new("/dev/null")).is_err());
    }
}
