//! The text by which a user names a model.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::{Catalog, SourceError};

/// Where a model comes from, as the user names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ModelRef {
    /// A GGUF file, any part of a split one, or a directory with one model.
    Path(PathBuf),
    /// A repository on the Hugging Face Hub, or a file of it.
    Hub {
        /// `org/repo`.
        repo: String,
        /// A branch, tag or commit; `main` if not given.
        revision: Option<String>,
        /// A file, or a quantization such as `Q8_0`; chosen by Tercel if not given.
        file: Option<String>,
    },
    /// A name of the catalog, or of a family in it.
    Catalog(String),
}

impl ModelRef {
    /// Reads a reference: an existing path wins, then `hf:org/repo[@revision][:file]`, then a name
    /// of `catalog`, then a plain `org/repo`.
    ///
    /// # Errors
    /// [`SourceError::PathNotFound`] for what can only be a path,
    /// [`SourceError::InvalidReference`] for a malformed Hub reference,
    /// [`SourceError::UnknownModel`] for anything else.
    pub fn parse(text: &str, catalog: &Catalog) -> Result<Self, SourceError> {
        if text.trim().is_empty() {
            return Err(SourceError::InvalidReference {
                text: text.to_owned(),
                reason: "it is empty".to_owned(),
            });
        }
        if let Some(reference) = text.strip_prefix("hf:") {
            return parse_hub(reference);
        }
        let path = Path::new(text);
        if path.exists() {
            return Ok(Self::Path(path.to_owned()));
        }
        let known = catalog.resolve(text).is_some();
        if !known && is_path_like(text) {
            return Err(SourceError::PathNotFound {
                path: path.to_owned(),
            });
        }
        if !known && text.contains('/') {
            return parse_hub(text);
        }
        catalog
            .lookup(text)
            .map(|entry| Self::Catalog(entry.name.clone()))
    }
}

impl ModelRef {
    /// Checks a reference that may not have come from [`ModelRef::parse`].
    pub(super) fn check(&self) -> Result<(), SourceError> {
        let Self::Hub {
            repo,
            revision,
            file,
        } = self
        else {
            return Ok(());
        };
        check_hub_parts(repo, revision.as_deref(), file.as_deref()).map_err(|reason| {
            SourceError::InvalidReference {
                text: self.to_string(),
                reason,
            }
        })
    }
}

impl FromStr for ModelRef {
    type Err = SourceError;

    /// [`ModelRef::parse`] with the catalog that is compiled in.
    fn from_str(text: &str) -> Result<Self, SourceError> {
        Self::parse(text, Catalog::builtin())
    }
}

impl fmt::Display for ModelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Catalog(name) => f.write_str(name),
            Self::Hub {
                repo,
                revision,
                file,
            } => {
                write!(f, "hf:{repo}")?;
                if let Some(revision) = revision {
                    write!(f, "@{revision}")?;
                }
                match file {
                    Some(file) => write!(f, ":{file}"),
                    None => Ok(()),
                }
            }
        }
    }
}

/// Checks the parts of a Hub reference. They become URLs and directory names, so only what the Hub
/// itself allows gets through.
pub(super) fn check_hub_parts(
    repo: &str,
    revision: Option<&str>,
    file: Option<&str>,
) -> Result<(), String> {
    let plain = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    let mut segments = repo.split('/');
    let (Some(owner), Some(name), None) = (segments.next(), segments.next(), segments.next())
    else {
        return Err(format!("`{repo}` is not of the form org/repo"));
    };
    for part in [owner, name] {
        if part.is_empty() || part.len() > 96 || part.starts_with(['.', '-']) || !plain(part) {
            return Err(format!("`{part}` is no name of an owner or repository"));
        }
        if part.contains("..") {
            return Err(format!("`{part}` holds `..`"));
        }
    }
    if let Some(revision) = revision {
        let good = revision.len() <= 256
            && is_relative_path(revision)
            && revision
                .split('/')
                .all(|part| plain(part) && !part.contains(".."));
        if !good {
            return Err(format!("`{}` is no revision", revision.escape_default()));
        }
    }
    if let Some(file) = file
        && !(file.len() <= 512 && is_relative_path(file))
    {
        return Err(format!(
            "`{}` is no file of a repository",
            file.escape_default()
        ));
    }
    Ok(())
}

fn is_relative_path(path: &str) -> bool {
    path.split('/')
        .all(|part| !part.is_empty() && part != "." && part != "..")
        && !path.contains(|c: char| c.is_control() || "\\:*?\"<>|".contains(c))
}

/// What nobody would call a repository: `./x`, `/x`, `~/x`, `C:\x`, `a/b/c`, `dir/file.gguf`.
fn is_path_like(text: &str) -> bool {
    text.starts_with(['.', '/', '~'])
        || text.contains('\\')
        || text.to_lowercase().ends_with(".gguf") && !text.contains(':')
        || text
            .split(['@', ':'])
            .next()
            .is_some_and(|repo| repo.matches('/').count() > 1)
}

fn parse_hub(reference: &str) -> Result<ModelRef, SourceError> {
    let (place, file) = match reference.split_once(':') {
        Some((place, file)) => (place, Some(file)),
        None => (reference, None),
    };
    let (repo, revision) = match place.split_once('@') {
        Some((repo, revision)) => (repo, Some(revision)),
        None => (place, None),
    };
    let model = ModelRef::Hub {
        repo: repo.to_owned(),
        revision: revision.map(str::to_owned),
        file: file.map(str::to_owned),
    };
    model.check()?;
    Ok(model)
}
