//! One file on its way: the bytes that are here, and the request for the rest.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::SourceError;
use super::disk::{Hasher, ensure_space, remove, write_atomically};
use super::error::write_error;
use super::fetch::{Expected, Job};
use super::http::{Head, Sink};
use super::hub::{Attempt, LARGEST_FILE_BYTES, again};

/// One connection that appends to a partial file.
pub(super) struct Download<'d, 'a> {
    page: &'d str,
    place: String,
    wanted: &'d Expected,
    partial: &'d Partial,
    state: PartialState,
    job: &'d mut Job<'a>,
    hasher: Hasher,
    output: File,
    total: Option<u64>,
    /// Whether this connection brought bytes.
    pub(super) received: bool,
    /// The head of a response that was no file.
    pub(super) refused: Option<Head>,
}

impl<'d, 'a> Download<'d, 'a> {
    /// Continues `partial`, whose bytes `hasher` has seen.
    pub(super) fn new(
        page: &'d str,
        place: String,
        wanted: &'d Expected,
        partial: &'d Partial,
        state: PartialState,
        hasher: Hasher,
        job: &'d mut Job<'a>,
    ) -> Result<Self, SourceError> {
        Ok(Self {
            page,
            place,
            wanted,
            partial,
            state,
            job,
            output: partial.append(hasher.bytes())?,
            hasher,
            total: wanted.size_bytes,
            received: false,
            refused: None,
        })
    }

    /// Asks for the missing bytes, if the file is still the one that the partial belongs to.
    pub(super) fn headers(&self) -> Vec<(&'static str, String)> {
        let mut headers = Vec::new();
        if self.hasher.bytes() > 0 {
            headers.push(("range", format!("bytes={}-", self.hasher.bytes())));
            if let Some(etag) = &self.state.body_etag {
                headers.push(("if-range", etag.clone()));
            }
        }
        headers
    }

    /// The hash of the whole file, or the wish for another connection.
    pub(super) fn finish(self) -> Result<Hasher, Attempt> {
        match self.total {
            Some(total) if self.hasher.bytes() < total => Err(again(
                self.page,
                "the connection ended before the file did",
                self.received,
            )),
            _ => Ok(self.hasher),
        }
    }

    fn start_over(&mut self, etag: Option<String>, length: Option<u64>) -> Result<(), Attempt> {
        self.output = self.partial.append(0)?;
        self.hasher = Hasher::default();
        // A weak tag does not promise equal bytes.
        self.state.body_etag = etag.filter(|etag| !etag.starts_with("W/"));
        self.partial.remember(&self.state)?;
        if let Some(length) = length {
            self.wanted.check(&self.place, length, None)?;
            ensure_space(&self.partial.directory, length)?;
        }
        self.total = self.total.or(length);
        Ok(())
    }

    fn carry_on(&mut self, etag: Option<&str>, range: Option<&str>) -> Result<(), Attempt> {
        let range = range.and_then(parse_content_range);
        let fits = range.is_some_and(|(start, whole)| {
            start == self.hasher.bytes()
                && (whole.is_none() || self.total.is_none() || whole == self.total)
        });
        if !fits || (self.state.body_etag.is_some() && etag != self.state.body_etag.as_deref()) {
            self.partial.discard()?;
            return Err(again(self.page, "the file changed on the server", false));
        }
        self.total = self.total.or(range.and_then(|(_, whole)| whole));
        Ok(())
    }
}

impl Sink for Download<'_, '_> {
    type Error = Attempt;

    fn poll(&mut self) -> Result<(), Attempt> {
        Ok(self.job.check()?)
    }

    fn head(&mut self, head: Head) -> Result<bool, Attempt> {
        let etag = head.header("etag").map(str::to_owned);
        match head.status {
            200 => {
                let length = head
                    .header("content-length")
                    .and_then(|text| text.parse().ok());
                self.start_over(etag, length)?;
            }
            206 if self.hasher.bytes() > 0 => {
                self.carry_on(etag.as_deref(), head.header("content-range"))?;
            }
            416 => {
                self.partial.discard()?;
                return Err(again(self.page, "the server cannot continue", false));
            }
            _ => {
                self.refused = Some(head);
                return Ok(false);
            }
        }
        self.job.downloading(self.hasher.bytes(), self.total);
        Ok(true)
    }

    fn chunk(&mut self, bytes: &[u8]) -> Result<(), Attempt> {
        let limit = self.total.unwrap_or(LARGEST_FILE_BYTES);
        if self.hasher.bytes() + bytes.len() as u64 > limit {
            return Err(Attempt::Final(SourceError::ChecksumMismatch {
                place: self.place.clone(),
                what: "size",
                found: format!("more than {limit}"),
                expected: limit.to_string(),
            }));
        }
        self.output
            .write_all(bytes)
            .map_err(|error| write_error(&self.partial.data, error))?;
        self.hasher.update(bytes);
        self.received = true;
        self.job.downloading(self.hasher.bytes(), self.total);
        Ok(())
    }
}

/// A download that may have been interrupted: the bytes, and beside them what they are part of.
pub(super) struct Partial {
    pub(super) directory: PathBuf,
    pub(super) data: PathBuf,
    state: PathBuf,
}

#[derive(Default, Serialize, Deserialize)]
pub(super) struct PartialState {
    pub(super) url: String,
    /// The Hub's name for the content.
    pub(super) etag: Option<String>,
    /// The name given by the server that sends the content, for `If-Range`.
    pub(super) body_etag: Option<String>,
}

impl Partial {
    pub(super) fn in_directory(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            data: directory.join("download.partial"),
            state: directory.join("download.partial.json"),
        }
    }

    pub(super) fn state(&self) -> Option<PartialState> {
        serde_json::from_slice(&std::fs::read(&self.state).ok()?).ok()
    }

    pub(super) fn remember(&self, state: &PartialState) -> Result<(), SourceError> {
        let text = serde_json::to_vec(state).expect("strings serialize");
        write_atomically(&self.state, &text)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.data.metadata().map_or(0, |metadata| metadata.len())
    }

    /// The data file cut to `length` bytes, writing at its end.
    pub(super) fn append(&self, length: u64) -> Result<File, SourceError> {
        let open = || {
            let file = OpenOptions::new()
                .create(true)
                .append(true)
                .open(&self.data)?;
            file.set_len(length)?;
            Ok(file)
        };
        open().map_err(|error| write_error(&self.data, error))
    }

    pub(super) fn discard(&self) -> Result<(), SourceError> {
        remove(&self.data)?;
        remove(&self.state)
    }

    /// Makes the data durable under another name, so that no later step takes it for a partial one.
    pub(super) fn complete(&self) -> Result<PathBuf, SourceError> {
        let path = self.directory.join("download.complete");
        let finish = || {
            OpenOptions::new()
                .append(true)
                .open(&self.data)?
                .sync_all()?;
            std::fs::rename(&self.data, &path)
        };
        finish().map_err(|error| write_error(&self.data, error))?;
        remove(&self.state)?;
        Ok(path)
    }
}

/// `bytes 5-9/10` gives 5 and 10; the total may be unknown.
fn parse_content_range(value: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = value.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    let total = if total == "*" {
        None
    } else {
        Some(total.parse().ok()?)
    };
    Some((start.parse().ok()?, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_or_refused() {
        for (text, expected) in [
            ("bytes 5-9/10", Some((5, Some(10)))),
            ("bytes 5-9/*", Some((5, None))),
            ("bytes */10", None),
            ("bytes 5-9", None),
            ("5-9/10", None),
            ("bytes -1-9/10", None),
            ("bytes 5-9/99999999999999999999999", None),
        ] {
            assert_eq!(parse_content_range(text), expected, "{text}");
        }
    }
}
