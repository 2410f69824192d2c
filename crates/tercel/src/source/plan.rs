//! From a reference to what will be fetched: a name in the store, a file, and its sources.

use super::catalog::{Catalog, CatalogEntry, CatalogSource};
use super::choose;
use super::environment::Environment;
use super::fetch::{Expected, Job};
use super::hub::Hub;
use super::record::FILE_NAME;
use super::{ModelRef, SourceError};

/// What to fetch, from where, and what it must be.
pub(super) struct Plan {
    pub(super) name: String,
    pub(super) file: String,
    pub(super) licence: Option<String>,
    pub(super) expected: Expected,
    pub(super) sources: Vec<CatalogSource>,
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
                Ok(Self {
                    name: name.clone(),
                    file: entry.file.clone(),
                    licence: Some(entry.licence.clone()),
                    expected: entry.expected(),
                    sources: entry.sources.clone(),
                })
            }
            ModelRef::Hub {
                repo,
                revision,
                file,
            } => {
                let revision = revision.as_deref();
                let file = match file {
                    Some(file) if file.to_lowercase().ends_with(".gguf") => file.clone(),
                    wanted => {
                        let hub = Hub::new(environment);
                        let files = hub.list(repo, revision, job)?;
                        let chosen =
                            choose::among(&files, wanted.as_deref()).map_err(|detail| {
                                SourceError::NoGgufInRepository {
                                    repo: repo.clone(),
                                    detail,
                                }
                            })?;
                        job.tracker.note(format!("{repo}: chose {chosen}"));
                        chosen
                    }
                };
                if choose::is_split(&file) {
                    return Err(SourceError::NoGgufInRepository {
                        repo: repo.clone(),
                        detail: "splits this model over several files, which is not supported yet"
                            .to_owned(),
                    });
                }
                Ok(Self {
                    name: hub_name(repo, revision, Some(&file)),
                    file: plain_file_name(&file),
                    licence: None,
                    expected: Expected::default(),
                    sources: vec![CatalogSource::Hub {
                        repo: repo.clone(),
                        revision: revision.map(str::to_owned),
                        file,
                        unverified: false,
                    }],
                })
            }
        }
    }
}

impl CatalogEntry {
    pub(super) fn expected(&self) -> Expected {
        Expected {
            size_bytes: Some(self.size_bytes),
            sha256: Some(self.sha256.clone()),
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
            } => hub_name(repo, revision.as_deref(), Some(file)),
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
fn plain_file_name(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    let plain: String = name
        .chars()
        .map(|c| {
            if c.is_alphanumeric() || "._-+()=, ".contains(c) {
                c
            } else {
                '-'
            }
        })
        .take(150)
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
