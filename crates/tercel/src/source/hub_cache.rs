//! The cache that the Hub's own tools keep, read but never written.
//!
//! Layout: `models--org--repo/refs/REVISION` names a commit, `snapshots/COMMIT/FILE` links to
//! `blobs/HASH`, where the hash of a large file is its SHA-256. A file has its link only once it
//! is complete.

use std::fs;
use std::path::Path;

use super::choose;
use super::fetch::Expected;
use super::layout::{SplitName, has_tokenizer, is_gguf};
use super::local::{self, LocalModel, ModelKind};

/// A model found in the cache.
pub(super) struct Cached {
    pub(super) model: LocalModel,
    /// The path inside the repository, unless it is the whole repository.
    pub(super) file: Option<String>,
}

/// Looks for a file, or for what would be chosen, all files of it. What does not fit `expected` is
/// passed over, and so is a large file of which the cache does not tell the hash that is expected.
pub(super) fn find(
    cache: &Path,
    repo: &str,
    revision: Option<&str>,
    file: Option<&str>,
    expected: &Expected,
) -> Option<Cached> {
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
    let names = local::file_names(&snapshot).ok()?;
    let ggufs: Vec<String> = names.iter().filter(|name| is_gguf(name)).cloned().collect();
    let file = match file {
        Some(file) if is_gguf(file) => Some(match SplitName::parse(file) {
            Some(split) => split.part(1),
            None => file.to_owned(),
        }),
        wanted => match choose::among(&ggufs, wanted) {
            Ok(chosen) => Some(chosen),
            Err(_) if wanted.is_none() && ggufs.iter().all(|name| choose::is_companion(name)) => {
                None
            }
            Err(_) => return None,
        },
    };
    let mut model = match &file {
        Some(file) => local::at(&snapshot.join(file)),
        // Its own tools fetch one file at a time; without a tokenizer it is no model yet.
        None if has_tokenizer(|name| names.iter().any(|other| other == name)) => {
            local::directory(&snapshot, &names)
        }
        None => return None,
    }
    .ok()?;
    for file in &mut model.files {
        file.sha256 = blob_hash(&file.path);
    }
    if model.kind == ModelKind::SingleGguf {
        model.sha256 = model.files.first().and_then(|file| file.sha256.clone());
    }
    let fits = expected
        .check("", model.size_bytes, model.sha256.as_deref())
        .is_ok();
    let known = expected.sha256.is_none() || model.sha256.is_some();
    (fits && known).then_some(Cached { model, file })
}

fn blob_hash(link: &Path) -> Option<String> {
    let target = fs::canonicalize(link).ok()?;
    let name = target.file_name()?.to_str()?;
    let is_sha256 = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_sha256.then(|| name.to_owned())
}
