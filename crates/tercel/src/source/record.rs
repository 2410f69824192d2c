//! What the store writes down beside each model.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::SourceError;
use super::disk::write_atomically;
use super::fetch::Expected;
use super::local::{Checked, LocalFile, LocalModel, ModelKind, total};

/// The name of the record in the directory of its model.
pub(super) const FILE_NAME: &str = "model.json";
const SCHEMA: u32 = 2;

/// A stored model. Fields of later versions are ignored; a later schema is not read at all.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    schema: u32,
    /// The full name: a catalog name, or a Hub reference.
    pub(super) name: String,
    /// Other references that were resolved to this model.
    #[serde(default)]
    pub(super) aliases: Vec<String>,
    pub(super) kind: ModelKind,
    /// The parts of a split file are in their order.
    pub(super) files: Vec<StoredFile>,
    pub(super) source: String,
    #[serde(default)]
    pub(super) licence: Option<String>,
    /// The commit of the repository that the files were taken from.
    #[serde(default)]
    pub(super) commit: Option<String>,
    pub(super) fetched_at_unix_seconds: u64,
}

/// A file of a stored model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredFile {
    /// Its name in the directory of the model.
    pub(super) name: String,
    pub(super) size_bytes: u64,
    pub(super) sha256: String,
    #[serde(default)]
    pub(super) checked: Checked,
}

/// A record of the first schema, when every model was one file.
#[derive(Deserialize)]
struct OneFile {
    name: String,
    #[serde(default)]
    aliases: Vec<String>,
    file: String,
    size_bytes: u64,
    sha256: String,
    source: String,
    #[serde(default)]
    licence: Option<String>,
    #[serde(default)]
    commit: Option<String>,
    fetched_at_unix_seconds: u64,
}

impl Record {
    /// A record of the present time.
    pub(super) fn new(
        name: String,
        kind: ModelKind,
        files: Vec<StoredFile>,
        source: String,
    ) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            schema: SCHEMA,
            name,
            aliases: Vec::new(),
            kind,
            files,
            source,
            licence: None,
            commit: None,
            fetched_at_unix_seconds: now.map_or(0, |now| now.as_secs()),
        }
    }

    /// Reads the record of a model's directory, if it and every file it describes are whole.
    ///
    /// The error is the reason why this is no model, in words.
    pub(super) fn read(directory: &Path) -> Result<Self, String> {
        const LARGEST_BYTES: u64 = 16 << 20;
        let path = directory.join(FILE_NAME);
        let metadata = fs::metadata(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => format!("{FILE_NAME} is missing"),
            _ => format!("{FILE_NAME} cannot be read: {error}"),
        })?;
        if metadata.len() > LARGEST_BYTES {
            return Err(format!("{FILE_NAME} is too large"));
        }
        let text =
            fs::read(path).map_err(|error| format!("{FILE_NAME} cannot be read: {error}"))?;
        let record = Self::parse(&text)?;
        for file in &record.files {
            let name = &file.name;
            match fs::metadata(directory.join(name)) {
                Ok(there) if !there.is_file() => return Err(format!("{name} is no file")),
                Ok(there) if there.len() != file.size_bytes => {
                    let (found, wanted) = (there.len(), file.size_bytes);
                    return Err(format!("{name} has {found} bytes instead of {wanted}"));
                }
                Ok(_) => {}
                Err(_) => return Err(format!("{name} is missing")),
            }
        }
        Ok(record)
    }

    fn parse(text: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Version {
            schema: u32,
        }
        let torn = |error: serde_json::Error| format!("{FILE_NAME} is damaged: {error}");
        let record = match serde_json::from_slice::<Version>(text)
            .map_err(torn)?
            .schema
        {
            1 => serde_json::from_slice::<OneFile>(text)
                .map_err(torn)?
                .into(),
            SCHEMA => serde_json::from_slice::<Self>(text).map_err(torn)?,
            later => {
                return Err(format!(
                    "{FILE_NAME} has schema {later}, which this version does not know"
                ));
            }
        };
        // The names become paths again, so a record cannot point out of its directory.
        let plain = |name: &str| {
            !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', ':'])
        };
        match record.files.iter().find(|file| !plain(&file.name)) {
            Some(_) => Err(format!("{FILE_NAME} names a file outside its directory")),
            None if record.files.is_empty() => Err(format!("{FILE_NAME} names no file")),
            None => Ok(record),
        }
    }

    pub(super) fn write(&self, directory: &Path) -> Result<(), SourceError> {
        let text = serde_json::to_vec_pretty(self).expect("strings and numbers serialize");
        write_atomically(&directory.join(FILE_NAME), &text)
    }

    pub(super) fn answers_to(&self, name: &str) -> bool {
        self.name == name || self.aliases.iter().any(|alias| alias == name)
    }

    /// Whether this is the file that is expected, where one is.
    pub(super) fn fits(&self, expected: &Expected) -> bool {
        match self.files.as_slice() {
            [one] => expected
                .check("", one.size_bytes, Some(&one.sha256))
                .is_ok(),
            _ => expected.sha256.is_none(),
        }
    }

    /// The model that the record describes.
    pub(super) fn model(self, directory: &Path, cached: bool) -> LocalModel {
        let files: Vec<LocalFile> = self
            .files
            .into_iter()
            .map(|file| LocalFile {
                path: directory.join(file.name),
                size_bytes: file.size_bytes,
                sha256: Some(file.sha256),
                checked: file.checked,
            })
            .collect();
        let first = files.first().map(|file| file.path.clone());
        LocalModel {
            name: self.name,
            path: match self.kind {
                ModelKind::Directory => directory.to_owned(),
                _ => first.unwrap_or_else(|| directory.to_owned()),
            },
            kind: self.kind,
            size_bytes: total(&files),
            source: self.source,
            licence: self.licence,
            sha256: match files.as_slice() {
                [one] => one.sha256.clone(),
                _ => None,
            },
            files,
            cached,
        }
    }
}

impl From<OneFile> for Record {
    /// The record is rewritten when it next changes; until then the older one stays as it is.
    fn from(old: OneFile) -> Self {
        Self {
            schema: SCHEMA,
            name: old.name,
            aliases: old.aliases,
            kind: ModelKind::SingleGguf,
            files: vec![StoredFile {
                name: old.file,
                size_bytes: old.size_bytes,
                sha256: old.sha256,
                checked: Checked::Unknown,
            }],
            source: old.source,
            licence: old.licence,
            commit: old.commit,
            fetched_at_unix_seconds: old.fetched_at_unix_seconds,
        }
    }
}

/// The name in a record, even a torn one.
pub(super) fn name_in(directory: &Path) -> Option<String> {
    let text = fs::read_to_string(directory.join(FILE_NAME)).ok()?;
    let (_, rest) = text.split_once("\"name\":")?;
    let rest = rest.trim_start().strip_prefix('"')?;
    let (name, _) = rest.split_once('"')?;
    (!name.contains('\\')).then(|| name.to_owned())
}
