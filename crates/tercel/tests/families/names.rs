//! All families, for tests that go through them.

use std::fs;

use super::families::checkpoints;

/// The names of all checkpoints.
pub(crate) fn names() -> Vec<String> {
    let entries = fs::read_dir(checkpoints()).expect("a folder");
    let folders = entries
        .map(|entry| entry.expect("an entry"))
        .filter(|entry| entry.path().is_dir());
    let mut names: Vec<_> = folders
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
