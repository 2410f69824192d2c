//! Changes to the file that keep what the user wrote around them.

use std::path::PathBuf;

use serde::Serialize;
use serde_json::Value;
use tercel::source::Catalog;
use toml_edit::{Array, Decor, DocumentMut, Item, Table, TableLike, Value as Toml};

use super::model::identity_in_file;
use super::read::{self, MODELS, value_of};
use super::{ConfigError, Key, Settings, config_file, file};

/// The file, to be changed and then written.
#[derive(Debug)]
pub(crate) struct Edit {
    file: PathBuf,
    document: DocumentMut,
}

/// What became of one value.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Change {
    pub(crate) key: &'static str,
    /// What the file said.
    pub(crate) old: Option<Value>,
    /// What it says now.
    pub(crate) new: Option<Value>,
}

impl Edit {
    /// Opens the user's file, which need not be there yet. One that is not valid is left alone.
    pub(crate) fn open() -> Result<Self, ConfigError> {
        let file = config_file().ok_or(ConfigError::NoPlace)?;
        let text = file::read(&file)?.unwrap_or_default();
        Self::of(file, &text)
    }

    fn of(file: PathBuf, text: &str) -> Result<Self, ConfigError> {
        read::parse(text, file.clone(), Catalog::builtin())?;
        let document = text
            .parse::<DocumentMut>()
            .map_err(|error| ConfigError::Syntax {
                file: file.clone(),
                line: 1,
                reason: error.message().to_owned(),
            })?;
        Ok(Self { file, document })
    }

    /// Where it is, or will be.
    pub(crate) fn file(&self) -> &std::path::Path {
        &self.file
    }

    /// Whether a setting stands there for all models.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.document.contains_key(name)
    }

    /// Sets a value for the model of this identity, or for all; `None` takes it out. The value must
    /// be one that [`value`] gave, or valid otherwise.
    pub(crate) fn set(
        &mut self,
        identity: Option<&str>,
        key: &'static Key,
        value: Option<&Value>,
    ) -> Change {
        let root = self.document.as_table_mut();
        let name = identity.map(|identity| name_in(root, identity));
        let old = match value {
            Some(value) => section(root, name.as_deref())
                .and_then(|section| insert(section, key.name, toml(value))),
            None => {
                let section = known_section(root, name.as_deref());
                let old = section.and_then(|section| section.remove(key.name));
                remove_empty(root, name.as_deref());
                old
            }
        };
        Change {
            key: key.name,
            old: old.as_ref().and_then(Item::as_value).map(value_of),
            new: value.cloned(),
        }
    }

    /// Writes the file. What came out must be valid, or nothing is written.
    pub(crate) fn write(&self) -> Result<(), ConfigError> {
        let text = self.document.to_string();
        read::parse(&text, self.file.clone(), Catalog::builtin())?;
        file::replace(&self.file, &text)
    }
}

/// The value that a text on the command line means for a setting: one of TOML, or a plain text.
pub(crate) fn value(key: &Key, text: &str) -> Result<Value, String> {
    let as_toml = text.parse::<Toml>().ok().map(|value| value_of(&value));
    let fits = |value: &Value| key.put(value, &mut Settings::default());
    if let Some(value) = as_toml.filter(|value| fits(value).is_ok()) {
        return Ok(value);
    }
    // One stop string is a list of one.
    for value in [Value::from(text), Value::from(vec![text])] {
        if fits(&value).is_ok() {
            return Ok(value);
        }
    }
    Err(format!("`{}` is {text}, must be {}", key.name, key.range))
}

/// How the file names a model, or will.
fn name_in(root: &Table, identity: &str) -> String {
    let models = root.get(MODELS).and_then(Item::as_table_like);
    let mut names = models.into_iter().flat_map(|models| models.iter());
    let known = names.find(|(name, _)| {
        identity_in_file(name, Catalog::builtin()).is_ok_and(|known| known == identity)
    });
    known.map_or_else(|| identity.to_owned(), |(name, _)| name.to_owned())
}

/// The table of a model, or of all; made if need be.
fn section<'t>(root: &'t mut Table, name: Option<&str>) -> Option<&'t mut dyn TableLike> {
    let Some(name) = name else {
        return Some(root);
    };
    let models = root.entry(MODELS).or_insert_with(|| {
        let mut table = Table::new();
        // It needs no heading of its own.
        table.set_implicit(true);
        table.into()
    });
    let models = models.as_table_like_mut()?;
    let own = models.entry(name).or_insert_with(|| Table::new().into());
    own.as_table_like_mut()
}

/// As [`section`], where it is there.
fn known_section<'t>(root: &'t mut Table, name: Option<&str>) -> Option<&'t mut dyn TableLike> {
    let Some(name) = name else {
        return Some(root);
    };
    let models = root.get_mut(MODELS)?.as_table_like_mut()?;
    models.get_mut(name)?.as_table_like_mut()
}

/// Puts a value where it was or at the end, and gives the one that was there. The comment beside it
/// stays.
fn insert(table: &mut dyn TableLike, name: &str, mut value: Toml) -> Option<Item> {
    if let Some(there) = table.get_mut(name) {
        if let Some(old) = there.as_value() {
            let decor: Decor = old.decor().clone();
            *value.decor_mut() = decor;
        }
        return Some(std::mem::replace(there, value.into()));
    }
    table.insert(name, value.into())
}

/// Removes the table of a model in which nothing is left.
fn remove_empty(root: &mut Table, name: Option<&str>) {
    let models = root.get_mut(MODELS).and_then(Item::as_table_like_mut);
    let (Some(models), Some(name)) = (models, name) else {
        return;
    };
    let is_empty = |item: &Item| item.as_table_like().is_some_and(TableLike::is_empty);
    if models.get(name).is_some_and(is_empty) {
        models.remove(name);
    }
    if models.is_empty() {
        root.remove(MODELS);
    }
}

fn toml(value: &Value) -> Toml {
    match value {
        Value::Bool(truth) => (*truth).into(),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => whole.into(),
            None => number.as_f64().unwrap_or_default().into(),
        },
        Value::Array(values) => Toml::Array(values.iter().map(toml).collect::<Array>()),
        Value::String(text) => text.as_str().into(),
        other => other.to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::key;

    fn edit(text: &str) -> Edit {
        Edit::of("c.toml".into(), text).expect("valid")
    }

    #[test]
    fn values_are_set_and_taken_out_and_comments_stay() {
        let mut edit = edit("# mine\nthreads = 1 # few\n\n[models.smollm2] # small\ntop_k = 5\n");
        let mut set = |model, name, value: Option<Value>| {
            let change = edit.set(model, key(name).expect("a setting"), value.as_ref());
            (change.old, edit.document.to_string())
        };
        let (old, text) = set(None, "threads", Some(json!(4)));
        assert_eq!(old, Some(json!(1)));
        assert_eq!(
            text,
            "# mine\nthreads = 4 # few\n\n[models.smollm2] # small\ntop_k = 5\n"
        );
        let (old, text) = set(Some("smollm2:135m"), "cores", Some(json!("0-1")));
        assert_eq!(old, None);
        assert!(
            text.ends_with("# small\ntop_k = 5\ncores = \"0-1\"\n"),
            "{text}"
        );
        let (_, text) = set(None, "stop", Some(json!(["a", "b"])));
        assert!(
            text.contains("# few\nstop = [\"a\", \"b\"]\n\n[models"),
            "{text}"
        );
        let (_, text) = set(Some("/m.gguf"), "temperature", Some(json!(0.3)));
        assert!(
            text.ends_with("[models.\"/m.gguf\"]\ntemperature = 0.3\n"),
            "{text}"
        );
        let (old, _) = set(Some("smollm2:135m"), "top_k", None);
        assert_eq!(old, Some(json!(5)));
        set(Some("/m.gguf"), "temperature", None);
        set(Some("smollm2:135m"), "cores", None);
        set(None, "stop", None);
        let (old, text) = set(None, "seed", None);
        assert_eq!((old, text.as_str()), (None, "# mine\nthreads = 4 # few\n"));
    }

    #[test]
    fn a_new_file_has_what_was_set_alone() {
        let mut new = edit("");
        new.set(
            Some("smollm2:135m"),
            key("threads").expect("one"),
            Some(&json!(2)),
        );
        assert_eq!(
            new.document.to_string(),
            "[models.\"smollm2:135m\"]\nthreads = 2\n"
        );
        // A table on one line is changed where it is.
        let mut inline = edit("models = { smollm2 = { threads = 1 } }\n");
        inline.set(
            Some("smollm2:135m"),
            key("threads").expect("one"),
            Some(&json!(2)),
        );
        let text = inline.document.to_string();
        assert_eq!(text, "models = { smollm2 = { threads = 2 } }\n");
    }

    #[test]
    fn words_of_the_command_line_become_values() {
        for (name, text, expected) in [
            ("threads", "4", Some(json!(4))),
            ("threads", "four", None),
            ("threads", "0", None),
            ("cores", "0-3", Some(json!("0-3"))),
            ("cores", "0", Some(json!("0"))),
            ("temperature", "1", Some(json!(1))),
            ("temperature", "0.3", Some(json!(0.3))),
            ("temperature", "3", None),
            ("memory_budget", "2GiB", Some(json!("2GiB"))),
            ("thinking", "off", Some(json!("off"))),
            ("stop", "END", Some(json!(["END"]))),
            ("stop", "[\"a\", \"b\"]", Some(json!(["a", "b"]))),
            ("kv_type", "\"q8_0\"", Some(json!("q8_0"))),
            ("kv_type", "q4_0", None),
        ] {
            let found = value(key(name).expect("a setting"), text);
            assert_eq!(found.ok(), expected, "{name} {text}");
        }
    }
}
