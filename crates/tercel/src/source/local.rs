//! A model on this machine: one file, the parts of one, or a directory.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::SourceError;
use super::error::read_error;
use super::layout::{
    CONFIG, INDEX, LARGEST_INDEX_BYTES, SplitName, WEIGHTS, is_gguf, is_shard_name, shards,
    small_files,
};

/// A model on this machine, with every file that it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LocalModel {
    /// The catalog name, the full Hub reference, or the name of the file or directory.
    pub name: String,
    /// What to open: the GGUF file, the first part of a split one, or the directory.
    pub path: PathBuf,
    /// What is there.
    pub kind: ModelKind,
    /// The files of the model; the parts of a split one in their order.
    pub files: Vec<LocalFile>,
    /// The size of all files together.
    pub size_bytes: u64,
    /// Where it came from, in words.
    pub source: String,
    /// The licence, where known.
    pub licence: Option<String>,
    /// The SHA-256 of a model of one file, where known. [`LocalFile::sha256`] has that of each.
    pub sha256: Option<String>,
    /// Whether it was there already.
    pub cached: bool,
}

/// How a model is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ModelKind {
    /// One GGUF file.
    SingleGguf,
    /// A GGUF file in parts: `name-00001-of-00003.gguf` and those beside it.
    SplitGguf,
    /// A directory with `config.json` and safetensors files, as Transformers and MLX write it.
    Directory,
}

impl ModelKind {
    /// The kind in words.
    pub fn name(self) -> &'static str {
        match self {
            Self::SingleGguf => "GGUF file",
            Self::SplitGguf => "split GGUF file",
            Self::Directory => "safetensors directory",
        }
    }
}

/// A file of a [`LocalModel`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LocalFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its size.
    pub size_bytes: u64,
    /// Its SHA-256 in lower-case hexadecimal, if it was computed or given when it was fetched.
    pub sha256: Option<String>,
    /// What it was compared with when it was fetched.
    pub checked: Checked,
}

/// What a file was compared with when it was fetched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Checked {
    /// The SHA-256 that the catalog or the server gives.
    Sha256,
    /// The hash under which git keeps it; the Hub gives no other for small files.
    GitSha1,
    /// The size alone: nobody gave a hash.
    Size,
    /// Nothing, or it is not on record.
    #[default]
    #[serde(other)]
    Unknown,
}

/// The model at a path that the user gave: a file, any part of a split one, or a directory with
/// one model in it.
pub(crate) fn at(path: &Path) -> Result<LocalModel, SourceError> {
    let metadata = fs::metadata(path).map_err(|reason| read_error(path, reason))?;
    if !metadata.is_dir() {
        return match path.parent() {
            // Weights alone are no model; what makes them one lies beside them.
            Some(parent) if path.extension().is_some_and(|end| end == "safetensors") => {
                let parent = if parent.as_os_str().is_empty() {
                    Path::new(".")
                } else {
                    parent
                };
                directory(parent, &file_names(parent)?)
            }
            _ => gguf(path),
        };
    }
    let names = file_names(path)?;
    let mut models: Vec<&String> = names.iter().filter(|name| is_gguf(name)).collect();
    models.sort();
    // The parts of one model are one model, named by the first that is there.
    models.dedup_by_key(|name| match SplitName::parse(name) {
        Some(split) => (split.stem, split.count),
        None => ((*name).clone(), 0),
    });
    match models.as_slice() {
        [one] => gguf(&path.join(one)),
        [] => directory(path, &names),
        several => Err(SourceError::AmbiguousDirectory {
            path: path.to_owned(),
            files: several.iter().map(|name| (*name).clone()).collect(),
        }),
    }
}

/// The model of a GGUF file: itself, or with all other parts.
fn gguf(path: &Path) -> Result<LocalModel, SourceError> {
    let name = path.file_name().unwrap_or(path.as_os_str());
    let Some(split) = name.to_str().and_then(SplitName::parse) else {
        let name = path.file_stem().unwrap_or(name).to_string_lossy();
        return whole(&name, ModelKind::SingleGguf, path, &[path.to_owned()]);
    };
    let mut parts = Vec::new();
    for part in split.parts() {
        let beside = path.with_file_name(&part);
        if !beside.is_file() {
            return Err(SourceError::MissingFile {
                path: beside,
                needed_by: path.to_owned(),
            });
        }
        parts.push(beside);
    }
    whole(
        &split.stem,
        ModelKind::SplitGguf,
        &path.with_file_name(split.part(1)),
        &parts,
    )
}

/// The model of a directory without GGUF files.
pub(super) fn directory(path: &Path, names: &[String]) -> Result<LocalModel, SourceError> {
    let has = |name: &str| names.iter().any(|other| other == name);
    let weights: Vec<&String> = names.iter().filter(|name| is_shard_name(name)).collect();
    if !has(CONFIG) || (weights.is_empty() && !has(INDEX)) {
        return Err(SourceError::EmptyDirectory {
            path: path.to_owned(),
            detail: match (has(CONFIG), weights.is_empty()) {
                (true, _) => "no .gguf file, and no .safetensors file beside config.json",
                (false, false) => "no .gguf file, and no config.json beside its .safetensors files",
                (false, true) => "no .gguf file, and no config.json with .safetensors files",
            },
        });
    }
    let weights = if has(INDEX) {
        of_index(path, has)?
    } else if has(WEIGHTS) {
        vec![WEIGHTS.to_owned()]
    } else {
        weights.into_iter().cloned().collect()
    };
    let index = has(INDEX).then_some(INDEX);
    let files: Vec<PathBuf> = small_files(has)
        .into_iter()
        .chain(index)
        .chain(weights.iter().map(String::as_str))
        .map(|name| path.join(name))
        .collect();
    // `.` and `..` have no name of their own.
    let full = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let name = full
        .file_name()
        .unwrap_or(path.as_os_str())
        .to_string_lossy();
    whole(&name, ModelKind::Directory, path, &files)
}

/// The weights that the index names, all of them there.
fn of_index(path: &Path, has: impl Fn(&str) -> bool) -> Result<Vec<String>, SourceError> {
    let index = path.join(INDEX);
    let bytes = fs::metadata(&index)
        .and_then(|metadata| match metadata.len() {
            0..=LARGEST_INDEX_BYTES => fs::read(&index),
            _ => Err(std::io::Error::other("it is too large")),
        })
        .map_err(|reason| read_error(&index, reason))?;
    let named = shards(&bytes).map_err(|reason| SourceError::InvalidIndex {
        place: index.display().to_string(),
        reason,
    })?;
    match named.iter().find(|name| !has(name)) {
        Some(missing) => Err(SourceError::MissingFile {
            path: path.join(missing),
            needed_by: index,
        }),
        None => Ok(named),
    }
}

/// The names of the files in a directory, links to files included.
pub(super) fn file_names(path: &Path) -> Result<Vec<String>, SourceError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(|reason| read_error(path, reason))? {
        let entry = entry.map_err(|reason| read_error(path, reason))?;
        // What is not UTF-8 is no name of a part, and a name given by hand never gets here.
        if let Ok(name) = entry.file_name().into_string()
            && entry.path().is_file()
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn whole(
    name: &str,
    kind: ModelKind,
    path: &Path,
    files: &[PathBuf],
) -> Result<LocalModel, SourceError> {
    let mut found = Vec::new();
    for path in files {
        let metadata = fs::metadata(path).map_err(|reason| read_error(path, reason))?;
        found.push(LocalFile {
            path: path.clone(),
            size_bytes: metadata.len(),
            sha256: None,
            checked: Checked::Unknown,
        });
    }
    Ok(LocalModel {
        name: name.to_owned(),
        path: path.to_owned(),
        kind,
        size_bytes: total(&found),
        files: found,
        source: match kind {
            ModelKind::Directory => "directory",
            ModelKind::SingleGguf | ModelKind::SplitGguf => "file",
        }
        .to_owned(),
        licence: None,
        sha256: None,
        cached: true,
    })
}

/// The size of all files together.
pub(super) fn total(files: &[LocalFile]) -> u64 {
    files
        .iter()
        .fold(0, |sum, file| file.size_bytes.saturating_add(sum))
}
