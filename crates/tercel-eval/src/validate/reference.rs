//! Logits that were computed elsewhere and stored.

use std::fs;
use std::path::{Path, PathBuf};

use tercel::TokenId;
use tercel_formats::{Checkpoint, DType, Storage};

use crate::EvalError;

/// A `reference.safetensors`: what another implementation computed for a model.
///
/// It holds `input_ids` of n tokens, `logits` (n, vocabulary) in single floats, and may hold
/// `greedy_ids`, the greedy continuation.
#[derive(Clone, Debug, PartialEq)]
pub struct ReferenceFile {
    pub(crate) path: PathBuf,
    pub(crate) input_ids: Vec<TokenId>,
    pub(crate) logits: Vec<f32>,
    pub(crate) vocab_size: usize,
    pub(crate) greedy_ids: Vec<TokenId>,
}

/// More than the logits of a few hundred tokens take.
const LARGEST_BYTES: u64 = 4 << 30;

impl ReferenceFile {
    /// Reads a file.
    ///
    /// # Errors
    /// [`EvalError::Reference`] where it cannot be read or does not hold what it must.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, EvalError> {
        let path = path.as_ref();
        Self::read(path).map_err(|problem| EvalError::Reference {
            path: path.to_owned(),
            problem,
        })
    }

    fn read(path: &Path) -> Result<Self, String> {
        let metadata = fs::metadata(path).map_err(|error| error.to_string())?;
        if !metadata.is_file() || metadata.len() > LARGEST_BYTES {
            return Err("is no file of at most 4 GB".to_owned());
        }
        let bytes = fs::read(path).map_err(|error| error.to_string())?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let file = Checkpoint::from_hugging_face(b"{}", &[(&*name, &bytes)], None)
            .map_err(|error| error.to_string())?;
        let input_ids = ids(&file, "input_ids")?.ok_or("has no tensor `input_ids`")?;
        let greedy = ids(&file, "greedy_ids")?;
        let tensor = file.tensor("logits").ok_or("has no tensor `logits`")?;
        let vocab_size = match (&tensor.shape[..], tensor.storage) {
            (
                [rows, cols] | [1, rows, cols],
                Storage::Plain {
                    dtype: DType::F32, ..
                },
            ) if *rows == input_ids.len() && *rows > 0 && *cols > 0 => *cols,
            (shape, storage) => {
                return Err(format!(
                    "`logits` are {} of shape {shape:?}, expected F32 of shape [{}, vocabulary]",
                    storage.kind(),
                    input_ids.len()
                ));
            }
        };
        let [data, ..] = tensor.storage.parts();
        let logits = data.chunks_exact(4).map(|bytes| {
            let bytes = <[u8; 4]>::try_from(bytes).unwrap_or_default();
            f32::from_le_bytes(bytes)
        });
        Ok(Self {
            path: path.to_owned(),
            logits: logits.collect(),
            input_ids,
            vocab_size,
            greedy_ids: greedy.unwrap_or_default(),
        })
    }

    /// The logits after token `position`.
    pub(crate) fn row(&self, position: usize) -> &[f32] {
        let start = position * self.vocab_size;
        self.logits
            .get(start..start + self.vocab_size)
            .unwrap_or_default()
    }
}

/// A list of token ids; nothing where there is no such tensor.
fn ids(file: &Checkpoint<'_>, name: &str) -> Result<Option<Vec<TokenId>>, String> {
    let Some(tensor) = file.tensor(name) else {
        return Ok(None);
    };
    let Storage::Plain { dtype, data } = tensor.storage else {
        return Err(format!("`{name}` is no list of whole numbers"));
    };
    let number = |bytes: &[u8]| match dtype {
        DType::I32 => <[u8; 4]>::try_from(bytes)
            .ok()
            .map(|b| i32::from_le_bytes(b).into()),
        DType::I64 => <[u8; 8]>::try_from(bytes).ok().map(i64::from_le_bytes),
        _ => None,
    };
    let numbers = data.chunks_exact(dtype.block_bytes());
    let ids: Option<Vec<TokenId>> = numbers
        .map(|bytes| number(bytes).and_then(|id: i64| TokenId::try_from(id).ok()))
        .collect();
    let ids = ids.ok_or_else(|| format!("`{name}` is no list of token ids"))?;
    Ok(Some(ids))
}
