//! From the text of the file to settings, with the line of each.

use std::ops::Range;
use std::path::PathBuf;

use serde_json::Value;
use tercel::source::Catalog;
use toml_edit::{Document, Item, TableLike, Value as Toml};

use super::model::identity_in_file;
use super::{ConfigError, Entry, ModelSection, Section, Settings, UserConfig, keys};

/// The table of the models' own tables.
pub(super) const MODELS: &str = "models";

/// Reads a configuration. Every key must be known and every value valid.
pub(super) fn parse(
    text: &str,
    file: PathBuf,
    catalog: &Catalog,
) -> Result<UserConfig, ConfigError> {
    let reader = Reader { text, file: &file };
    let document = Document::parse(text).map_err(|error| ConfigError::Syntax {
        file: file.clone(),
        line: reader.line(error.span()),
        reason: error.message().to_owned(),
    })?;
    let all = reader.section(document.as_table(), true)?;
    let mut models: Vec<ModelSection> = Vec::new();
    if let Some(tables) = document.get(MODELS) {
        let tables = reader.table(document.as_table(), MODELS, tables)?;
        for (name, item) in tables.iter() {
            let values = reader.section(reader.table(tables, name, item)?, false)?;
            let invalid = |reason: &str| ConfigError::InvalidModel {
                file: file.clone(),
                line: reader.line_of(tables, name),
                model: name.to_owned(),
                reason: reason.to_owned(),
            };
            let identity = identity_in_file(name, catalog).map_err(invalid)?;
            if let Some(other) = models.iter().find(|other| other.identity == identity) {
                return Err(invalid(&format!("is the same model as `{}`", other.name)));
            }
            models.push(ModelSection {
                name: name.to_owned(),
                identity,
                values,
            });
        }
    }
    Ok(UserConfig {
        file: Some(file),
        all,
        models,
    })
}

struct Reader<'a> {
    text: &'a str,
    file: &'a PathBuf,
}

impl Reader<'_> {
    fn section(&self, table: &dyn TableLike, is_root: bool) -> Result<Section, ConfigError> {
        let mut section = Section::new();
        for (name, item) in table
            .iter()
            .filter(|(name, _)| !(is_root && *name == MODELS))
        {
            let line = self.line_of(table, name);
            let key = keys::key(name).ok_or_else(|| ConfigError::UnknownKey {
                file: self.file.clone(),
                line,
                key: name.to_owned(),
                near: keys::near(name),
            })?;
            let value = json(item);
            let put = key.put(&value, &mut Settings::default());
            put.map_err(|reason| ConfigError::InvalidValue {
                file: self.file.clone(),
                line,
                key: key.name,
                reason,
            })?;
            section.insert(key.name, Entry { value, line });
        }
        Ok(section)
    }

    fn table<'t>(
        &self,
        parent: &dyn TableLike,
        name: &str,
        item: &'t Item,
    ) -> Result<&'t dyn TableLike, ConfigError> {
        item.as_table_like().ok_or_else(|| ConfigError::NoTable {
            file: self.file.clone(),
            line: self.line_of(parent, name),
            key: name.to_owned(),
        })
    }

    fn line_of(&self, table: &dyn TableLike, name: &str) -> usize {
        self.line(table.key(name).and_then(toml_edit::Key::span))
    }

    fn line(&self, span: Option<Range<usize>>) -> usize {
        let start = span.map_or(0, |span| span.start);
        let before = self.text.bytes().take(start);
        1 + before.filter(|byte| *byte == b'\n').count()
    }
}

/// A value without its place. What no setting is, such as a date, is a text that none takes.
fn json(item: &Item) -> Value {
    let Some(value) = item.as_value() else {
        return Value::Object(serde_json::Map::new());
    };
    value_of(value)
}

pub(super) fn value_of(value: &Toml) -> Value {
    match value {
        Toml::String(text) => text.value().clone().into(),
        Toml::Integer(number) => (*number.value()).into(),
        Toml::Float(number) => (*number.value()).into(),
        Toml::Boolean(truth) => (*truth.value()).into(),
        Toml::Array(values) => values.iter().map(value_of).collect(),
        Toml::Datetime(_) => Value::Null,
        Toml::InlineTable(_) => Value::Object(serde_json::Map::new()),
    }
}

#[cfg(test)]
mod tests {
    use tercel::KvType;

    use super::*;
    use crate::failure::Failure;

    fn read(text: &str) -> Result<UserConfig, ConfigError> {
        parse(text, PathBuf::from("c.toml"), Catalog::builtin())
    }

    #[test]
    fn a_models_own_values_come_before_those_of_all() {
        let config = read(
            "# mine\nthreads = 1\ntemperature = 0.5\nstop = [\"END\"]\n\n\
             [models.\"smollm2\"]\nthreads = 2\ncores = \"0-1\"\nkv_type = \"q8_0\"\n\
             [models]\n\"org/repo\" = { top_k = 3 }\n",
        )
        .expect("valid");
        let of = |model: Option<&str>| config.settings(model).expect("valid");
        let smol = of(Some("smollm2:135m"));
        assert_eq!((smol.threads, smol.kv_type), (Some(2), Some(KvType::Q8_0)));
        assert_eq!(smol.cores, "0-1".parse().ok());
        assert_eq!(smol.sampling.temperature, Some(0.5));
        let lines = ["threads", "cores", "temperature"].map(|name| smol.entries[name].line);
        assert_eq!(lines, [7, 8, 3]);
        let repo = of(Some("hf:org/repo"));
        assert_eq!((repo.threads, repo.sampling.top_k), (Some(1), Some(3)));
        assert_eq!(repo.sampling.stop, ["END"]);
        for model in [None, Some("gemma3:270m")] {
            assert_eq!(
                (of(model).threads, of(model).cores.clone()),
                (Some(1), None)
            );
        }
        assert_eq!(read("").expect("empty").all, Section::new());
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_the_way_out() {
        for (text, message, hint) in [
            (
                "a = 1",
                "line 1: there is no setting `a`",
                "take the line out",
            ),
            (
                "\n\nmax-context = 9",
                "line 3: there is no setting `max-context`",
                "`max_context`?",
            ),
            (
                "threads = 0",
                "line 1: `threads` is 0, must be a whole",
                "change the line",
            ),
            (
                "threads = \"2\"",
                "`threads` is \"2\", must be a whole",
                "default of threads",
            ),
            (
                "threads = 1979-05-27",
                "`threads` is null, must be",
                "default of threads",
            ),
            (
                "temperature = nan",
                "`temperature` is null, must be",
                "change the line",
            ),
            (
                "[threads]\nx = 1",
                "line 1: `threads` is {}, must be",
                "change the line",
            ),
            ("threads = 1\nthreads = 2", "line 2: duplicate key", "TOML"),
            ("threads 2", "line 1: ", "TOML"),
            ("models = 1", "line 1: `models` is no table", "[models.\""),
            (
                "[models]\nthreads = 1",
                "line 2: `threads` is no table",
                "[models.\"",
            ),
            (
                "[models.\"nope\"]",
                "line 1: `nope` is neither",
                "whole path",
            ),
            (
                "[models.smollm2]\n[models.\"smollm2:135m\"]",
                "line 2: `smollm2:135m` is the same model as `smollm2`",
                "whole path",
            ),
            (
                "[models.smollm2.models]",
                "line 1: there is no setting `models`",
                "take the line",
            ),
            (
                "[models.smollm2]\ntop_p = 2",
                "line 2: `top_p` is 2, must be",
                "change the line",
            ),
        ] {
            let failure = Failure::from(read(text).expect_err(text));
            let Failure::Error {
                kind,
                message: found,
                hint: Some(way_out),
            } = failure
            else {
                panic!("{failure:?}");
            };
            assert_eq!(kind, "invalid_config");
            assert!(found.starts_with("c.toml, line "), "{text:?}: {found}");
            assert!(found.contains(message), "{text:?}: {found}");
            assert!(way_out.contains(hint), "{text:?}: {way_out}");
        }
    }

    #[test]
    fn deep_nesting_is_refused() {
        let text = format!("stop = {}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(matches!(read(&text), Err(ConfigError::Syntax { .. })));
    }
}
