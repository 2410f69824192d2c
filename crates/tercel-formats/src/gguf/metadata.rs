//! The metadata of a file, looked up by key and by type.

use super::cursor::{Cursor, Field};
use super::error::{GgufError, shown};
use super::limits::{MAX_KEY_BYTES, MIN_ENTRY_BYTES};
use super::reader::{find, index_by_name};
use super::value::{Array, Kind, Strings, Value};

/// The metadata entries of a file.
///
/// The typed getters give `Ok(None)` for an absent key and an error that names the key for a
/// value of another type: what a file states is never silently taken for something else.
#[derive(Clone, Debug)]
pub struct Metadata<'a> {
    entries: Vec<(&'a str, Value<'a>)>,
    by_key: Box<[u32]>,
}

impl<'a> Metadata<'a> {
    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Value<'a>> {
        find(&self.entries, &self.by_key, key, |(key, _)| key).map(|(_, value)| value)
    }

    /// The entries in file order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&'a str, &Value<'a>)> {
        self.entries.iter().map(|(key, value)| (*key, value))
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The string of `key`.
    ///
    /// # Errors
    /// When the value is of another type.
    pub fn str(&self, key: &str) -> Result<Option<&'a str>, GgufError> {
        self.typed(key, "string", |value| match *value {
            Value::Str(text) => Some(text),
            _ => None,
        })
    }

    /// The integer of `key`, whatever integer type it is stored as.
    ///
    /// # Errors
    /// When the value is of another type or does not fit.
    pub fn u32(&self, key: &str) -> Result<Option<u32>, GgufError> {
        let Some(found) = self.typed(key, "an integer", Value::integer)? else {
            return Ok(None);
        };
        let value = u32::try_from(found)
            .map_err(|_| out_of_range(&Field::Value(key), found.to_string(), "u32"))?;
        Ok(Some(value))
    }

    /// The number of `key`, stored as `F32` or `F64`; the latter is rounded.
    ///
    /// # Errors
    /// When the value is of another type, or finite and beyond the range of `f32`.
    pub fn f32(&self, key: &str) -> Result<Option<f32>, GgufError> {
        let Some(found) = self.typed(key, "f32 or f64", float)? else {
            return Ok(None);
        };
        narrowed(found, &Field::Value(key)).map(Some)
    }

    /// The truth value of `key`.
    ///
    /// # Errors
    /// When the value is of another type.
    pub fn bool(&self, key: &str) -> Result<Option<bool>, GgufError> {
        self.typed(key, "bool", |value| match *value {
            Value::Bool(truth) => Some(truth),
            _ => None,
        })
    }

    /// The array of strings of `key`, left in the file's bytes.
    ///
    /// # Errors
    /// When the value is of another type.
    pub fn strings(&self, key: &str) -> Result<Option<Strings<'a>>, GgufError> {
        self.typed(key, "array of string", |value| match *value {
            Value::Array(array) => Strings::new(array),
            _ => None,
        })
    }

    /// The array of `F32` or `F64` of `key`, copied: four bytes an element.
    ///
    /// # Errors
    /// When the value is of another type, or an element is finite and beyond the range of `f32`.
    pub fn f32s(&self, key: &str) -> Result<Option<Vec<f32>>, GgufError> {
        let wanted = "array of f32 or f64";
        let Some(array) = self.array(key, wanted, &[Kind::F32, Kind::F64])? else {
            return Ok(None);
        };
        let numbers = array.iter().enumerate().map(|(index, value)| {
            let found = float(&value).expect("the kind was checked");
            narrowed(found, &Field::Element(&Field::Value(key), index))
        });
        numbers.collect::<Result<_, _>>().map(Some)
    }

    /// The array of integers of `key`, whatever integer type they are stored as, copied: four
    /// bytes an element.
    ///
    /// # Errors
    /// When the value is of another type, or an element does not fit.
    pub fn i32s(&self, key: &str) -> Result<Option<Vec<i32>>, GgufError> {
        const INTEGERS: &[Kind] = &[
            Kind::U8,
            Kind::I8,
            Kind::U16,
            Kind::I16,
            Kind::U32,
            Kind::I32,
            Kind::U64,
            Kind::I64,
        ];
        let Some(array) = self.array(key, "array of integers", INTEGERS)? else {
            return Ok(None);
        };
        let numbers = array.iter().enumerate().map(|(index, value)| {
            let found = value.integer().expect("the kind was checked");
            i32::try_from(found).map_err(|_| {
                out_of_range(
                    &Field::Element(&Field::Value(key), index),
                    found.to_string(),
                    "i32",
                )
            })
        });
        numbers.collect::<Result<_, _>>().map(Some)
    }

    /// Reads `count` entries.
    pub(super) fn read(cursor: &mut Cursor<'a>, count: u64) -> Result<Self, GgufError> {
        cursor.require(count * MIN_ENTRY_BYTES, &Field::Header("metadata"))?;
        let mut entries = Vec::with_capacity(count as usize);
        for index in 0..count as usize {
            let field = Field::Key(index);
            let key = cursor.str(&field, MAX_KEY_BYTES)?;
            if key.is_empty() {
                return Err(GgufError::Empty {
                    field: field.to_string(),
                });
            }
            let kind = Kind::read(cursor, &Field::Value(key))?;
            entries.push((key, Value::read(cursor, kind, &Field::Value(key), 0)?));
        }
        let by_key = index_by_name(&entries, |(key, _)| key)
            .map_err(|(key, _)| GgufError::DuplicateKey { key: shown(key) })?;
        Ok(Self { entries, by_key })
    }

    fn array(
        &self,
        key: &str,
        wanted: &'static str,
        kinds: &[Kind],
    ) -> Result<Option<Array<'a>>, GgufError> {
        self.typed(key, wanted, |value| match *value {
            Value::Array(array) if kinds.contains(&array.kind()) => Some(array),
            _ => None,
        })
    }

    fn typed<T>(
        &self,
        key: &str,
        wanted: &'static str,
        view: impl Fn(&Value<'a>) -> Option<T>,
    ) -> Result<Option<T>, GgufError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        view(value).map(Some).ok_or_else(|| GgufError::WrongKind {
            key: shown(key),
            found: value.type_name(),
            wanted,
        })
    }
}

fn float(value: &Value<'_>) -> Option<f64> {
    match *value {
        Value::F32(value) => Some(value.into()),
        Value::F64(value) => Some(value),
        _ => None,
    }
}

fn narrowed(found: f64, field: &Field<'_>) -> Result<f32, GgufError> {
    let value = found as f32;
    if found.is_finite() && !value.is_finite() {
        return Err(out_of_range(field, found.to_string(), "f32"));
    }
    Ok(value)
}

fn out_of_range(field: &Field<'_>, found: String, wanted: &'static str) -> GgufError {
    GgufError::OutOfRange {
        field: field.to_string(),
        found,
        wanted,
    }
}
