//! What a model file holds, entry by entry.

use serde::Serialize;
use tercel_formats::gguf::Value;

use crate::error::Error;
use crate::file::ModelFile;

/// One entry of a file's metadata.
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
    /// Elements along each dimension, the fastest first.
    pub shape: Vec<usize>,
    /// Its size in the file.
    pub bytes: u64,
}

impl ModelFile {
    /// The metadata, in the order of the file.
    ///
    /// # Errors
    /// [`Error::InvalidFile`] if the file has changed since it was opened.
    pub fn metadata(&self) -> Result<Vec<MetadataEntry>, Error> {
        let gguf = self.gguf()?;
        let entry = |(key, value): (&str, &Value<'_>)| MetadataEntry {
            key: key.to_owned(),
            kind: value.kind().to_string(),
            value: shown(value),
        };
        Ok(gguf.metadata().iter().map(entry).collect())
    }

    /// The tensors, in the order of the file.
    ///
    /// # Errors
    /// [`Error::InvalidFile`] if the file has changed since it was opened.
    pub fn tensors(&self) -> Result<Vec<TensorEntry>, Error> {
        let gguf = self.gguf()?;
        let entries = gguf.tensors().iter().map(|tensor| TensorEntry {
            name: tensor.name.to_owned(),
            dtype: tensor.dtype.to_string(),
            shape: tensor.shape.clone(),
            bytes: tensor.data.len() as u64,
        });
        Ok(entries.collect())
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
