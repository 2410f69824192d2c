//! Makes GGUF files that the reader accepts.

use std::borrow::Cow;
use std::collections::HashSet;
use std::io::{self, Write};

use super::cursor::{Field, check_limit};
use super::error::{GgufError, shown};
use super::limits::{
    DEFAULT_ALIGNMENT, MAX_ARRAY_DEPTH, MAX_ARRAY_LEN, MAX_KEY_BYTES, MAX_METADATA,
    MAX_STRING_BYTES, MAX_TENSOR_NAME_BYTES, MAX_TENSORS, MAX_VERSION,
};
use super::owned::{OwnedArray, OwnedValue};
use super::reader::{Gguf, bad_alignment, check_alignment};
use super::tensor::{check_dims, check_shape};
use super::{ALIGNMENT_KEY, MAGIC};
use crate::DType;

/// A GGUF file of version 3 in the making.
///
/// Whatever the reader would refuse is refused when it is added, so writing can only fail for
/// reasons of the output. Entries and tensors are written in the order in which they were added.
///
/// ```
/// use tercel_formats::{DType, Gguf, gguf::Writer};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut writer = Writer::new();
/// writer.set("general.architecture", "llama")?;
/// writer.tensor("output_norm.weight", DType::F32, &[2], vec![0; 8])?;
/// let mut file = Vec::new();
/// writer.write_to(&mut file)?;
/// assert_eq!(Gguf::parse(&file)?.tensors().len(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Writer<'a> {
    alignment: usize,
    keys: HashSet<String>,
    entries: Vec<(String, OwnedValue)>,
    names: HashSet<String>,
    tensors: Vec<Entry<'a>>,
}

#[derive(Clone, Debug)]
struct Entry<'a> {
    name: String,
    dtype: DType,
    shape: Vec<u64>,
    data: Cow<'a, [u8]>,
}

impl<'a> Writer<'a> {
    /// An empty file with an alignment of 32 bytes.
    pub fn new() -> Self {
        Self {
            alignment: DEFAULT_ALIGNMENT as usize,
            keys: HashSet::new(),
            entries: Vec::new(),
            names: HashSet::new(),
            tensors: Vec::new(),
        }
    }

    /// Adds a metadata entry; `general.alignment`, a `u32`, also sets the alignment.
    ///
    /// # Errors
    /// When the key is empty, too long or already there, or the value is beyond a limit.
    pub fn set(&mut self, key: &str, value: impl Into<OwnedValue>) -> Result<(), GgufError> {
        let value = value.into();
        let field = Field::Key(self.entries.len());
        check_limit(
            &Field::Header("metadata count"),
            self.entries.len() as u64 + 1,
            MAX_METADATA,
        )?;
        check_name(&field, key, MAX_KEY_BYTES)?;
        if self.keys.contains(key) {
            return Err(GgufError::DuplicateKey { key: shown(key) });
        }
        check_value(&Field::Value(key), &value)?;
        if key == ALIGNMENT_KEY {
            self.alignment = match value {
                OwnedValue::U32(alignment) => check_alignment(alignment)?,
                _ => return Err(bad_alignment(value.kind().to_string())),
            };
        }
        self.keys.insert(key.to_owned());
        self.entries.push((key.to_owned(), value));
        Ok(())
    }

    /// Adds a tensor: its shape with the fastest dimension first, and its data, borrowed or owned.
    ///
    /// # Errors
    /// When the name is empty, too long or already there, when the shape is not possible for the
    /// type, or when `data` is not the size that shape and type need.
    pub fn tensor(
        &mut self,
        name: &str,
        dtype: DType,
        shape: &[usize],
        data: impl Into<Cow<'a, [u8]>>,
    ) -> Result<(), GgufError> {
        let data = data.into();
        let field = Field::TensorName(self.tensors.len());
        check_limit(
            &Field::Header("tensor count"),
            self.tensors.len() as u64 + 1,
            MAX_TENSORS,
        )?;
        check_name(&field, name, MAX_TENSOR_NAME_BYTES)?;
        if self.names.contains(name) {
            return Err(GgufError::DuplicateTensor {
                tensor: shown(name),
            });
        }
        check_dims(name, shape.len())?;
        let shape: Vec<u64> = shape.iter().map(|&size| size as u64).collect();
        let needed = check_shape(name, dtype, &shape)?;
        if data.len() != needed {
            let (tensor, found) = (shown(name), data.len());
            return Err(GgufError::DataLength {
                tensor,
                needed,
                found,
            });
        }
        self.names.insert(name.to_owned());
        self.tensors.push(Entry {
            name: name.to_owned(),
            dtype,
            shape,
            data,
        });
        Ok(())
    }

    /// Writes the file. Every tensor, the last one too, is padded with zeros to the alignment.
    ///
    /// # Errors
    /// Only those of `out`.
    pub fn write_to(&self, out: impl Write) -> io::Result<()> {
        let mut out = Output {
            inner: out,
            written: 0,
        };
        out.write(&MAGIC)?;
        out.write(&MAX_VERSION.to_le_bytes())?;
        out.length(self.tensors.len())?;
        out.length(self.entries.len())?;
        for (key, value) in &self.entries {
            out.str(key)?;
            out.write(&value.kind().id().to_le_bytes())?;
            out.value(value)?;
        }
        let mut offset = 0_u64;
        for tensor in &self.tensors {
            out.str(&tensor.name)?;
            out.write(&(tensor.shape.len() as u32).to_le_bytes())?;
            for size in &tensor.shape {
                out.write(&size.to_le_bytes())?;
            }
            out.write(&tensor.dtype.id().to_le_bytes())?;
            out.write(&offset.to_le_bytes())?;
            offset += (tensor.data.len() as u64).next_multiple_of(self.alignment as u64);
        }
        for tensor in &self.tensors {
            out.pad(self.alignment)?;
            out.write(&tensor.data)?;
        }
        if !self.tensors.is_empty() {
            out.pad(self.alignment)?;
        }
        out.inner.flush()
    }
}

impl Default for Writer<'_> {
    fn default() -> Self {
        Self::new()
    }
}

/// A writer of the same metadata and tensors, in the same order; tensor data stays borrowed.
impl<'a> From<&Gguf<'a>> for Writer<'a> {
    fn from(file: &Gguf<'a>) -> Self {
        let mut writer = Self::new();
        for (key, value) in file.metadata().iter() {
            writer
                .set(key, *value)
                .expect("the reader keeps the rules of the writer");
        }
        for tensor in file.tensors() {
            writer
                .tensor(tensor.name, tensor.dtype, &tensor.shape, tensor.data)
                .expect("the reader keeps the rules of the writer");
        }
        writer
    }
}

fn check_name(field: &Field<'_>, name: &str, limit: u64) -> Result<(), GgufError> {
    if name.is_empty() {
        return Err(GgufError::Empty {
            field: field.to_string(),
        });
    }
    check_limit(field, name.len() as u64, limit)
}

fn check_value(field: &Field<'_>, value: &OwnedValue) -> Result<(), GgufError> {
    match value {
        OwnedValue::Str(text) => check_limit(field, text.len() as u64, MAX_STRING_BYTES),
        OwnedValue::Array(array) => check_array(field, array, 1),
        _ => Ok(()),
    }
}

fn check_array(field: &Field<'_>, array: &OwnedArray, depth: usize) -> Result<(), GgufError> {
    let nesting = Field::Part(field, "nesting depth");
    check_limit(&nesting, depth as u64, MAX_ARRAY_DEPTH as u64)?;
    check_limit(
        &Field::Part(field, "length"),
        array.len() as u64,
        MAX_ARRAY_LEN,
    )?;
    match array {
        OwnedArray::Str(items) => items.iter().enumerate().try_for_each(|(index, text)| {
            check_limit(
                &Field::Element(field, index),
                text.len() as u64,
                MAX_STRING_BYTES,
            )
        }),
        OwnedArray::Array(items) => items.iter().enumerate().try_for_each(|(index, inner)| {
            check_array(&Field::Element(field, index), inner, depth + 1)
        }),
        _ => Ok(()),
    }
}

/// The output, and how much was written to it.
struct Output<W> {
    inner: W,
    written: usize,
}

impl<W: Write> Output<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.inner.write_all(bytes)?;
        self.written += bytes.len();
        Ok(())
    }

    fn length(&mut self, len: usize) -> io::Result<()> {
        self.write(&(len as u64).to_le_bytes())
    }

    fn str(&mut self, text: &str) -> io::Result<()> {
        self.length(text.len())?;
        self.write(text.as_bytes())
    }

    fn value(&mut self, value: &OwnedValue) -> io::Result<()> {
        match value {
            OwnedValue::U8(value) => self.write(&value.to_le_bytes()),
            OwnedValue::I8(value) => self.write(&value.to_le_bytes()),
            OwnedValue::U16(value) => self.write(&value.to_le_bytes()),
            OwnedValue::I16(value) => self.write(&value.to_le_bytes()),
            OwnedValue::U32(value) => self.write(&value.to_le_bytes()),
            OwnedValue::I32(value) => self.write(&value.to_le_bytes()),
            OwnedValue::F32(value) => self.write(&value.to_le_bytes()),
            OwnedValue::Bool(value) => self.write(&[u8::from(*value)]),
            OwnedValue::Str(text) => self.str(text),
            OwnedValue::Array(array) => self.array(array),
            OwnedValue::U64(value) => self.write(&value.to_le_bytes()),
            OwnedValue::I64(value) => self.write(&value.to_le_bytes()),
            OwnedValue::F64(value) => self.write(&value.to_le_bytes()),
        }
    }

    fn array(&mut self, array: &OwnedArray) -> io::Result<()> {
        self.write(&array.kind().id().to_le_bytes())?;
        self.length(array.len())?;
        macro_rules! numbers {
            ($items:expr) => {
                $items
                    .iter()
                    .try_for_each(|item| self.write(&item.to_le_bytes()))
            };
        }
        match array {
            OwnedArray::U8(items) => self.write(items),
            OwnedArray::I8(items) => numbers!(items),
            OwnedArray::U16(items) => numbers!(items),
            OwnedArray::I16(items) => numbers!(items),
            OwnedArray::U32(items) => numbers!(items),
            OwnedArray::I32(items) => numbers!(items),
            OwnedArray::F32(items) => numbers!(items),
            OwnedArray::Bool(items) => items
                .iter()
                .try_for_each(|&item| self.write(&[u8::from(item)])),
            OwnedArray::Str(items) => items.iter().try_for_each(|item| self.str(item)),
            OwnedArray::Array(items) => items.iter().try_for_each(|item| self.array(item)),
            OwnedArray::U64(items) => numbers!(items),
            OwnedArray::I64(items) => numbers!(items),
            OwnedArray::F64(items) => numbers!(items),
        }
    }

    fn pad(&mut self, alignment: usize) -> io::Result<()> {
        const ZEROS: [u8; 64] = [0; 64];
        let mut missing = self.written.next_multiple_of(alignment) - self.written;
        while missing > 0 {
            let len = missing.min(ZEROS.len());
            self.write(&ZEROS[..len])?;
            missing -= len;
        }
        Ok(())
    }
}
