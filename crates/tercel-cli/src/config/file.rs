//! Where the configuration is, how it is read, and how it is replaced.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::ConfigError;

/// Far more than a person writes.
const MOST_BYTES: u64 = 1 << 20;

/// `TERCEL_HOME/config.toml`, else a file in the platform's directory for configurations.
pub(crate) fn config_file() -> Option<PathBuf> {
    config_file_by(|name| env::var_os(name))
}

fn config_file_by(lookup: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let variable = |name: &str| lookup(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let directory = variable("TERCEL_HOME").or_else(|| {
        let directory = if cfg!(windows) {
            variable("APPDATA")?
        } else if cfg!(target_os = "macos") {
            variable("HOME")?.join("Library/Application Support")
        } else {
            variable("XDG_CONFIG_HOME")
                .filter(|path| path.is_absolute())
                .or_else(|| Some(variable("HOME")?.join(".config")))?
        };
        Some(directory.join("tercel"))
    })?;
    Some(directory.join("config.toml"))
}

/// The text of a file; `None` where there is none.
pub(super) fn read(file: &Path) -> Result<Option<String>, ConfigError> {
    let unreadable = |reason| ConfigError::Unreadable {
        file: file.to_owned(),
        reason,
    };
    let metadata = match fs::metadata(file) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    // A pipe could keep the command waiting.
    if !metadata.is_file() {
        return Err(unreadable(io::Error::other("it is no regular file")));
    }
    let mut text = String::new();
    let opened = File::open(file).map_err(unreadable)?;
    let mut opened = opened.take(MOST_BYTES + 1);
    opened.read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > MOST_BYTES {
        return Err(ConfigError::TooLarge {
            file: file.to_owned(),
            most: MOST_BYTES,
        });
    }
    Ok(Some(text))
}

/// Replaces a file, or makes it: after a crash either the old or the new text is there, whole. Its
/// permissions stay, and a link stays a link to it.
pub(super) fn replace(file: &Path, text: &str) -> Result<(), ConfigError> {
    write(file, text).map_err(|reason| ConfigError::Unwritable {
        file: file.to_owned(),
        reason,
    })
}

fn write(file: &Path, text: &str) -> io::Result<()> {
    let file = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    if let Some(directory) = file.parent() {
        fs::create_dir_all(directory)?;
    }
    let permissions = match fs::metadata(&file) {
        // Renaming over it would get around that.
        Ok(metadata) if metadata.permissions().readonly() => {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(metadata) => Some(metadata.permissions()),
        Err(_) => None,
    };
    let temporary = file.with_extension(format!("toml.{}.new", std::process::id()));
    let mut options = OpenOptions::new();
    let opened = options.write(true).create_new(true).open(&temporary)?;
    let written = fill(opened, text, permissions).and_then(|()| fs::rename(&temporary, &file));
    if written.is_err() {
        // It is the first error that counts.
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn fill(mut file: File, text: &str, permissions: Option<fs::Permissions>) -> io::Result<()> {
    file.write_all(text.as_bytes())?;
    if let Some(permissions) = permissions {
        file.set_permissions(permissions)?;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn the_place_follows_the_variables() {
        for (variables, expected) in [
            (&[][..], None),
            (&[("HOME", "/h")], Some("/h/.config/tercel/config.toml")),
            (
                &[("HOME", "/h"), ("XDG_CONFIG_HOME", "/x")],
                Some("/x/tercel/config.toml"),
            ),
            (
                &[("HOME", "/h"), ("XDG_CONFIG_HOME", "x")],
                Some("/h/.config/tercel/config.toml"),
            ),
            (
                &[("HOME", "/h"), ("TERCEL_HOME", "/t")],
                Some("/t/config.toml"),
            ),
            (
                &[("HOME", "/h"), ("TERCEL_HOME", "")],
                Some("/h/.config/tercel/config.toml"),
            ),
        ] {
            let lookup = |name: &str| {
                let mut all = variables.iter();
                let found = all.find(|(known, _)| *known == name)?;
                Some(OsString::from(found.1))
            };
            assert_eq!(config_file_by(lookup), expected.map(PathBuf::from));
        }
    }

    #[test]
    fn a_file_is_replaced_whole_and_leaves_nothing_behind() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("deep/config.toml");
        assert!(matches!(read(&file), Ok(None)));
        for text in ["threads = 1\n", "threads = 2\n"] {
            replace(&file, text).expect("written");
            assert_eq!(read(&file).expect("read").as_deref(), Some(text));
        }
        let files = fs::read_dir(directory.path().join("deep")).expect("a directory");
        assert_eq!(files.count(), 1);

        fs::write(&file, " ".repeat(MOST_BYTES as usize + 1)).expect("written");
        assert!(matches!(read(&file), Err(ConfigError::TooLarge { .. })));
        fs::write(&file, b"\xff").expect("written");
        assert!(matches!(read(&file), Err(ConfigError::Unreadable { .. })));
        let no_file = read(directory.path());
        assert!(matches!(no_file, Err(ConfigError::Unreadable { .. })));
    }

    #[test]
    #[cfg(unix)]
    fn permissions_and_links_stay() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let directory = tempfile::tempdir().expect("a directory");
        let (file, link) = (
            directory.path().join("mine.toml"),
            directory.path().join("config.toml"),
        );
        fs::write(&file, "").expect("written");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("set");
        symlink(&file, &link).expect("linked");
        replace(&link, "threads = 2\n").expect("written");
        assert_eq!(fs::read_to_string(&file).expect("read"), "threads = 2\n");
        let metadata = fs::metadata(&file).expect("it is there");
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        assert!(fs::symlink_metadata(&link).expect("there").is_symlink());

        fs::set_permissions(&file, fs::Permissions::from_mode(0o400)).expect("set");
        let refused = replace(&link, "threads = 3\n");
        assert!(matches!(refused, Err(ConfigError::Unwritable { .. })));
    }
}
