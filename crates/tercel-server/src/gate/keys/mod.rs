//! Who may ask: keys, each with a name, a secret and a role.

mod error;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::Path;

use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

pub use error::KeysError;

/// Shorter secrets could be guessed.
const MIN_SECRET_BYTES: usize = 16;
const MAX_SECRET_BYTES: usize = 512;
const MAX_ID_BYTES: usize = 64;

/// What a key is good for. An administrator may do what a user may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// May ask the models.
    User,
    /// May also load and unload them: what is under `/admin`.
    Admin,
}

impl Role {
    /// Its name in files, variables and the log.
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Admin => "admin",
        }
    }

    fn named(name: &str) -> Option<Self> {
        [Self::User, Self::Admin]
            .into_iter()
            .find(|role| role.name().eq_ignore_ascii_case(name))
    }
}

/// The keys of a server. Each may be sent as it is (`Authorization: Bearer`, `x-api-key`) or used to
/// sign requests (`Authorization: ApiKey`). Secrets are in no `Debug` output and in no message.
#[derive(Clone, Default)]
pub struct Keys(BTreeMap<String, Key>);

#[derive(Clone)]
pub(super) struct Key {
    pub(super) role: Role,
    pub(super) secret: Vec<u8>,
    /// Of the secret: all are of one length, so comparing them tells nothing of it.
    digest: [u8; 32],
}

impl Keys {
    /// The keys among variables: `K_USER_1` holds the secret of the user's key `k_user_1`,
    /// `K_ADMIN_1` that of the administrator's key `k_admin_1`. Others are passed over.
    ///
    /// # Errors
    /// [`KeysError`] for a variable of such a name whose value is no secret.
    pub fn from_env(
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, KeysError> {
        let mut keys = Self::default();
        for (name, value) in variables {
            let Some(name) = name.to_str() else { continue };
            let Some((role, number)) = name.strip_prefix("K_").and_then(|it| it.split_once('_'))
            else {
                continue;
            };
            let role = match role {
                "USER" => Role::User,
                "ADMIN" => Role::Admin,
                _ => continue,
            };
            let is_number = |byte: u8| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b'_');
            if number.is_empty() || !number.bytes().all(is_number) {
                continue;
            }
            let place = format!("the variable `{name}`");
            // What is not UTF-8 fails the check of the characters.
            keys.add(
                place,
                &name.to_ascii_lowercase(),
                role,
                value.to_str().unwrap_or_default(),
            )?;
        }
        Ok(keys)
    }

    /// The keys of a file, one a line: `id role secret`. Empty lines and what follows a word that
    /// begins with `#` are comments. On Unix the file must be this user's and closed to all others
    /// (mode 0600 or 0400).
    ///
    /// # Errors
    /// [`KeysError`]; those of a line name it.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, KeysError> {
        let path = path.as_ref();
        let text = read_private(path)?;
        let mut keys = Self::default();
        for (number, line) in text.lines().enumerate() {
            let words = line
                .split_whitespace()
                .take_while(|word| !word.starts_with('#'));
            let words: Vec<&str> = words.collect();
            let place = format!("`{}` line {}", path.display(), number + 1);
            let invalid = |problem| KeysError::Invalid {
                place: place.clone(),
                problem,
            };
            match *words {
                [] => {}
                [id, role, secret] => {
                    let role = Role::named(role)
                        .ok_or_else(|| invalid("the role is neither `user` nor `admin`"))?;
                    keys.add(place, id, role, secret)?;
                }
                _ => return Err(invalid("it is not `id role secret`")),
            }
        }
        Ok(keys)
    }

    /// Adds a key.
    ///
    /// # Errors
    /// [`KeysError`] where the name or the secret is not as it must be, or is there already.
    pub fn insert(&mut self, id: &str, role: Role, secret: &str) -> Result<(), KeysError> {
        self.add(format!("the key `{}`", id.escape_debug()), id, role, secret)
    }

    /// Adds all keys of `other`.
    ///
    /// # Errors
    /// [`KeysError`] where a name or a secret is there already.
    pub fn merge(&mut self, other: Self) -> Result<(), KeysError> {
        for (id, key) in other.0 {
            self.put(format!("the key `{id}`"), id, key)?;
        }
        Ok(())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The key of this name.
    pub(super) fn named(&self, id: &str) -> Option<&Key> {
        self.0.get(id)
    }

    /// The key with this secret. How long it takes tells nothing of the secrets: all are compared.
    pub(super) fn with_secret(&self, secret: &[u8]) -> Option<(&str, Role)> {
        let digest: [u8; 32] = Sha256::digest(secret).into();
        let (mut found, mut at) = (Choice::from(0), 0_u64);
        for (index, key) in (0_u64..).zip(self.0.values()) {
            let equal = key.digest.ct_eq(&digest);
            at.conditional_assign(&index, equal);
            found |= equal;
        }
        if !bool::from(found) {
            return None;
        }
        let (id, key) = self.0.iter().nth(usize::try_from(at).ok()?)?;
        Some((id.as_str(), key.role))
    }

    fn add(&mut self, place: String, id: &str, role: Role, secret: &str) -> Result<(), KeysError> {
        let invalid = |place, problem| Err(KeysError::Invalid { place, problem });
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        if id.is_empty() || id.len() > MAX_ID_BYTES || !id.bytes().all(is_name) {
            return invalid(
                place,
                "the name of the key is not one word of 1 to 64 letters",
            );
        }
        if !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
            return invalid(
                place,
                "the secret has characters that cannot be sent in a header",
            );
        }
        if secret.len() < MIN_SECRET_BYTES {
            return invalid(place, "the secret is shorter than 16 characters");
        }
        if secret.len() > MAX_SECRET_BYTES {
            return invalid(place, "the secret is longer than 512 characters");
        }
        let digest = Sha256::digest(secret.as_bytes()).into();
        self.put(
            place,
            id.to_owned(),
            Key {
                role,
                secret: secret.into(),
                digest,
            },
        )
    }

    fn put(&mut self, place: String, id: String, key: Key) -> Result<(), KeysError> {
        if self.0.contains_key(&id) {
            return Err(KeysError::SameId { place, id });
        }
        if let Some((other, _)) = self.with_secret(&key.secret) {
            return Err(KeysError::SameSecret {
                place,
                id: other.to_owned(),
            });
        }
        self.0.insert(id, key);
        Ok(())
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.0.iter().map(|(id, key)| (id, key.role)))
            .finish()
    }
}

/// The text of a file that is this user's alone. What is checked is the file that was opened, so
/// that none can be put in its place in between.
fn read_private(path: &Path) -> Result<String, KeysError> {
    use std::io::Read;

    let failed = |source| KeysError::File {
        path: path.to_owned(),
        source,
    };
    let mut file = std::fs::File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(failed(std::io::Error::other("not a file")));
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let (mode, owner) = (metadata.mode() & 0o777, metadata.uid());
        if mode & 0o077 != 0 {
            return Err(KeysError::Mode {
                path: path.to_owned(),
                mode,
            });
        }
        if owner != rustix::process::geteuid().as_raw() {
            return Err(KeysError::Owner {
                path: path.to_owned(),
                owner,
            });
        }
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

#[cfg(test)]
mod tests;
