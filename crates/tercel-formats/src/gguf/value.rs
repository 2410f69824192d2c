//! Metadata values: scalars, strings, and arrays that stay in the file's bytes.

use std::fmt;

use super::cursor::{Cursor, Field, check_limit};
use super::error::GgufError;
use super::limits::{MAX_ARRAY_DEPTH, MAX_ARRAY_LEN, MAX_STRING_BYTES};

/// A metadata value; strings and arrays borrow the file.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum Value<'a> {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    Str(&'a str),
    Array(Array<'a>),
    U64(u64),
    I64(i64),
    F64(f64),
}

impl<'a> Value<'a> {
    /// The type of the value.
    pub fn kind(&self) -> Kind {
        match self {
            Self::U8(_) => Kind::U8,
            Self::I8(_) => Kind::I8,
            Self::U16(_) => Kind::U16,
            Self::I16(_) => Kind::I16,
            Self::U32(_) => Kind::U32,
            Self::I32(_) => Kind::I32,
            Self::F32(_) => Kind::F32,
            Self::Bool(_) => Kind::Bool,
            Self::Str(_) => Kind::Str,
            Self::Array(_) => Kind::Array,
            Self::U64(_) => Kind::U64,
            Self::I64(_) => Kind::I64,
            Self::F64(_) => Kind::F64,
        }
    }

    /// Reads a value of type `kind` that lies inside `depth` arrays.
    pub(super) fn read(
        cursor: &mut Cursor<'a>,
        kind: Kind,
        field: &Field<'_>,
        depth: usize,
    ) -> Result<Self, GgufError> {
        Ok(match kind {
            Kind::U8 => Self::U8(u8::from_le_bytes(cursor.array(field)?)),
            Kind::I8 => Self::I8(i8::from_le_bytes(cursor.array(field)?)),
            Kind::U16 => Self::U16(u16::from_le_bytes(cursor.array(field)?)),
            Kind::I16 => Self::I16(i16::from_le_bytes(cursor.array(field)?)),
            Kind::U32 => Self::U32(u32::from_le_bytes(cursor.array(field)?)),
            Kind::I32 => Self::I32(i32::from_le_bytes(cursor.array(field)?)),
            Kind::F32 => Self::F32(f32::from_le_bytes(cursor.array(field)?)),
            Kind::Bool => {
                let [value] = cursor.array(field)?;
                Self::Bool(truth(value, field)?)
            }
            Kind::Str => Self::Str(cursor.str(field, MAX_STRING_BYTES)?),
            Kind::Array => Self::Array(Array::read(cursor, field, depth + 1)?),
            Kind::U64 => Self::U64(u64::from_le_bytes(cursor.array(field)?)),
            Kind::I64 => Self::I64(i64::from_le_bytes(cursor.array(field)?)),
            Kind::F64 => Self::F64(f64::from_le_bytes(cursor.array(field)?)),
        })
    }

    /// The value when it is an integer of any size.
    pub(super) fn integer(&self) -> Option<i128> {
        Some(match *self {
            Self::U8(value) => value.into(),
            Self::I8(value) => value.into(),
            Self::U16(value) => value.into(),
            Self::I16(value) => value.into(),
            Self::U32(value) => value.into(),
            Self::I32(value) => value.into(),
            Self::U64(value) => value.into(),
            Self::I64(value) => value.into(),
            Self::F32(_) | Self::F64(_) | Self::Bool(_) | Self::Str(_) | Self::Array(_) => {
                return None;
            }
        })
    }

    /// The type in words, as `array of string`.
    pub(super) fn type_name(&self) -> String {
        match self {
            Self::Array(array) => format!("array of {}", array.kind),
            _ => self.kind().to_string(),
        }
    }
}

/// The type of a metadata value; discriminants are the ids used in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum Kind {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    Str = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

impl Kind {
    const ALL: [Self; 13] = [
        Self::U8,
        Self::I8,
        Self::U16,
        Self::I16,
        Self::U32,
        Self::I32,
        Self::F32,
        Self::Bool,
        Self::Str,
        Self::Array,
        Self::U64,
        Self::I64,
        Self::F64,
    ];

    /// The type with this id, if there is one.
    pub fn from_id(id: u32) -> Option<Self> {
        Self::ALL.get(usize::try_from(id).ok()?).copied()
    }

    /// The id of this type in a file.
    pub fn id(self) -> u32 {
        self as u32
    }

    /// Reads a type id.
    pub(super) fn read(cursor: &mut Cursor<'_>, field: &Field<'_>) -> Result<Self, GgufError> {
        let id = cursor.u32(field)?;
        Self::from_id(id).ok_or_else(|| GgufError::UnknownKind {
            field: field.to_string(),
            id,
        })
    }

    /// Bytes of every value of this type; of the shortest for strings and arrays.
    fn min_size(self) -> u64 {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 | Self::Str => 8,
            Self::Array => 4 + 8,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::U8 => "u8",
            Self::I8 => "i8",
            Self::U16 => "u16",
            Self::I16 => "i16",
            Self::U32 => "u32",
            Self::I32 => "i32",
            Self::F32 => "f32",
            Self::Bool => "bool",
            Self::Str => "string",
            Self::Array => "array",
            Self::U64 => "u64",
            Self::I64 => "i64",
            Self::F64 => "f64",
        })
    }
}

/// An array of values of one type, left in the file's bytes, where it was checked once.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Array<'a> {
    kind: Kind,
    len: usize,
    bytes: &'a [u8],
}

impl<'a> Array<'a> {
    /// The type of the elements.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements in order, decoded one by one; nothing is allocated.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Value<'a>> + Clone + use<'a> {
        let kind = self.kind;
        let mut cursor = Cursor::new(self.bytes);
        (0..self.len).map(move |_| {
            Value::read(&mut cursor, kind, &Field::Header("element"), 0).expect("checked by read")
        })
    }

    /// Reads an array that is the `depth`-th of the arrays around it, itself included, checking
    /// every element.
    fn read(cursor: &mut Cursor<'a>, field: &Field<'_>, depth: usize) -> Result<Self, GgufError> {
        let nesting = Field::Part(field, "nesting depth");
        check_limit(&nesting, depth as u64, MAX_ARRAY_DEPTH as u64)?;
        let kind = Kind::read(cursor, field)?;
        let len = cursor.count(&Field::Part(field, "length"), MAX_ARRAY_LEN)?;
        // At most 16 M elements of 12 bytes: the product fits.
        let least = len * kind.min_size();
        cursor.require(least, field)?;

        let before = cursor.rest();
        let len = len as usize;
        match kind {
            Kind::Str => {
                for index in 0..len {
                    cursor.str(&Field::Element(field, index), MAX_STRING_BYTES)?;
                }
            }
            Kind::Array => {
                for index in 0..len {
                    Self::read(cursor, &Field::Element(field, index), depth + 1)?;
                }
            }
            Kind::Bool => {
                for (index, &byte) in cursor.take(least, field)?.iter().enumerate() {
                    truth(byte, &Field::Element(field, index))?;
                }
            }
            _ => {
                cursor.take(least, field)?;
            }
        }
        let bytes = &before[..before.len() - cursor.rest().len()];
        Ok(Self { kind, len, bytes })
    }
}

impl fmt::Debug for Array<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}; {}]", self.kind, self.len)
    }
}

/// An array of strings, left in the file's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strings<'a>(Array<'a>);

impl<'a> Strings<'a> {
    /// The view of `array`, or `None` when its elements are not strings.
    pub fn new(array: Array<'a>) -> Option<Self> {
        (array.kind == Kind::Str).then_some(Self(array))
    }

    /// The number of strings.
    pub fn len(&self) -> usize {
        self.0.len
    }

    /// Whether there are no strings.
    pub fn is_empty(&self) -> bool {
        self.0.len == 0
    }

    /// The strings in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'a str> + Clone + use<'a> {
        let mut cursor = Cursor::new(self.0.bytes);
        (0..self.0.len).map(move |_| {
            cursor
                .str(&Field::Header("string"), MAX_STRING_BYTES)
                .expect("checked by read")
        })
    }
}

fn truth(value: u8, field: &Field<'_>) -> Result<bool, GgufError> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(GgufError::NotBool {
            field: field.to_string(),
            value,
        }),
    }
}
