//! The models that this machine has, and the way of a new one into their midst.
//!
//! Layout below the root: `models/NAME/` holds the files and their record; `staging/NAME/` what is
//! being fetched, owned by whoever holds the lock `staging/NAME.lock`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::catalog::{Catalog, CatalogSource};
use super::deliver::{self, Delivered};
use super::disk::{bytes_below, hash_file, make_directory, remove, safe_name, sync_directory};
use super::environment::Environment;
use super::error::write_error;
use super::fetch::{Control, Expected, Job};
use super::hub_cache;
use super::local::{self, LocalModel};
use super::lock::ModelLock;
use super::plan::{Plan, full_name, hub_name};
use super::record::{self, Record, StoredFile};
use super::{ModelRef, SourceError};

/// The model store: one directory of this machine.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
    environment: Environment,
    catalog: Catalog,
}

/// An entry of the store that is no model any more.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DamagedModel {
    /// The name of the model, or of its directory where the record does not tell.
    pub name: String,
    /// Whether the name is one that can be fetched again.
    pub fetchable: bool,
    /// Where it lies.
    pub directory: PathBuf,
    /// What is wrong with it, in words.
    pub reason: String,
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
            return local::at(path).map(Some);
        }
        let name = self.name_of(model);
        let expected = match model {
            ModelRef::Catalog(name) => self.catalog.lookup(name)?.expected(),
            _ => Expected::default(),
        };
        if let Some((directory, record)) = self.stored(&name)
            // A newer catalog may want another file under the same name.
            && record.fits(&expected)
        {
            return Ok(Some(record.model(&directory, true)));
        }
        self.in_hub_cache(model, &expected)
    }

    /// Finds a model, or fetches it from its first source that works. Returns complete files that
    /// were checked against the sizes and hashes that the catalog or the server give; a model of
    /// several files appears when all of them are there.
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
        let name = self.name_of(model);
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
                .pin
                .as_ref()
                .is_none_or(|(_, expected)| record.fits(expected))
        {
            if let Some(alias) = alias.take()
                && !record.answers_to(&alias)
            {
                record.aliases.push(alias);
                record.write(&directory)?;
            }
            return Ok(record.model(&directory, true));
        }
        make_directory(&staging)?;
        self.remove_abandoned(&staging);
        let installed = deliver::from_first(&plan, &staging, &self.environment, &mut job)
            .and_then(|delivered| self.install(&plan, &staging, delivered, alias, &mut job));
        if installed.is_err() {
            // Wheels, whole files and partial downloads stay, to continue from; an empty folder
            // does not.
            let _ = remove(&staging.join("ready"));
            for folder in ["wheels", deliver::FINISHED] {
                let _ = fs::remove_dir(staging.join(folder));
            }
            let _ = fs::remove_dir(&staging);
        }
        installed
    }

    /// The models of the store, by name. A damaged one is not among them, but among
    /// [`Store::damaged`].
    ///
    /// # Errors
    /// If the directory exists but cannot be read.
    pub fn list(&self) -> Result<Vec<LocalModel>, SourceError> {
        let mut models: Vec<LocalModel> = self
            .entries()?
            .iter()
            .filter_map(|directory| Some(Record::read(directory).ok()?.model(directory, true)))
            .collect();
        models.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(models)
    }

    /// What lies among the models and is none, because a file or its record is not whole. To fetch
    /// the model of that name repairs it; [`Store::remove_damaged`] gives the space back.
    ///
    /// # Errors
    /// If the directory exists but cannot be read.
    pub fn damaged(&self) -> Result<Vec<DamagedModel>, SourceError> {
        let mut damaged: Vec<DamagedModel> = self
            .entries()?
            .into_iter()
            .filter_map(|directory| {
                let reason = Record::read(&directory).err()?;
                let folder = directory.file_name()?.to_string_lossy().into_owned();
                // The folder is made from the name, so a name that does not give it is not believed.
                let catalog = self
                    .catalog
                    .entries()
                    .iter()
                    .map(|entry| entry.name.clone());
                let reference = catalog
                    .chain(record::name_in(&directory))
                    .find(|name| safe_name(name) == folder);
                Some(DamagedModel {
                    name: reference.clone().unwrap_or(folder),
                    fetchable: reference.is_some(),
                    directory,
                    reason,
                })
            })
            .collect();
        damaged.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(damaged)
    }

    /// Removes a damaged model, with what is left of unfinished fetches of it. Returns the bytes
    /// freed.
    ///
    /// # Errors
    /// [`SourceError::NotStored`] if there is no damaged model of that name,
    /// [`SourceError::Busy`] while it is being fetched.
    pub fn remove_damaged(&self, name: &str) -> Result<u64, SourceError> {
        let mut damaged = self.damaged()?.into_iter();
        let found = damaged.find(|damaged| damaged.name == name);
        let folder = found.as_ref().and_then(|found| found.directory.file_name());
        match folder {
            Some(folder) => self.remove_folder(name, Path::new(folder)),
            None => Err(SourceError::NotStored {
                model: name.to_owned(),
                found_at: None,
            }),
        }
    }

    /// The directories among the models; none where nothing was ever fetched.
    fn entries(&self) -> Result<Vec<PathBuf>, SourceError> {
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
        Ok(entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.is_dir())
            .collect())
    }

    /// Removes a model and what is left of unfinished fetches of it. Returns the bytes freed.
    ///
    /// # Errors
    /// [`SourceError::NotStored`] if there is nothing to remove: files outside the store are never
    /// touched. [`SourceError::Busy`] while the model is being fetched.
    pub fn remove(&self, model: &ModelRef) -> Result<u64, SourceError> {
        model.check()?;
        let asked = self.name_of(model);
        let stored = if matches!(model, ModelRef::Path(_)) {
            None
        } else {
            self.stored(&asked)
        };
        let name = stored.map_or_else(|| asked.clone(), |(_, record)| record.name);
        let folder = safe_name(&name);
        let is_there = [self.models_root(), self.staging_root()]
            .iter()
            .any(|root| root.join(&folder).exists());
        if matches!(model, ModelRef::Path(_)) || !is_there {
            let elsewhere = self.find(model).ok().flatten().map(|found| found.path);
            return Err(SourceError::NotStored {
                model: asked,
                found_at: elsewhere,
            });
        }
        self.remove_folder(&asked, Path::new(&folder))
    }

    /// Removes what lies in a folder of the models, and in that of its fetches.
    fn remove_folder(&self, asked: &str, folder: &Path) -> Result<u64, SourceError> {
        let directory = self.models_root().join(folder);
        let staging = self.staging_root().join(folder);
        let bytes = bytes_below(&directory).saturating_add(bytes_below(&staging));
        make_directory(&staging)?;
        let lock = staging.with_added_extension("lock");
        let Some(_lock) = ModelLock::attempt(&lock)? else {
            return Err(SourceError::Busy {
                model: asked.to_owned(),
            });
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

    /// Reads all files of a model and compares them with the SHA-256 on record.
    ///
    /// # Errors
    /// [`SourceError::ChecksumMismatch`] if one has changed, [`SourceError::NotStored`] if there is
    /// no such model or no hash to compare with.
    pub fn verify(
        &self,
        model: &ModelRef,
        control: &mut Control<'_>,
    ) -> Result<LocalModel, SourceError> {
        let name = self.name_of(model);
        let known = |found: &LocalModel| found.files.iter().all(|file| file.sha256.is_some());
        let Some(found) = self.find(model)?.filter(known) else {
            return Err(SourceError::NotStored {
                model: name,
                found_at: None,
            });
        };
        let mut job = control.job(&name);
        let mut before: u64 = 0;
        for file in &found.files {
            let hasher = hash_file(&file.path, |done| {
                job.extracting(before.saturating_add(done), Some(found.size_bytes));
                job.check()
            })?;
            let expected = Expected {
                size_bytes: Some(file.size_bytes),
                sha256: file.sha256.clone(),
                git_sha1: None,
            };
            let place = file.path.display().to_string();
            expected.check(&place, hasher.bytes(), Some(&hasher.finish()))?;
            before = before.saturating_add(file.size_bytes);
        }
        Ok(found)
    }

    /// The name under which a model is stored if the reference is complete, else an alias of it.
    fn name_of(&self, model: &ModelRef) -> String {
        match model {
            // A family means the model that the catalog of this store has for it.
            ModelRef::Catalog(name) => self
                .catalog
                .resolve(name)
                .map_or_else(|| name.clone(), |entry| entry.name.clone()),
            other => full_name(other),
        }
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
        if let Ok(record) = Record::read(&directory)
            && record.name == name
        {
            return Some((directory, record));
        }
        fs::read_dir(self.models_root())
            .ok()?
            .flatten()
            .find_map(|entry| {
                let directory = entry.path();
                let record = Record::read(&directory).ok()?;
                record.answers_to(name).then_some((directory, record))
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
                    } => Some((repo, revision, file.as_ref())),
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
                ModelRef::Catalog(_) => self.name_of(model),
                _ => hub_name(repo, revision.as_deref(), found.file.as_deref()),
            };
            Some(LocalModel {
                name,
                source: format!("the Hugging Face cache at {}", cache.display()),
                licence: licence.clone(),
                ..found.model
            })
        }))
    }

    /// Moves fetched files into the store, with their record, in one step.
    fn install(
        &self,
        plan: &Plan,
        staging: &Path,
        delivered: Delivered,
        alias: Option<String>,
        job: &mut Job<'_>,
    ) -> Result<LocalModel, SourceError> {
        let ready = staging.join("ready");
        remove(&ready)?;
        make_directory(&ready)?;
        let mut files: Vec<StoredFile> = Vec::new();
        for (path, stored) in delivered.files {
            let file = ready.join(&stored.name);
            let unwritable = |error| write_error(&file, error);
            fs::rename(&path, &file).map_err(unwritable)?;
            let mut permissions = fs::metadata(&file).map_err(unwritable)?.permissions();
            permissions.set_readonly(true);
            // The file is mapped while a model runs; nobody should change it by accident.
            fs::set_permissions(&file, permissions).map_err(unwritable)?;
            files.push(stored);
        }
        let mut record = Record::new(plan.name.clone(), delivered.kind, files, delivered.source);
        record.aliases.extend(alias);
        record.licence.clone_from(&plan.licence);
        record.commit = delivered.commit;
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
        let installed = record.model(&target, false);
        job.extracting(installed.size_bytes, Some(installed.size_bytes));
        Ok(installed)
    }
}
