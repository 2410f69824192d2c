//! What stands beside the weights in a directory: JSON and templates, read whole.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value as Json;
use tercel_formats::Checkpoint;
use tercel_formats::checkpoint::Field;
use tercel_text::TokenId;

use crate::error::Error;

/// More than any of these files has; the largest tokenizers take a quarter of it.
const LARGEST_BYTES: u64 = 128 << 20;

/// The files, by name.
#[derive(Debug, Default)]
pub(crate) struct SmallFiles(BTreeMap<String, Vec<u8>>);

impl SmallFiles {
    /// Reads one.
    pub(super) fn read(&mut self, name: &str, path: &Path) -> Result<(), Error> {
        let unreadable = |reason| Error::Unreadable {
            path: path.into(),
            reason,
        };
        let metadata = fs::metadata(path).map_err(unreadable)?;
        if metadata.len() > LARGEST_BYTES {
            return Err(Error::NotAModelFile {
                path: path.into(),
                problem: "is too large for what it is named",
            });
        }
        let bytes = fs::read(path).map_err(unreadable)?;
        self.0.insert(name.to_owned(), bytes);
        Ok(())
    }

    pub(crate) fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.get(name).map(Vec::as_slice)
    }

    /// Every file with its name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let files = self.0.iter();
        files.map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
    }

    pub(super) fn bytes(&self) -> u64 {
        self.0.values().map(|bytes| bytes.len() as u64).sum()
    }

    /// A file as JSON; `None` when it is not there.
    pub(crate) fn json(&self, name: &str) -> Result<Option<Json>, String> {
        let parse = |bytes| serde_json::from_slice(bytes).map_err(|error| error.to_string());
        let json: Option<Json> = self.get(name).map(parse).transpose()?;
        Ok(json)
    }

    /// The chat template: in a file of its own, or in that of the tokenizer.
    pub(super) fn template(&self) -> Result<Option<String>, String> {
        const OWN: &str = "chat_template.jinja";
        if let Some(source) = self.get(OWN) {
            let source = String::from_utf8(source.to_vec());
            return source
                .map(Some)
                .map_err(|_| format!("{OWN} is no UTF-8 text"));
        }
        for file in ["chat_template.json", "tokenizer_config.json"] {
            let json = self
                .json(file)
                .map_err(|error| format!("{file}: {error}"))?;
            let Some(json) = json else { continue };
            match json.get("chat_template") {
                None | Some(Json::Null) => {}
                Some(Json::String(source)) => return Ok(Some(source.clone())),
                // Several templates by name.
                Some(Json::Array(named)) => {
                    let of = |name: &str| {
                        let found = named.iter().find(|one| one["name"] == name)?;
                        found.get("template")?.as_str().map(str::to_owned)
                    };
                    return of("default")
                        .map(Some)
                        .ok_or_else(|| format!("{file} names no default template"));
                }
                Some(_) => return Err(format!("the `chat_template` of {file} is no text")),
            }
        }
        Ok(None)
    }

    /// The ids that end a turn: of `generation_config.json` and of `config.json`.
    pub(super) fn end_ids(&self, checkpoint: &Checkpoint<'_>) -> Result<Vec<TokenId>, String> {
        let mut ids = Vec::new();
        if let Some(json) = self.json("generation_config.json")? {
            match json.get("eos_token_id") {
                Some(Json::Array(several)) => ids.extend(several.iter().map(Json::as_u64)),
                Some(Json::Null) | None => {}
                Some(one) => ids.push(one.as_u64()),
            }
        }
        let id = |field: Field<'_>| match field {
            Field::Whole(id) => u64::try_from(id).ok(),
            _ => None,
        };
        for key in ["eos_token_id", "text_config.eos_token_id"] {
            match checkpoint.field(key) {
                Some(Field::List(several)) => ids.extend(several.into_iter().map(id)),
                Some(one) => ids.push(id(one)),
                None => {}
            }
        }
        let ids: Option<Vec<TokenId>> = ids
            .into_iter()
            .map(|id| id.and_then(|id| TokenId::try_from(id).ok()))
            .collect();
        ids.ok_or_else(|| "`eos_token_id` is no token id, and no list of them".to_owned())
    }
}
