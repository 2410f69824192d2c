//! Text files that the user names.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use crate::failure::Failure;

/// Reads a text file of at most `most` bytes. `what` names it in errors.
///
/// Only a regular file is opened: a pipe could keep the command waiting, a device could go on
/// for ever.
pub(crate) fn read_text(what: &str, path: &Path, most: u64) -> Result<String, Failure> {
    let unreadable = |reason: &io::Error| Failure::unreadable(what, path, reason);
    let metadata = fs::metadata(path).map_err(|reason| unreadable(&reason))?;
    let refused =
        |problem: &str| Failure::new("unreadable", format!("{what} {} {problem}", path.display()));
    if !metadata.is_file() {
        return Err(refused("is no regular file"));
    }
    let mut text = String::new();
    let file = File::open(path).map_err(|reason| unreadable(&reason))?;
    file.take(most + 1)
        .read_to_string(&mut text)
        .map_err(|reason| unreadable(&reason))?;
    if text.len() as u64 > most {
        return Err(refused(&format!("has more than {most} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_of_some_size_are_read() {
        let this = Path::new(file!()).file_name().unwrap_or_default();
        let this = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(this);
        assert!(read_text("file", &this, 1 << 20).is_ok());
        for (path, most) in [
            (this.as_path(), 10),
            (Path::new("/"), 10),
            (Path::new("/no"), 10),
        ] {
            assert!(read_text("file", path, most).is_err(), "{}", path.display());
        }
        #[cfg(unix)]
        assert!(read_text("file", Path::new("/dev/zero"), 10).is_err());
    }
}
