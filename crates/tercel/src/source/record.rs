//! What the store writes down beside each model.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::SourceError;
use super::disk::write_atomically;

/// The name of the record in the directory of its model.
pub(super) const FILE_NAME: &str = "model.json";
const SCHEMA: u32 = 1;

/// A stored model. Fields of later versions are ignored; a later schema is not read at all.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    schema: u32,
    /// The full name: a catalog name, or a Hub reference with its file.
    pub(super) name: String,
    /// Other references that were resolved to this file.
    #[serde(default)]
    pub(super) aliases: Vec<String>,
    pub(super) file: String,
    pub(super) size_bytes: u64,
    pub(super) sha256: String,
    pub(super) source: String,
    #[serde(default)]
    pub(super) licence: Option<String>,
    /// The commit of the repository that the file was taken from.
    #[serde(default)]
    pub(super) commit: Option<String>,
    pub(super) fetched_at_unix_seconds: u64,
}

impl Record {
    /// A record of the present time.
    pub(super) fn new(name: String, file: String, source: String) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            schema: SCHEMA,
            name,
            aliases: Vec::new(),
            file,
            size_bytes: 0,
            sha256: String::new(),
            source,
            licence: None,
            commit: None,
            fetched_at_unix_seconds: now.map_or(0, |now| now.as_secs()),
        }
    }

    /// Reads the record of a model's directory; nothing unless it and the file it describes are
    /// whole.
    pub(super) fn read(directory: &Path) -> Option<Self> {
        const LARGEST_BYTES: u64 = 1 << 20;
        let path = directory.join(FILE_NAME);
        if fs::metadata(&path).ok()?.len() > LARGEST_BYTES {
            return None;
        }
        let record: Self = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        // The name becomes a path again, so a record cannot point out of its directory.
        let plain = !record.file.is_empty()
            && !record.file.starts_with('.')
            && !record.file.contains(['/', '\\', ':']);
        if record.schema != SCHEMA || !plain {
            return None;
        }
        let metadata = fs::metadata(directory.join(&record.file)).ok()?;
        (metadata.is_file() && metadata.len() == record.size_bytes).then_some(record)
    }

    pub(super) fn write(&self, directory: &Path) -> Result<(), SourceError> {
        let text = serde_json::to_vec_pretty(self).expect("strings and numbers serialize");
        write_atomically(&directory.join(FILE_NAME), &text)
    }

    pub(super) fn answers_to(&self, name: &str) -> bool {
        self.name == name || self.aliases.iter().any(|alias| alias == name)
    }
}
