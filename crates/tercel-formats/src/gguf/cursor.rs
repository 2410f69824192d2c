//! Reading little-endian fields from bytes that may end anywhere.

use std::fmt;

use super::error::{GgufError, shown};

/// The part of a file not yet read, and where it ends.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
    end: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            end: bytes.len(),
        }
    }

    /// Bytes read so far.
    pub(super) fn offset(&self) -> usize {
        self.end - self.rest.len()
    }

    /// The bytes not yet read.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Fails unless `needed` more bytes are there.
    pub(super) fn require(&self, needed: u64, field: &Field<'_>) -> Result<(), GgufError> {
        if needed <= self.rest.len() as u64 {
            Ok(())
        } else {
            Err(self.truncated(needed, field))
        }
    }

    /// The next `len` bytes.
    pub(super) fn take(&mut self, len: u64, field: &Field<'_>) -> Result<&'a [u8], GgufError> {
        self.require(len, field)?;
        let (taken, rest) = self.rest.split_at(len as usize);
        self.rest = rest;
        Ok(taken)
    }

    /// The next `N` bytes.
    pub(super) fn array<const N: usize>(
        &mut self,
        field: &Field<'_>,
    ) -> Result<[u8; N], GgufError> {
        let Some((taken, rest)) = self.rest.split_first_chunk() else {
            return Err(self.truncated(N as u64, field));
        };
        self.rest = rest;
        Ok(*taken)
    }

    pub(super) fn u32(&mut self, field: &Field<'_>) -> Result<u32, GgufError> {
        self.array(field).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, field: &Field<'_>) -> Result<u64, GgufError> {
        self.array(field).map(u64::from_le_bytes)
    }

    /// A count or length of at most `limit`.
    pub(super) fn count(&mut self, field: &Field<'_>, limit: u64) -> Result<u64, GgufError> {
        let found = self.u64(field)?;
        check_limit(field, found, limit)?;
        Ok(found)
    }

    /// A string: its length in bytes, at most `limit`, and UTF-8.
    pub(super) fn str(&mut self, field: &Field<'_>, limit: u64) -> Result<&'a str, GgufError> {
        let len = self.count(field, limit)?;
        let offset = self.offset();
        let bytes = self.take(len, field)?;
        std::str::from_utf8(bytes).map_err(|_| GgufError::NotUtf8 {
            field: field.to_string(),
            offset,
        })
    }

    fn truncated(&self, needed: u64, field: &Field<'_>) -> GgufError {
        let (field, offset) = (field.to_string(), self.offset());
        GgufError::Truncated {
            field,
            needed,
            offset,
            end: self.end,
        }
    }
}

/// Fails when the count or length `found` is more than `limit`.
pub(super) fn check_limit(field: &Field<'_>, found: u64, limit: u64) -> Result<(), GgufError> {
    if found <= limit {
        return Ok(());
    }
    Err(GgufError::Limit {
        field: field.to_string(),
        found,
        limit,
    })
}

/// The place in a file that an error is about, put into words only when there is one.
#[derive(Clone, Copy)]
pub(super) enum Field<'f> {
    /// A field of the header.
    Header(&'static str),
    /// The key of the n-th metadata entry.
    Key(usize),
    /// The value of this key.
    Value(&'f str),
    /// An element of an array.
    Element(&'f Field<'f>, usize),
    /// A property of a value, such as its length.
    Part(&'f Field<'f>, &'static str),
    /// The name of the n-th tensor.
    TensorName(usize),
    /// A field of the entry of this tensor.
    Tensor(&'f str, &'static str),
}

impl fmt::Display for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => f.write_str(name),
            Self::Key(index) => write!(f, "metadata[{index}].key"),
            Self::Value(key) => f.write_str(&shown(key)),
            Self::Element(array, index) => write!(f, "{array}[{index}]"),
            Self::Part(value, part) => write!(f, "{value} {part}"),
            Self::TensorName(index) => write!(f, "tensors[{index}].name"),
            Self::Tensor(name, part) => write!(f, "tensor {} {part}", shown(name)),
        }
    }
}
