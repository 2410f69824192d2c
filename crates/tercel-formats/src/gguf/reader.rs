//! The file as a whole: the header, then everything that depends on more than one entry.

use super::cursor::{Cursor, Field};
use super::error::{GgufError, shown};
use super::limits::{
    DEFAULT_ALIGNMENT, MAX_ALIGNMENT, MAX_METADATA, MAX_TENSORS, MAX_VERSION, MIN_VERSION,
};
use super::metadata::Metadata;
use super::tensor::{self, Tensor};
use super::value::Value;
use super::{ALIGNMENT_KEY, MAGIC};

/// A GGUF file, checked; borrows the file's bytes.
#[derive(Clone, Debug)]
pub struct Gguf<'a> {
    version: u32,
    alignment: usize,
    metadata: Metadata<'a>,
    tensors: Vec<Tensor<'a>>,
    by_name: Box<[u32]>,
}

impl<'a> Gguf<'a> {
    /// Checks the header, all metadata and the extent of every tensor. Tensor data is not read.
    ///
    /// Tensors may lie in any order and with gaps between them, but not over one another. Takes
    /// time linear in the header (with a logarithmic factor on the number of entries), and at
    /// most twice the size of `file` plus one megabyte of memory.
    ///
    /// # Errors
    /// When the file breaks a rule of the format or a limit of [`limits`](super::limits).
    pub fn parse(file: &'a [u8]) -> Result<Self, GgufError> {
        Self::read(file, |tensors, offsets, data_start, alignment| {
            let data = file.get(data_start..).unwrap_or_default();
            tensor::place(tensors, offsets, data, alignment)?;
            tensor::check_overlap(tensors)
        })
    }

    /// As [`parse`](Self::parse), of a file whose data may be missing: the header must be whole,
    /// where the tensors lie is not looked at. Tensors no larger than `zeros` have their data in
    /// it, the others have none: they can be looked at, not read.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), but for the data.
    pub fn parse_header(file: &'a [u8], zeros: &'a [u8]) -> Result<Self, GgufError> {
        Self::read(file, |tensors, _, _, _| {
            for tensor in tensors {
                let bytes = tensor.dtype.bytes_for(tensor.elements());
                tensor.data = bytes
                    .and_then(|bytes| zeros.get(..bytes))
                    .unwrap_or_default();
            }
            Ok(())
        })
    }

    /// Reads the header, and has `place` give the tensors their data: it gets them with their
    /// offsets, the start of the data in the file, and the alignment.
    fn read(
        file: &'a [u8],
        place: impl FnOnce(&mut [Tensor<'a>], &[u64], usize, usize) -> Result<(), GgufError>,
    ) -> Result<Self, GgufError> {
        let mut cursor = Cursor::new(file);
        let version = read_version(&mut cursor)?;
        let tensor_count = cursor.count(&Field::Header("tensor count"), MAX_TENSORS)?;
        let metadata_count = cursor.count(&Field::Header("metadata count"), MAX_METADATA)?;

        let metadata = Metadata::read(&mut cursor, metadata_count)?;
        let alignment = match metadata.get(ALIGNMENT_KEY) {
            Some(Value::U32(alignment)) => check_alignment(*alignment)?,
            Some(value) => return Err(bad_alignment(value.type_name())),
            None => DEFAULT_ALIGNMENT as usize,
        };

        let (mut tensors, offsets) = tensor::read_entries(&mut cursor, tensor_count)?;
        let data_start = cursor.offset().next_multiple_of(alignment);
        place(&mut tensors, &offsets, data_start, alignment)?;
        let by_name = index_by_name(&tensors, |tensor| tensor.name).map_err(|tensor| {
            GgufError::DuplicateTensor {
                tensor: shown(tensor.name),
            }
        })?;
        Ok(Self {
            version,
            alignment,
            metadata,
            tensors,
            by_name,
        })
    }

    /// The version of the format, 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The alignment of tensor data in bytes, counted from the start of the file.
    pub fn alignment(&self) -> usize {
        self.alignment
    }

    /// The metadata entries.
    pub fn metadata(&self) -> &Metadata<'a> {
        &self.metadata
    }

    /// The tensors in file order.
    pub fn tensors(&self) -> &[Tensor<'a>] {
        &self.tensors
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&Tensor<'a>> {
        find(&self.tensors, &self.by_name, name, |tensor| tensor.name)
    }
}

/// Checks an alignment and gives it as a size.
pub(super) fn check_alignment(alignment: u32) -> Result<usize, GgufError> {
    if alignment.is_power_of_two() && alignment <= MAX_ALIGNMENT {
        Ok(alignment as usize)
    } else {
        Err(bad_alignment(alignment.to_string()))
    }
}

/// The error for an alignment that is described by `found`.
pub(super) fn bad_alignment(found: String) -> GgufError {
    GgufError::Alignment {
        found,
        limit: MAX_ALIGNMENT,
    }
}

/// The positions of `items` sorted by name, or an item whose name appears twice.
///
/// A sorted list takes 4 bytes an item where a hash table takes ten times that, which would break
/// the memory bound for files of many short entries.
pub(super) fn index_by_name<T>(items: &[T], name: impl Fn(&T) -> &str) -> Result<Box<[u32]>, &T> {
    let item = |position: u32| &items[position as usize];
    let mut positions: Box<[u32]> = (0..items.len() as u32).collect();
    positions.sort_unstable_by(|&a, &b| name(item(a)).cmp(name(item(b))));
    match positions
        .windows(2)
        .find(|pair| name(item(pair[0])) == name(item(pair[1])))
    {
        Some(pair) => Err(item(pair[0])),
        None => Ok(positions),
    }
}

/// The item of this name, by the positions of [`index_by_name`].
pub(super) fn find<'t, T>(
    items: &'t [T],
    positions: &[u32],
    wanted: &str,
    name: impl Fn(&T) -> &str,
) -> Option<&'t T> {
    let at = positions
        .binary_search_by(|&at| name(&items[at as usize]).cmp(wanted))
        .ok()?;
    items.get(positions[at] as usize)
}

fn read_version(cursor: &mut Cursor<'_>) -> Result<u32, GgufError> {
    let start = cursor.rest();
    if !start.starts_with(&MAGIC) {
        let start = &start[..start.len().min(MAGIC.len())];
        return Err(GgufError::NotGguf {
            start: format!("\"{}\"", start.escape_ascii()),
        });
    }
    cursor.take(MAGIC.len() as u64, &Field::Header("magic"))?;
    let version = cursor.u32(&Field::Header("version"))?;
    if version != 0 && version & 0xffff == 0 {
        return Err(GgufError::BigEndian);
    }
    if !(MIN_VERSION..=MAX_VERSION).contains(&version) {
        return Err(GgufError::Version { version });
    }
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;
    use crate::gguf::{OwnedValue, Writer};

    #[test]
    fn a_header_without_its_data_is_read() {
        let mut writer = Writer::new();
        writer
            .set("general.name", OwnedValue::Str("cut".into()))
            .expect("a valid entry");
        for (name, rows) in [("small", 2), ("large", 64)] {
            let data = vec![1; rows * 32];
            writer
                .tensor(name, DType::F32, &[8, rows], data)
                .expect("a valid tensor");
        }
        let mut file = Vec::new();
        writer.write_to(&mut file).expect("written");
        let cut = &file[..file.len() - 1];
        assert!(matches!(Gguf::parse(cut), Err(GgufError::Outside { .. })));

        let zeros = [0; 64];
        for file in [cut, &file] {
            let gguf = Gguf::parse_header(file, &zeros).expect("a whole header");
            assert_eq!(gguf.metadata().str("general.name"), Ok(Some("cut")));
            let data = |name| gguf.tensor(name).map(|tensor| tensor.data);
            assert_eq!(data("small"), Some(&zeros[..]));
            assert_eq!(data("large"), Some(&[][..]));
        }
        assert!(Gguf::parse_header(&file[..60], &zeros).is_err());
    }
}
