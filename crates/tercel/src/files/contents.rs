//! What a model's files hold, entry by entry.

use serde::Serialize;
use serde_json::Value as Json;
use tercel_formats::gguf::Value;
use tercel_nn::{PlannedTensor, Runner};

use super::ModelFiles;
use crate::builder::target;
use crate::error::Error;

/// One entry of a GGUF file's metadata, or of `config.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MetadataEntry {
    /// Its key, such as `general.architecture`.
    pub key: String,
    /// Its type, such as `u32`.
    pub kind: String,
    /// Its value; of an array the kind and the number of its elements. Whatever the file says.
    pub value: String,
}

/// One tensor of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TensorEntry {
    /// Its name, such as `blk.0.attn_q.weight`. Whatever the file says.
    pub name: String,
    /// Such as `Q4_K`.
    pub dtype: String,
    /// Elements along each dimension, the slowest first: `[rows, cols]` of a matrix.
    pub shape: Vec<usize>,
    /// Its size in the file.
    pub bytes: u64,
}

impl ModelFiles {
    /// The metadata, in the order of the file.
    ///
    /// # Errors
    /// [`Error::InvalidFile`] if the file has changed since it was opened.
    pub fn metadata(&self) -> Result<Vec<MetadataEntry>, Error> {
        let checkpoint = self.checkpoint()?;
        if let Some(metadata) = checkpoint.gguf_metadata() {
            let entry = |(key, value): (&str, &Value<'_>)| MetadataEntry {
                key: key.to_owned(),
                kind: value.kind().to_string(),
                value: shown(value),
            };
            return Ok(metadata.iter().map(entry).collect());
        }
        let mut entries = Vec::new();
        if let Some(config) = checkpoint.config_json() {
            flatten("", config, &mut entries);
        }
        Ok(entries)
    }

    /// The tensors, in the order of the file.
    ///
    /// # Errors
    /// [`Error::InvalidFile`] if the file has changed since it was opened.
    pub fn tensors(&self) -> Result<Vec<TensorEntry>, Error> {
        let checkpoint = self.checkpoint()?;
        let entries = checkpoint.tensors().iter().map(|tensor| TensorEntry {
            name: tensor.name.clone(),
            dtype: tensor.storage.kind(),
            shape: tensor.shape.clone(),
            bytes: tensor.storage.bytes() as u64,
        });
        Ok(entries.collect())
    }
}

impl ModelFiles {
    /// The tensors, in the order of the file, with what each is for, and what would become of it
    /// with [`EngineBuilder::quantize`](crate::EngineBuilder::quantize) to the type `quantize`, or
    /// without.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] for a type that nothing is quantized to,
    /// [`Error::InvalidFile`] if the file has changed since it was opened, [`Error::Model`] where
    /// the model cannot be loaded.
    pub fn survey(&self, quantize: Option<&str>) -> Result<Vec<PlannedTensor>, Error> {
        let target = target(quantize, false)?;
        let survey = Runner::survey(&self.checkpoint()?, target);
        match survey.problems.into_iter().next() {
            Some(problem) => Err(self.model_error(problem)),
            None => Ok(survey.tensors),
        }
    }
}

/// The entries of a table, under names with dots between them.
fn flatten(within: &str, value: &Json, entries: &mut Vec<MetadataEntry>) {
    let mut entry = |kind: &str, value: String| {
        entries.push(MetadataEntry {
            key: within.to_owned(),
            kind: kind.to_owned(),
            value,
        });
    };
    match value {
        Json::Object(fields) => {
            for (name, value) in fields {
                let dot = if within.is_empty() { "" } else { "." };
                flatten(&format!("{within}{dot}{name}"), value, entries);
            }
        }
        Json::Array(items) => entry("list", format!("{} values", items.len())),
        Json::String(text) => entry("text", text.clone()),
        Json::Number(number) => entry("number", number.to_string()),
        Json::Bool(flag) => entry("bool", flag.to_string()),
        Json::Null => entry("null", "null".to_owned()),
    }
}

fn shown(value: &Value<'_>) -> String {
    match value {
        Value::U8(number) => number.to_string(),
        Value::I8(number) => number.to_string(),
        Value::U16(number) => number.to_string(),
        Value::I16(number) => number.to_string(),
        Value::U32(number) => number.to_string(),
        Value::I32(number) => number.to_string(),
        Value::U64(number) => number.to_string(),
        Value::I64(number) => number.to_string(),
        Value::F32(number) => number.to_string(),
        Value::F64(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        Value::Str(text) => (*text).to_owned(),
        Value::Array(array) => format!("{} of {}", array.len(), array.kind()),
    }
}
