//! Files of the Hugging Face Hub: listing, and downloading with resume.

use std::fmt::Write;
use std::path::Path;

use ureq::http::Method;

use super::SourceError;
use super::disk::{Hasher, ensure_space, hash_file};
use super::download::{Download, Partial, PartialState};
use super::fetch::{Expected, Fetched, Job};
use super::http::{Client, Failure, Head, Sink};
use super::listing::Listing;

/// Larger than any model file; what a server claims beyond it is an error or an attack.
pub(super) const LARGEST_FILE_BYTES: u64 = 1 << 40;
/// Drops after which even a download that moves forward is given up.
const MOST_CONNECTIONS: u32 = 100;

/// A file of a repository. The parts were checked when the reference or the catalog was read.
#[derive(Clone, Debug)]
pub(super) struct HubFile {
    pub(super) repo: String,
    pub(super) revision: Option<String>,
    pub(super) file: String,
}

impl HubFile {
    /// `org/repo[@revision]:file`, as messages show it.
    pub(super) fn place(&self) -> String {
        match &self.revision {
            Some(revision) => format!("{}@{revision}:{}", self.repo, self.file),
            None => format!("{}:{}", self.repo, self.file),
        }
    }
}

/// The Hub as one store sees it.
pub(super) struct Hub<'e> {
    client: Client,
    endpoint: &'e str,
    timeouts: super::Timeouts,
}

impl<'e> Hub<'e> {
    pub(super) fn new(environment: &'e super::Environment) -> Self {
        Self {
            client: Client::new(environment),
            endpoint: &environment.hub_endpoint,
            timeouts: environment.timeouts,
        }
    }

    /// The files of a repository, at the commit that the revision means now. Files with names that
    /// are not plain relative paths are left out.
    pub(super) fn list(
        &self,
        repo: &str,
        revision: Option<&str>,
        job: &mut Job<'_>,
    ) -> Result<Listing, SourceError> {
        let url = format!(
            "{}/api/models/{repo}/revision/{}?blobs=true",
            self.endpoint,
            percent_encoded(revision.unwrap_or("main"), false)
        );
        let page = self.page(repo);
        let body = self.patiently(job, |job| {
            let mut answer = Answer::new(job);
            let ended = self.client.exchange(Method::GET, &url, &[], &mut answer);
            let Answer { head, body, .. } = answer;
            if let Some(head) = head {
                self.accept(&head, repo, revision, None)?;
            }
            settle(&page, ended, false)?;
            Ok(body)
        })?;
        Listing::parse(&body).ok_or_else(|| failed(&page, "the answer is no file list"))
    }

    /// Downloads a file into `staging` and checks it; continues what an earlier try left there.
    pub(super) fn fetch(
        &self,
        file: &HubFile,
        expected: &Expected,
        staging: &Path,
        job: &mut Job<'_>,
    ) -> Result<Fetched, SourceError> {
        let partial = Partial::in_directory(staging);
        let fetched = self.patiently(job, |job| self.attempt(file, expected, &partial, job));
        let useless = matches!(
            &fetched,
            Err(SourceError::ChecksumMismatch { .. }
                | SourceError::DiskFull { .. }
                | SourceError::StoreUnwritable { .. })
        );
        // What the disk lacks is better given back, and nothing needs no continuing.
        if useless || (fetched.is_err() && partial.bytes() == 0) {
            partial.discard()?;
        }
        fetched
    }

    /// Repeats `step` while its failures may pass by themselves.
    fn patiently<T>(
        &self,
        job: &mut Job<'_>,
        mut step: impl FnMut(&mut Job<'_>) -> Result<T, Attempt>,
    ) -> Result<T, SourceError> {
        let mut fruitless = 0;
        let mut connections = 0;
        loop {
            connections += 1;
            match step(job) {
                Ok(value) => return Ok(value),
                Err(Attempt::Final(error)) => return Err(error),
                Err(Attempt::Again { error, progress }) => {
                    fruitless = if progress { 0 } else { fruitless + 1 };
                    if fruitless >= self.timeouts.attempts || connections >= MOST_CONNECTIONS {
                        return Err(error);
                    }
                    let wait = self.timeouts.backoff * 2_u32.pow(fruitless.min(6));
                    job.tracker.note(format!("{error}; trying again"));
                    job.pause(wait)?;
                }
            }
        }
    }

    /// One connection: asks what the file is, and downloads what is missing of it.
    fn attempt(
        &self,
        file: &HubFile,
        expected: &Expected,
        partial: &Partial,
        job: &mut Job<'_>,
    ) -> Result<Fetched, Attempt> {
        let url = format!(
            "{}/{}/resolve/{}/{}",
            self.endpoint,
            file.repo,
            percent_encoded(file.revision.as_deref().unwrap_or("main"), false),
            percent_encoded(&file.file, true)
        );
        let page = self.page(&file.repo);
        let promised = self.describe(&url, file, job)?;
        // A source that holds another file is found out before a byte of it is fetched.
        if let Some(size) = promised.is.size_bytes {
            expected.check(&file.place(), size, promised.is.sha256.as_deref())?;
        }
        let wanted = expected.or(&promised.is);
        let size_bytes = wanted.size_bytes;

        let mut state = partial.state().unwrap_or_default();
        let same = state.url == url && state.etag == promised.etag && state.etag.is_some();
        if !same {
            partial.discard()?;
            state = PartialState {
                url: url.clone(),
                etag: promised.etag.clone(),
                body_etag: None,
            };
            partial.remember(&state)?;
        }
        let have = partial.bytes();
        if let Some(size) = size_bytes {
            ensure_space(&partial.directory, size.saturating_sub(have))?;
        }
        let mut hasher = if have > 0 {
            hash_file(&partial.data, |_| job.check())?
        } else {
            Hasher::default()
        };
        if size_bytes != Some(have) {
            let mut download =
                Download::new(&page, file.place(), &wanted, partial, state, hasher, job)?;
            let headers = download.headers();
            let ended = self
                .client
                .exchange(Method::GET, &url, &headers, &mut download);
            if let Some(head) = &download.refused {
                self.accept(head, &file.repo, file.revision.as_deref(), Some(&file.file))?;
                return Err(failed(&page, &format!("HTTP status {}", head.status)).into());
            }
            settle(&page, ended, download.received || have > 0)?;
            hasher = download.finish()?;
        }

        let size_bytes = hasher.bytes();
        let sha256 = hasher.finish();
        wanted.check(&file.place(), size_bytes, Some(&sha256))?;
        wanted.check_git(&file.place(), &partial.data)?;
        let path = partial.complete()?;
        Ok(Fetched {
            path,
            size_bytes,
            sha256,
            checked: wanted.checked(),
            commit: promised.commit,
        })
    }

    /// What the Hub says about a file before sending it.
    fn describe(
        &self,
        url: &str,
        file: &HubFile,
        job: &mut Job<'_>,
    ) -> Result<Description, Attempt> {
        let mut answer = Answer::new(job);
        let ended = self.client.exchange(Method::HEAD, url, &[], &mut answer);
        let head = answer.head;
        settle(&self.page(&file.repo), ended, false)?;
        match head {
            // A server without HEAD says nothing; the GET will tell.
            Some(head) if !matches!(head.status, 405 | 501) => {
                self.accept(
                    &head,
                    &file.repo,
                    file.revision.as_deref(),
                    Some(&file.file),
                )?;
                Ok(Description::of(&head))
            }
            _ => Ok(Description::default()),
        }
    }

    /// The repository's page, as messages name it: without a password that the endpoint may hold.
    fn page(&self, repo: &str) -> String {
        let (scheme, rest) = self
            .endpoint
            .split_once("://")
            .unwrap_or(("https", self.endpoint));
        let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
        format!("{scheme}://{rest}/{repo}")
    }

    /// Turns the status codes of a refusal into errors.
    fn accept(
        &self,
        head: &Head,
        repo: &str,
        revision: Option<&str>,
        file: Option<&str>,
    ) -> Result<(), Attempt> {
        // The Hub answers 401 for a repository that does not exist and says so in a header.
        let code = head.header("x-error-code").unwrap_or_default();
        let what = match (head.status, code) {
            (_, "RepoNotFound") => "repository",
            (_, "RevisionNotFound") => "revision",
            (_, "EntryNotFound") => "file",
            (404, _) if file.is_some() => "file",
            (404, _) => "repository",
            (401 | 403, _) => {
                return Err(Attempt::Final(SourceError::Gated {
                    repo: repo.to_owned(),
                    status: head.status,
                    token_sent: self.client.has_token(),
                }));
            }
            (200 | 206 | 416, _) => return Ok(()),
            (status, _) => {
                let place = self.page(repo);
                let reason = format!("HTTP status {status}");
                return Err(match status {
                    429 | 408 | 500..=599 => again(&place, &reason, false),
                    _ => Attempt::Final(failed(&place, &reason)),
                });
            }
        };
        let mut place = repo.to_owned();
        if let Some(revision) = revision {
            place = format!("{place}@{revision}");
        }
        if let Some(file) = file {
            place = format!("{place}:{file}");
        }
        Err(Attempt::Final(SourceError::NotFoundOnHub { what, place }))
    }
}

/// A short response, kept whole.
struct Answer<'j, 'a> {
    job: &'j Job<'a>,
    head: Option<Head>,
    body: Vec<u8>,
}

impl<'j, 'a> Answer<'j, 'a> {
    fn new(job: &'j Job<'a>) -> Self {
        Self {
            job,
            head: None,
            body: Vec::new(),
        }
    }
}

impl Sink for Answer<'_, '_> {
    type Error = Attempt;

    fn poll(&mut self) -> Result<(), Attempt> {
        Ok(self.job.check()?)
    }

    fn head(&mut self, head: Head) -> Result<bool, Attempt> {
        let wanted = head.status == 200;
        self.head = Some(head);
        Ok(wanted)
    }

    fn chunk(&mut self, bytes: &[u8]) -> Result<(), Attempt> {
        const LARGEST_BYTES: usize = 16 << 20;
        if self.body.len() + bytes.len() > LARGEST_BYTES {
            let reason = "the answer is too long".to_owned();
            let place = self.job.model.clone();
            return Err(Attempt::Final(SourceError::DownloadFailed {
                place,
                reason,
            }));
        }
        self.body.extend_from_slice(bytes);
        Ok(())
    }
}

/// How a step ended that did not succeed.
pub(super) enum Attempt {
    Final(SourceError),
    Again {
        error: SourceError,
        /// Whether bytes arrived, so that the server is worth more patience.
        progress: bool,
    },
}

impl From<SourceError> for Attempt {
    fn from(error: SourceError) -> Self {
        Self::Final(error)
    }
}

pub(super) fn failed(place: &str, reason: &str) -> SourceError {
    SourceError::DownloadFailed {
        place: place.to_owned(),
        reason: reason.to_owned(),
    }
}

pub(super) fn again(place: &str, reason: &str, progress: bool) -> Attempt {
    Attempt::Again {
        error: failed(place, reason),
        progress,
    }
}

/// How an exchange ended. An unreachable server is only worth a second try if it delivered before.
fn settle(
    place: &str,
    ended: Result<(), Failure<Attempt>>,
    delivered: bool,
) -> Result<(), Attempt> {
    match ended {
        Ok(()) => Ok(()),
        Err(Failure::Stopped(attempt)) => Err(attempt),
        Err(Failure::Unreachable(reason)) if !delivered => {
            Err(Attempt::Final(failed(place, &reason)))
        }
        Err(Failure::Unreachable(reason)) => Err(again(place, &reason, false)),
        Err(Failure::Broken(reason)) => Err(again(place, &reason, delivered)),
    }
}

/// The Hub's own description of a file.
#[derive(Default)]
struct Description {
    is: Expected,
    etag: Option<String>,
    commit: Option<String>,
}

impl Description {
    fn of(head: &Head) -> Self {
        let etag = head.header("x-linked-etag").or_else(|| head.header("etag"));
        let bare = etag.map(|etag| {
            etag.trim_start_matches("W/")
                .trim_matches('"')
                .to_lowercase()
        });
        // Large files have their SHA-256 as the ETag, small ones the hash under which git keeps them.
        let of_length = |length: usize| {
            let digits = |text: &&String| text.len() == length && is_hexadecimal(text);
            bare.as_ref().filter(digits).cloned()
        };
        let size = head
            .header("x-linked-size")
            .or_else(|| head.header("content-length"));
        Self {
            is: Expected {
                size_bytes: size
                    .and_then(|size| size.parse().ok())
                    .filter(|size| *size <= LARGEST_FILE_BYTES),
                sha256: of_length(64),
                git_sha1: of_length(40),
            },
            etag: etag.map(str::to_owned),
            commit: head.header("x-repo-commit").map(str::to_owned),
        }
    }
}

fn is_hexadecimal(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Encodes what may not stand in a URL's path.
fn percent_encoded(text: &str, keep_slashes: bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if plain || (keep_slashes && byte == b'/') {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_hold_only_what_urls_may_hold() {
        assert_eq!(
            percent_encoded("a b/c+d(1).gguf", true),
            "a%20b/c%2Bd%281%29.gguf"
        );
        assert_eq!(percent_encoded("refs/pr/1", false), "refs%2Fpr%2F1");
    }
}
