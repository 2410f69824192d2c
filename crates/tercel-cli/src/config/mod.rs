//! The user's own settings: `config.toml`, for all models and for each.
//!
//! A flag comes before what the file has for the model, that before what it has for all models, and
//! that before what the model itself recommends. Whatever is not understood is an error: a setting
//! that is ignored in silence is worse than none.

mod edit;
mod error;
mod file;
mod keys;
mod model;
mod read;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Map, Value};
use tercel::cores::CoreSet;
use tercel::source::Catalog;
use tercel::{KvType, Sampling};

pub(crate) use edit::{Change, Edit, value};
pub(crate) use error::ConfigError;
pub(crate) use file::config_file;
pub(crate) use keys::{KEYS, Key, is_set, key, shown};
pub(crate) use model::identity;

use crate::context::Context;
use crate::failure::Failure;
use crate::output::Line;

/// The file as it was read.
#[derive(Debug, Default)]
pub(crate) struct UserConfig {
    /// Where it is, or would be.
    pub(crate) file: Option<PathBuf>,
    /// What holds for all models.
    pub(crate) all: Section,
    /// What holds for one, as the file names them.
    pub(crate) models: Vec<ModelSection>,
}

/// Values by the names of their keys.
pub(crate) type Section = BTreeMap<&'static str, Entry>;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) value: Value,
    /// From 1.
    pub(crate) line: usize,
}

#[derive(Debug, PartialEq)]
pub(crate) struct ModelSection {
    /// The model as the file names it.
    pub(crate) name: String,
    /// The same for all names of one model, see [`identity`].
    pub(crate) identity: String,
    pub(crate) values: Section,
}

impl UserConfig {
    /// Reads the user's file; without one there are no settings.
    pub(crate) fn read() -> Result<Self, ConfigError> {
        let Some(file) = config_file() else {
            return Ok(Self::default());
        };
        let text = file::read(&file)?;
        read::parse(&text.unwrap_or_default(), file, Catalog::builtin())
    }

    /// What holds for a model, by its identity; without one, for all.
    pub(crate) fn settings(&self, identity: Option<&str>) -> Result<Settings, ConfigError> {
        let mut entries = self.all.clone();
        let own = self.models.iter().filter(|own| match identity {
            Some(identity) => own.identity == identity,
            None => false,
        });
        entries.extend(own.flat_map(|own| own.values.clone()));
        let mut settings = Settings::default();
        for (name, entry) in &entries {
            // Each was put once already, when it was read.
            if let Some(key) = key(name) {
                let put = key.put(&entry.value, &mut settings);
                put.map_err(|reason| self.invalid(key, entry, reason))?;
            }
        }
        settings.file.clone_from(&self.file);
        settings.entries = entries;
        Ok(settings)
    }

    fn invalid(&self, key: &'static Key, entry: &Entry, reason: String) -> ConfigError {
        ConfigError::InvalidValue {
            file: self.file.clone().unwrap_or_default(),
            line: entry.line,
            key: key.name,
            reason,
        }
    }
}

/// What the file says for one model.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    pub(crate) threads: Option<usize>,
    pub(crate) cores: Option<CoreSet>,
    pub(crate) max_context: Option<usize>,
    pub(crate) kv_type: Option<KvType>,
    pub(crate) memory_budget: Option<u64>,
    pub(crate) sampling: Sampling,
    pub(crate) entries: Section,
    file: Option<PathBuf>,
    /// Names of values that no flag replaces.
    used: Vec<&'static str>,
}

impl Settings {
    /// What the user's file says for the model of this name.
    pub(crate) fn of(model: &str) -> Result<Self, Failure> {
        let identity = identity(model, Catalog::builtin());
        Ok(UserConfig::read()?.settings(Some(&identity))?)
    }

    /// Gives a flag that the command line left out the value of the file.
    pub(crate) fn fill<T: Clone>(
        &mut self,
        name: &'static str,
        flag: &mut Option<T>,
        value: impl Fn(&Self) -> Option<T>,
    ) {
        if flag.is_none() {
            *flag = value(self);
            self.note_use(name, flag.is_some());
        }
    }

    /// Notes which values of the file make replies, those of the command line being `given`.
    pub(crate) fn use_sampling(&mut self, given: &Sampling) {
        for key in KEYS.iter().filter(|key| key.is_sampling()) {
            let is_used = self.entries.contains_key(key.name) && !is_set(given, key.name);
            self.note_use(key.name, is_used);
        }
    }

    fn note_use(&mut self, name: &'static str, is_used: bool) {
        if is_used {
            self.used.push(name);
        }
    }

    /// Tells which values of the file are used: in a `--json` stream always, as a note where
    /// numbers depend on them, and else in the log.
    pub(crate) fn tell(&self, is_measured: bool, context: &Context) {
        let Some(file) = self.file.as_ref().filter(|_| !self.used.is_empty()) else {
            return;
        };
        let used = self.used.iter();
        let used = used.filter_map(|name| Some((*name, &self.entries.get(name)?.value)));
        if context.out.is_json() {
            let settings: Map<_, _> = used
                .map(|(name, value)| (name.to_owned(), value.clone()))
                .collect();
            // A closed pipe shows with the next line that matters.
            let _ = context.out.json(&Line::Config {
                file: &file.display().to_string(),
                settings: &settings,
            });
            return;
        }
        let used: Vec<String> = used
            .map(|(name, value)| format!("{name} {}", shown(value)))
            .collect();
        let text = format!("{} (from {})", used.join(", "), file.display());
        if is_measured {
            context.note(&text);
        } else {
            tracing::info!("settings: {text}");
        }
    }

    /// Adds to an error about a value that it stands in the file.
    pub(crate) fn explain(&self, failure: Failure) -> Failure {
        let Some(file) = &self.file else {
            return failure;
        };
        let used = self.used.iter();
        let entries = used.filter_map(|name| Some((name, self.entries.get(name)?)));
        entries.fold(failure, |failure, (name, entry)| {
            let hint = format!("it stands in {}, line {}", file.display(), entry.line);
            let kind = failure.kind().unwrap_or_default();
            match *name {
                "cores" if kind == "core_not_allowed" || kind.starts_with("affinity_") => {
                    failure.with_hint(hint)
                }
                "kv_type" if kind == "unsupported_kv_type" => failure.with_hint(hint),
                _ => failure.with_hint_for(name, &hint),
            }
        })
    }
}
