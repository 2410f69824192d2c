//! From a reference to what will be fetched: a name in the store, and sources.

use super::catalog::{Catalog, CatalogEntry, CatalogSource};
use super::environment::Environment;
use super::fetch::{Expected, Job};
use super::hub::Hub;
use super::layout::{SplitName, is_gguf};
use super::listing::Selection;
use super::record::FILE_NAME;
use super::{ModelRef, SourceError};

/// What to fetch, from where, and what it must be.
pub(super) struct Plan {
    pub(super) name: String,
    pub(super) licence: Option<String>,
    /// The name and the properties of the one file that the catalog pins.
    pub(super) pin: Option<(String, Expected)>,
    pub(super) sources: Vec<CatalogSource>,
    /// What of the first source is to be fetched, where that is known already.
    pub(super) selection: Option<Selection>,
}

impl Plan {
    /// Works out what to fetch; for a repository without a file this asks the Hub.
    pub(super) fn of(
        model: &ModelRef,
        catalog: &Catalog,
        environment: &Environment,
        job: &mut Job<'_>,
    ) -> Result<Self, SourceError> {
        match model {
            ModelRef::Path(path) => Err(SourceError::PathNotFound { path: path.clone() }),
            ModelRef::Catalog(name) => {
                let entry = catalog.lookup(name)?;
                let pin = entry.file.clone().map(|file| (file, entry.expected()));
                Ok(Self {
                    name: entry.name.clone(),
                    licence: Some(entry.licence.clone()),
                    pin,
                    sources: entry.sources.clone(),
                    selection: None,
                })
            }
            ModelRef::Hub {
                repo,
                revision,
                file,
            } => {
                let hub = Hub::new(environment);
                let (revision, file) = (revision.as_deref(), file.as_deref());
                let selection = select(&hub, repo, revision, file, None, job)?;
                Ok(Self {
                    name: hub_name(repo, revision, selection.file()),
                    licence: None,
                    pin: None,
                    sources: vec![CatalogSource::Hub {
                        repo: repo.clone(),
                        revision: revision.map(str::to_owned),
                        file: file.map(str::to_owned),
                        unverified: false,
                    }],
                    selection: Some(selection),
                })
            }
        }
    }
}

/// What of a repository is to be fetched. A single file that is named needs no listing.
pub(super) fn select(
    hub: &Hub<'_>,
    repo: &str,
    revision: Option<&str>,
    wanted: Option<&str>,
    pin: Option<&(String, Expected)>,
    job: &mut Job<'_>,
) -> Result<Selection, SourceError> {
    if let Some(file) = wanted
        && is_gguf(file)
        && SplitName::parse(file).is_none()
    {
        let (name, expected) = pin
            .cloned()
            .unwrap_or_else(|| (plain_file_name(file), Expected::default()));
        return Ok(Selection::one(file, name, expected));
    }
    let listing = hub.list(repo, revision, job)?;
    let selection = Selection::of(repo, &listing, wanted)?;
    if let Some(chosen) = selection.file()
        && wanted != Some(chosen)
    {
        job.tracker.note(format!("{repo}: chose {chosen}"));
    }
    Ok(selection)
}

impl CatalogEntry {
    pub(super) fn expected(&self) -> Expected {
        Expected {
            size_bytes: self.size_bytes,
            sha256: self.sha256.clone(),
            git_sha1: None,
        }
    }
}

impl CatalogSource {
    /// The source in words, for notes, errors and records.
    pub(super) fn place(&self) -> String {
        match self {
            Self::Hub {
                repo,
                revision,
                file,
                ..
            } => hub_name(repo, revision.as_deref(), file.as_deref()),
            Self::Pypi { parts } => match parts.as_slice() {
                [] => "PyPI".to_owned(),
                [one] => format!("PyPI package {}", one.requirement),
                [first, .., last] => {
                    format!(
                        "PyPI packages {} to {}",
                        first.requirement, last.requirement
                    )
                }
            },
        }
    }
}

/// The name under which a model is stored if the reference is complete, else an alias of it.
pub(super) fn full_name(model: &ModelRef) -> String {
    match model {
        ModelRef::Hub {
            repo,
            revision,
            file,
        } => hub_name(repo, revision.as_deref(), file.as_deref()),
        other => other.to_string(),
    }
}

/// `main` is what no revision means.
pub(super) fn hub_name(repo: &str, revision: Option<&str>, file: Option<&str>) -> String {
    ModelRef::Hub {
        repo: repo.to_owned(),
        revision: revision
            .filter(|revision| *revision != "main")
            .map(str::to_owned),
        file: file.map(str::to_owned),
    }
    .to_string()
}

/// The last part of a path in a repository, as a name that every file system takes.
pub(super) fn plain_file_name(file: &str) -> String {
    const MOST_CHARACTERS: usize = 150;
    let name = file.rsplit('/').next().unwrap_or(file);
    // The end tells the parts of a model apart, and what the file is.
    let plain: String = name
        .chars()
        .skip(name.chars().count().saturating_sub(MOST_CHARACTERS))
        .map(|c| {
            if c.is_alphanumeric() || "._-+()=, ".contains(c) {
                c
            } else {
                '-'
            }
        })
        .collect();
    let plain = plain.trim_start_matches('.');
    if plain.is_empty() || plain == FILE_NAME {
        "model.gguf".into()
    } else {
        plain.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_of_repositories_become_plain() {
        for (file, expected) in [
            ("m-Q4_0.gguf", "m-Q4_0.gguf"),
            ("sub/dir/m (1).gguf", "m (1).gguf"),
            (".hidden.gguf", "hidden.gguf"),
            ("a|b\u{1}.gguf", "a-b-.gguf"),
            ("d/...", "model.gguf"),
            ("model.json", "model.gguf"),
        ] {
            assert_eq!(plain_file_name(file), expected);
        }
        let long = plain_file_name(&format!("{}-00001-of-00002.gguf", "x".repeat(300)));
        assert!(
            long.len() == 150 && long.ends_with("x-00001-of-00002.gguf"),
            "{long}"
        );
    }

    #[test]
    fn main_and_no_revision_are_one_name() {
        assert_eq!(
            hub_name("a/b", Some("main"), Some("c")),
            hub_name("a/b", None, Some("c"))
        );
        assert_ne!(
            hub_name("a/b", Some("v1"), None),
            hub_name("a/b", None, None)
        );
    }
}
