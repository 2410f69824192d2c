//! The format of a session file.
//!
//! All numbers are little endian. The file begins with [`MAGIC`] and the format (u32). Sections
//! follow: a tag of four bytes, the length (u64), SHA-256 of tag, length and content, and the
//! content. The sections are `HEAD` and `TALK`, both JSON, and `STAT` where there is a state, in
//! this order, and nothing else.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use tercel_text::Message;

use super::{Header, SessionError};

const MAGIC: [u8; 8] = *b"TRCLCHAT";
const FORMAT: u32 = 1;
const HEAD: Tag = *b"HEAD";
const TALK: Tag = *b"TALK";
const STATE: Tag = *b"STAT";

/// More than a header has.
const MOST_HEAD_BYTES: u64 = 64 << 10;
/// More than any conversation has that fits a context.
const MOST_TALK_BYTES: u64 = 64 << 20;

type Tag = [u8; 4];

/// Tag, length and hash.
const SECTION_BYTES: usize = 4 + 8 + 32;

/// Writes a session in the place of what is at `path`, and gives its size.
pub(super) fn write_file(
    path: &Path,
    header: &Header,
    messages: &[Message],
    state: Option<&[u8]>,
) -> Result<u64, SessionError> {
    let unwritable = |reason| SessionError::Unwritable {
        path: path.to_owned(),
        reason,
    };
    let head = serde_json::to_vec(header).map_err(|error| unwritable(error.into()))?;
    let talk = serde_json::to_vec(messages).map_err(|error| unwritable(error.into()))?;
    for (what, content, most) in [
        ("settings", &head, MOST_HEAD_BYTES),
        ("conversation", &talk, MOST_TALK_BYTES),
    ] {
        let bytes = content.len() as u64;
        if bytes > most {
            return Err(SessionError::TooLarge {
                path: path.to_owned(),
                what,
                bytes,
                most,
            });
        }
    }
    let sections = [
        (HEAD, Some(head.as_slice())),
        (TALK, Some(&talk)),
        (STATE, state),
    ];
    let sections = sections
        .into_iter()
        .filter_map(|(tag, content)| Some((tag, content?)));
    replace(path, |file| {
        let mut file = BufWriter::new(file);
        file.write_all(&MAGIC)?;
        file.write_all(&FORMAT.to_le_bytes())?;
        let mut bytes = (MAGIC.len() + 4) as u64;
        for (tag, content) in sections {
            file.write_all(&tag)?;
            file.write_all(&(content.len() as u64).to_le_bytes())?;
            file.write_all(&hash(tag, content))?;
            file.write_all(content)?;
            bytes += (SECTION_BYTES + content.len()) as u64;
        }
        file.flush()?;
        Ok(bytes)
    })
    .map_err(unwritable)
}

/// Reads a session section by section; nothing is believed before its hash was checked.
pub(super) struct SessionReader {
    path: PathBuf,
    file: File,
    /// Bytes of the file that are not read yet.
    left: u64,
}

impl SessionReader {
    /// Opens a regular file that begins as a session does.
    pub(super) fn open(path: &Path) -> Result<Self, SessionError> {
        let unreadable = |reason| SessionError::Unreadable {
            path: path.to_owned(),
            reason,
        };
        let not_a_session = || SessionError::NotASession {
            path: path.to_owned(),
        };
        // Before opening: to open a pipe would wait for its other end.
        if !fs::metadata(path).map_err(unreadable)?.is_file() {
            return Err(not_a_session());
        }
        let file = File::open(path).map_err(unreadable)?;
        let left = file.metadata().map_err(unreadable)?.len();
        let path = path.to_owned();
        let mut reader = Self { path, file, left };
        let magic = reader.array::<8>().map_err(|_| not_a_session())?;
        if magic != MAGIC {
            return Err(not_a_session());
        }
        let found = u32::from_le_bytes(reader.array()?);
        if found != FORMAT {
            return Err(SessionError::Format {
                path: reader.path,
                found,
                known: FORMAT,
            });
        }
        Ok(reader)
    }

    /// The first section.
    pub(super) fn header(&mut self) -> Result<Header, SessionError> {
        self.json(HEAD, MOST_HEAD_BYTES)
    }

    /// The second section.
    pub(super) fn messages(&mut self) -> Result<Vec<Message>, SessionError> {
        self.json(TALK, MOST_TALK_BYTES)
    }

    /// The third section, where there is one, of at most `most` bytes.
    pub(super) fn state(&mut self, most: u64) -> Result<Option<Vec<u8>>, SessionError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.section(STATE, most).map(Some)
    }

    /// Checks that nothing follows.
    pub(super) fn finish(self) -> Result<(), SessionError> {
        match self.left {
            0 => Ok(()),
            left => Err(self.damaged(format!("{left} bytes follow its end"))),
        }
    }

    fn json<T: DeserializeOwned>(&mut self, tag: Tag, most: u64) -> Result<T, SessionError> {
        let content = self.section(tag, most)?;
        serde_json::from_slice(&content)
            .map_err(|error| self.damaged(format!("{}: {error}", tag.escape_ascii())))
    }

    fn section(&mut self, tag: Tag, most: u64) -> Result<Vec<u8>, SessionError> {
        let name = tag.escape_ascii();
        let found: Tag = self.array()?;
        if found != tag {
            return Err(self.damaged(format!("{name} is missing")));
        }
        let length = u64::from_le_bytes(self.array()?);
        let expected: [u8; 32] = self.array()?;
        if length > self.left || length > most {
            let problem = format!(
                "{name} claims {length} bytes, {} are left and {most} allowed",
                self.left
            );
            return Err(self.damaged(problem));
        }
        // Memory grows with what is read, not with what is claimed.
        let mut content = Vec::new();
        let read = (&mut self.file).take(length).read_to_end(&mut content);
        read.map_err(|reason| self.unreadable(reason))?;
        self.left -= length;
        if content.len() as u64 != length || hash(tag, &content) != expected {
            return Err(self.damaged(format!("{name} is not what was written")));
        }
        Ok(content)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], SessionError> {
        if self.left < N as u64 {
            return Err(self.damaged("it is cut off".to_owned()));
        }
        let mut bytes = [0; N];
        let read = self.file.read_exact(&mut bytes);
        read.map_err(|reason| self.unreadable(reason))?;
        self.left -= N as u64;
        Ok(bytes)
    }

    fn damaged(&self, problem: String) -> SessionError {
        SessionError::Damaged {
            path: self.path.clone(),
            problem,
        }
    }

    fn unreadable(&self, reason: io::Error) -> SessionError {
        SessionError::Unreadable {
            path: self.path.clone(),
            reason,
        }
    }
}

fn hash(tag: Tag, content: &[u8]) -> [u8; 32] {
    let hash = Sha256::new()
        .chain_update(tag)
        .chain_update((content.len() as u64).to_le_bytes())
        .chain_update(content);
    hash.finalize().into()
}

/// Replaces what is at `path` by what `write` writes: after a crash either is there, whole. The
/// file is its owner's alone.
fn replace(path: &Path, write: impl FnOnce(&File) -> io::Result<u64>) -> io::Result<u64> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::other("it names no file"))?;
    let mut temporary = name.to_owned();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    temporary.push(format!(".{}-{count}.new", std::process::id()));
    let temporary = path.with_file_name(temporary);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(&temporary)?;
    let written = write(&file)
        .and_then(|bytes| file.sync_all().map(|()| bytes))
        .and_then(|bytes| fs::rename(&temporary, path).map(|()| bytes));
    if written.is_err() {
        // It is the first error that counts.
        let _ = fs::remove_file(&temporary);
    }
    written
}
