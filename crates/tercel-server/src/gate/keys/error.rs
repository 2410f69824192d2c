//! What is wrong with keys.

use std::path::PathBuf;

/// What is wrong with a key or a file of keys.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeysError {
    /// The file cannot be read.
    #[error("cannot read the keys in `{}`: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Others than its owner may read or change the file.
    #[error("the keys in `{}` are open to others (mode {mode:03o})", path.display())]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file belongs to somebody else.
    #[error("`{}` belongs to another user (id {owner})", path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// A key is not as it must be.
    #[error("{place}: {problem}")]
    Invalid {
        /// The variable, or the file and line.
        place: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// Two keys have one name.
    #[error("{place}: there is a key `{id}` already")]
    SameId {
        /// The variable, or the file and line, of the second.
        place: String,
        /// The name.
        id: String,
    },
    /// Two keys have one secret, so that a bearer's name is unknown.
    #[error("{place}: the secret is that of the key `{id}`")]
    SameSecret {
        /// The variable, or the file and line, of the second.
        place: String,
        /// The name of the first.
        id: String,
    },
}

impl KeysError {
    /// The way out, in one line, where one is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Mode { path, .. } => Some(format!("run `chmod 600 {}`", path.display())),
            Self::Owner { path, .. } => Some(format!(
                "run `chown` on `{}`, or copy it as this user",
                path.display()
            )),
            Self::Invalid { .. } => Some(
                "a key is `id role secret`: letters, digits, `_`, `-` and `.`; `user` or `admin`; \
                 16 to 512 visible ASCII characters, such as `openssl rand -hex 32` gives"
                    .into(),
            ),
            Self::SameId { .. } | Self::SameSecret { .. } => Some("remove one of the two".into()),
            Self::File { .. } => None,
        }
    }
}
