//! The file system operations that a store depends on to survive a crash.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::SourceError;
use super::error::{read_error, write_error};

/// Makes a directory and its parents.
pub(super) fn make_directory(path: &Path) -> Result<(), SourceError> {
    fs::create_dir_all(path).map_err(|reason| write_error(path, reason))
}

/// Replaces `path` with `bytes`: after a crash either the old or the new content is there.
pub(super) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), SourceError> {
    let temporary = path.with_extension("new");
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(|reason| write_error(path, reason))
}

/// Makes the names in a directory durable. A no-op where directories cannot be synced.
pub(super) fn sync_directory(path: &Path) -> Result<(), SourceError> {
    if cfg!(unix) {
        let sync = || File::open(path)?.sync_all();
        sync().map_err(|reason| write_error(path, reason))?;
    }
    Ok(())
}

/// Removes a file or a directory tree. What is not there needs no removal.
pub(super) fn remove(path: &Path) -> Result<(), SourceError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(write_error(path, error)),
        _ => Ok(()),
    }
}

/// Bytes of all files below `path`; 0 where nothing is or may be read. Links are not followed.
pub(super) fn bytes_below(path: &Path) -> u64 {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return 0;
    };
    if !metadata.is_dir() {
        return metadata.len();
    }
    let Ok(entries) = fs::read_dir(path) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| bytes_below(&entry.path()))
        .sum()
}

/// Fails if the file system of `directory` has less than `needed` bytes free, as far as one can
/// know.
pub(super) fn ensure_space(directory: &Path, needed: u64) -> Result<(), SourceError> {
    match available_bytes(directory) {
        Some(available) if available < needed => Err(SourceError::DiskFull {
            path: directory.to_owned(),
            needed_bytes: Some(needed),
            available_bytes: Some(available),
        }),
        _ => Ok(()),
    }
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

/// SHA-256 while bytes pass, with the count.
#[derive(Clone, Default)]
pub(super) struct Hasher {
    digest: Sha256,
    bytes: u64,
}

impl Hasher {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    /// How many bytes passed.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The digest in lower-case hexadecimal.
    pub(super) fn finish(self) -> String {
        hexadecimal(&self.digest.finalize())
    }
}

/// Reads a file through a hasher; `step` is called with the bytes so far and can stop it.
pub(super) fn hash_file(
    path: &Path,
    mut step: impl FnMut(u64) -> Result<(), SourceError>,
) -> Result<Hasher, SourceError> {
    let mut hasher = Hasher::default();
    let mut file = File::open(path).map_err(|reason| read_error(path, reason))?;
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hasher),
            Ok(read) => hasher.update(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(reason) => return Err(read_error(path, reason)),
        }
        step(hasher.bytes())?;
    }
}

/// The SHA-1 under which git keeps a file, which is that of its length and its bytes, and the SHA-1
/// of its bytes alone. For small files: nothing can stop it.
pub(super) fn git_hashes(path: &Path) -> Result<[String; 2], SourceError> {
    let bytes = fs::read(path).map_err(|reason| read_error(path, reason))?;
    let git = Sha1::new()
        .chain_update(format!("blob {}\0", bytes.len()))
        .chain_update(&bytes)
        .finalize();
    Ok([hexadecimal(&git), hexadecimal(&Sha1::digest(&bytes))])
}

/// Lower-case hexadecimal.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|nibble| char::from(DIGITS[usize::from(nibble)]))
        .collect()
}

/// A name for a directory: the readable part of `name`, and a hash so that no two names share it,
/// not even where letter case is ignored.
pub(super) fn safe_name(name: &str) -> String {
    const READABLE: usize = 60;
    let readable: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "._-".contains(c) {
                c
            } else {
                '-'
            }
        })
        .take(READABLE)
        .collect();
    let hash = hexadecimal(&Sha256::digest(name.as_bytes())[..6]);
    format!("{}-{hash}", readable.trim_start_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_plain_and_distinct_directories() {
        let names = [
            "smollm2:135m",
            "smollm2-135m",
            "SmolLM2:135m",
            "hf:a/b@refs/pr/1:x/y z.gguf",
            "../../etc",
            "",
            &"x".repeat(500),
            &"x".repeat(501),
        ];
        let safe: Vec<String> = names.iter().map(|name| safe_name(name)).collect();
        for (at, name) in safe.iter().enumerate() {
            assert!(name.len() <= 80 && !name.starts_with('.'), "{name}");
            assert!(!name.contains(['/', '\\', ':', ' ']), "{name}");
            let lower = name.to_lowercase();
            assert!(
                safe[..at].iter().all(|other| other.to_lowercase() != lower),
                "{name}"
            );
        }
    }

    #[test]
    fn a_hash_is_the_published_one() {
        let mut hasher = Hasher::default();
        hasher.update(b"a");
        hasher.update(b"bc");
        assert_eq!(hasher.bytes(), 3);
        assert_eq!(
            hasher.finish(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn more_than_the_disk_has_is_refused_with_both_numbers() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        assert!(ensure_space(directory.path(), 1).is_ok());
        if cfg!(unix) {
            let error = ensure_space(directory.path(), u64::MAX).expect_err("refused");
            assert_eq!(error.kind(), "disk_full");
            assert!(error.to_string().contains("MB free"), "{error}");
        }
    }
}
