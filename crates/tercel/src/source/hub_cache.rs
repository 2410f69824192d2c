//! The cache that the Hub's own tools keep, read but never written.
//!
//! Layout: `models--org--repo/refs/REVISION` names a commit, `snapshots/COMMIT/FILE` links to
//! `blobs/HASH`, where the hash of a large file is its SHA-256. A file has its link only once it
//! is complete.

use std::fs;
use std::path::{Path, PathBuf};

use super::choose;
use super::fetch::Expected;

/// A file found in the cache.
pub(super) struct CachedFile {
    pub(super) path: PathBuf,
    pub(super) size_bytes: u64,
    /// As the cache names the content; not computed here.
    pub(super) sha256: Option<String>,
    /// The path inside the repository.
    pub(super) file: String,
}

/// Looks for a file, or for the file that would be chosen. What does not fit `expected` is passed
/// over, and so is a large file of which the cache does not tell the hash that is expected.
pub(super) fn find(
    cache: &Path,
    repo: &str,
    revision: Option<&str>,
    file: Option<&str>,
    expected: &Expected,
) -> Option<CachedFile> {
    let revision = revision.unwrap_or("main");
    let directory = cache.join(format!("models--{}", repo.replace('/', "--")));
    let commit = match fs::read_to_string(directory.join("refs").join(revision)) {
        Ok(commit) => commit.trim().to_owned(),
        Err(_) => revision.to_owned(),
    };
    if commit.is_empty() || !commit.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    let snapshot = directory.join("snapshots").join(commit);
    let file = match file {
        Some(file) if file.to_lowercase().ends_with(".gguf") => file.to_owned(),
        wanted => choose::among(&gguf_files(&snapshot), wanted).ok()?,
    };
    let path = snapshot.join(&file);
    let metadata = fs::metadata(&path).ok().filter(fs::Metadata::is_file)?;
    let sha256 = blob_hash(&path);
    let fits = expected
        .check("", metadata.len(), sha256.as_deref())
        .is_ok();
    let known = expected.sha256.is_none() || sha256.is_some();
    (fits && known).then_some(CachedFile {
        path,
        size_bytes: metadata.len(),
        sha256,
        file,
    })
}

fn gguf_files(snapshot: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(snapshot) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.to_lowercase().ends_with(".gguf"))
        .collect()
}

fn blob_hash(link: &Path) -> Option<String> {
    let target = fs::canonicalize(link).ok()?;
    let name = target.file_name()?.to_str()?;
    let is_sha256 = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_sha256.then(|| name.to_owned())
}
