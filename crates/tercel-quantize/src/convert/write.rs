//! Safetensors, written row by row: a length, a header of JSON, the data.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use serde_json::{Map, Value as Json, json};

use super::tensor::{Content, Output, Rows, encode};
use super::{Meter, Precision, record};
use crate::error::ConvertError;

const INDEX: &str = "model.safetensors.index.json";

/// Data begins on a multiple of this.
const ALIGNMENT: usize = 8;

/// About so many bytes are written between two reports.
const STEP_BYTES: u64 = 8 << 20;

/// Tensors, spread over files.
pub(super) struct Shards<'o, 'a> {
    shards: Vec<Vec<(&'o Output<'a>, u64)>>,
    precision: Precision,
    bytes: u64,
}

impl<'o, 'a> Shards<'o, 'a> {
    /// Fills one file after the other, in the order of the tensors.
    pub(super) fn new(
        tensors: &'o [Output<'a>],
        precision: Precision,
        most: u64,
    ) -> Result<Self, ConvertError> {
        let mut shards: Vec<Vec<(&Output<'_>, u64)>> = vec![Vec::new()];
        let (mut bytes, mut of_shard) = (0u64, 0u64);
        for tensor in tensors {
            let size = tensor.bytes(precision);
            let total = size.and_then(|size| bytes.checked_add(size));
            let (Some(size), Some(total)) = (size, total) else {
                let what = format!("tensor `{}`", tensor.name);
                return Err(ConvertError::unsupported(what, "it is too large"));
            };
            bytes = total;
            if of_shard > 0 && of_shard.saturating_add(size) > most {
                shards.push(Vec::new());
                of_shard = 0;
            }
            of_shard = of_shard.saturating_add(size);
            if let Some(shard) = shards.last_mut() {
                shard.push((tensor, size));
            }
        }
        for shard in &mut shards {
            // The widest elements first, so that all are aligned.
            shard.sort_by_key(|(tensor, _)| std::cmp::Reverse(tensor.element(precision).1));
        }
        Ok(Self {
            shards,
            precision,
            bytes,
        })
    }

    /// Files.
    pub(super) fn len(&self) -> usize {
        self.shards.len()
    }

    /// Bytes of all tensors.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes the files, and the index where there are several.
    pub(super) fn write(
        &self,
        directory: &Path,
        meter: &mut Meter<'_>,
    ) -> Result<(), ConvertError> {
        let count = self.shards.len();
        let mut places = Map::new();
        for (i, shard) in self.shards.iter().enumerate() {
            let name = match count {
                1 => "model.safetensors".to_owned(),
                _ => format!("model-{:05}-of-{count:05}.safetensors", i + 1),
            };
            let path = directory.join(&name);
            let wrong = ConvertError::write(&path);
            let file = File::create_new(&path).map_err(&wrong)?;
            let mut out = BufWriter::with_capacity(1 << 20, file);
            self.header(shard, &mut out).map_err(&wrong)?;
            for (tensor, _) in shard {
                self.tensor(tensor, &mut out, &wrong, meter)?;
                places.insert(tensor.name.clone(), name.clone().into());
            }
            let file = out
                .into_inner()
                .map_err(|error| wrong(error.into_error()))?;
            file.sync_all().map_err(&wrong)?;
        }
        if count > 1 {
            let index = json!({
                "metadata": {"total_size": self.bytes},
                "weight_map": places,
            });
            let path = directory.join(INDEX);
            std::fs::write(&path, record::pretty(&index)).map_err(ConvertError::write(&path))?;
        }
        Ok(())
    }

    fn header(&self, shard: &[(&Output<'_>, u64)], out: &mut impl Write) -> io::Result<()> {
        let mut header = Map::new();
        header.insert("__metadata__".to_owned(), json!({"format": "pt"}));
        let mut offset = 0u64;
        for (tensor, bytes) in shard {
            let (dtype, _) = tensor.element(self.precision);
            let entry = json!({
                "dtype": dtype,
                "shape": tensor.shape,
                "data_offsets": [offset, offset + bytes],
            });
            header.insert(tensor.name.clone(), entry);
            offset += bytes;
        }
        let mut header = Json::Object(header).to_string().into_bytes();
        header.resize(header.len().next_multiple_of(ALIGNMENT), b' ');
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)
    }

    fn tensor(
        &self,
        tensor: &Output<'_>,
        out: &mut impl Write,
        wrong: impl Fn(io::Error) -> ConvertError,
        meter: &mut Meter<'_>,
    ) -> Result<(), ConvertError> {
        let rows = match &tensor.content {
            Content::Rows(rows) => rows,
            Content::Kept(_, data) => {
                out.write_all(data).map_err(wrong)?;
                return meter.step(data.len() as u64, data);
            }
        };
        let precision = rows.precision(self.precision);
        let mut floats = vec![0.0; rows.cols];
        let mut read = vec![0.0; rows.cols];
        let mut bytes = Vec::new();
        let mut written = 0u64;
        for row in 0..rows.rows {
            rows.floats(row, &mut read, &mut floats)?;
            encode(&floats, precision, &mut bytes).map_err(|value| ConvertError::OutOfRange {
                name: tensor.name.clone(),
                value,
                precision,
            })?;
            out.write_all(&bytes).map_err(&wrong)?;
            written += bytes.len() as u64;
            if written >= STEP_BYTES {
                meter.step(written, &[])?;
                written = 0;
            }
        }
        meter.step(written, &[])?;
        release(rows, meter)
    }
}

/// Says that the bytes of a tensor were read.
fn release(rows: &Rows<'_>, meter: &mut Meter<'_>) -> Result<(), ConvertError> {
    let parts = rows.storage.parts();
    parts.into_iter().try_for_each(|part| meter.step(0, part))
}
