//! One value of a configuration.

use serde_json::Value as Json;

use crate::gguf::Value;

/// A field of a configuration, as its file has it.
#[derive(Clone, Debug, PartialEq)]
pub enum Field<'c> {
    /// A whole number.
    Whole(i128),
    /// Any other number.
    Number(f64),
    /// A truth value.
    Bool(bool),
    /// A text.
    Text(&'c str),
    /// A list.
    List(Vec<Field<'c>>),
    /// A table of fields, which are asked for by their own paths.
    Table,
}

/// The most elements of a list that is read; a model has fewer layers.
const MAX_LIST: usize = 1 << 16;

impl<'c> Field<'c> {
    pub(super) fn of_gguf(value: &Value<'c>) -> Self {
        match value {
            Value::U8(n) => Self::Whole((*n).into()),
            Value::I8(n) => Self::Whole((*n).into()),
            Value::U16(n) => Self::Whole((*n).into()),
            Value::I16(n) => Self::Whole((*n).into()),
            Value::U32(n) => Self::Whole((*n).into()),
            Value::I32(n) => Self::Whole((*n).into()),
            Value::U64(n) => Self::Whole((*n).into()),
            Value::I64(n) => Self::Whole((*n).into()),
            Value::F32(n) => Self::Number((*n).into()),
            Value::F64(n) => Self::Number(*n),
            Value::Bool(flag) => Self::Bool(*flag),
            Value::Str(text) => Self::Text(text),
            Value::Array(array) => {
                let items = array.iter().take(MAX_LIST);
                Self::List(items.map(|item| Self::of_gguf(&item)).collect())
            }
        }
    }

    /// The field at a path of names with dots between them.
    pub(super) fn of_json(root: &'c Json, path: &str) -> Option<Self> {
        let mut found = root;
        for name in path.split('.') {
            found = found.get(name)?;
        }
        Self::of_value(found)
    }

    fn of_value(value: &'c Json) -> Option<Self> {
        Some(match value {
            Json::Null => return None,
            Json::Bool(flag) => Self::Bool(*flag),
            Json::Number(n) => match (n.as_i64(), n.as_u64()) {
                (Some(n), _) => Self::Whole(n.into()),
                (None, Some(n)) => Self::Whole(n.into()),
                (None, None) => Self::Number(n.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => Self::Text(text),
            Json::Array(items) => {
                let items = items.iter().take(MAX_LIST);
                Self::List(
                    items
                        .map(|item| Self::of_value(item).unwrap_or(Self::Table))
                        .collect(),
                )
            }
            Json::Object(_) => Self::Table,
        })
    }

    /// What it is, for messages: `a text`, `12`.
    pub fn describe(&self) -> String {
        match self {
            Self::Whole(n) => n.to_string(),
            Self::Number(n) => n.to_string(),
            Self::Bool(flag) => flag.to_string(),
            Self::Text(text) => format!(
                "`{}`",
                text.chars().take(64).collect::<String>().escape_debug()
            ),
            Self::List(items) => format!("a list of {}", items.len()),
            Self::Table => "a table".to_owned(),
        }
    }
}
