//! A schema's size and options, before it is compiled.

use serde_json::{Value, json};

use super::limits::{MAX_BYTES, MAX_NAME_PATTERNS, MAX_NAMES, MAX_NESTING, MAX_TEXT, MAX_VALUES};
use super::{Grammar, GrammarError};

/// White space between the parts of a JSON text: as people and other programs write it, and no
/// more. A model could go on with it for ever.
const WHITE_SPACE: &str = r" |\n[ \t]{0,20}";
/// Where the compiler looks for its own options.
const OPTIONS: &str = "x-guidance";

/// Any JSON object.
pub(super) fn any_object() -> Value {
    json!({ "type": "object" })
}

/// The schema with our options in it.
///
/// # Errors
/// [`GrammarError::TooLarge`], and [`GrammarError::Invalid`] for what is no schema.
pub(super) fn prepare(grammar: &Grammar, schema: &Value) -> Result<Value, GrammarError> {
    let options = json!({ "whitespace_pattern": WHITE_SPACE });
    with_options(grammar, schema, options)
}

/// The same for JSON as most programs write it on one line, without a choice.
///
/// # Errors
/// Those of [`prepare`].
pub(super) fn on_one_line(grammar: &Grammar, schema: &Value) -> Result<Value, GrammarError> {
    let options =
        json!({ "whitespace_flexible": false, "item_separator": ", ", "key_separator": ": " });
    with_options(grammar, schema, options)
}

fn with_options(grammar: &Grammar, schema: &Value, options: Value) -> Result<Value, GrammarError> {
    let too_large = |problem: String| GrammarError::TooLarge {
        kind: grammar.kind(),
        problem,
    };
    if nesting(schema, MAX_NESTING) > MAX_NESTING {
        return Err(too_large(format!(
            "it nests deeper than {MAX_NESTING} levels"
        )));
    }
    let mut census = Census::default();
    census.count(schema, "").map_err(|it| grammar.invalid(it))?;
    for (what, found, most) in [
        (
            "KiB of JSON",
            census.bytes.div_ceil(1 << 10),
            MAX_BYTES >> 10,
        ),
        ("values", census.values, MAX_VALUES),
        ("names or values in one place", census.names, MAX_NAMES),
        ("patterns of names", census.patterns, MAX_NAME_PATTERNS),
        ("characters in one text", census.text, MAX_TEXT),
    ] {
        if found > most {
            return Err(too_large(format!("it has more than {most} {what}")));
        }
    }
    let mut object = match schema {
        // Anything at all.
        Value::Bool(true) => serde_json::Map::new(),
        Value::Object(object) => object.clone(),
        _ => return Err(grammar.invalid("it must be an object")),
    };
    if object.contains_key(OPTIONS) {
        return Err(grammar.invalid(format!("`{OPTIONS}` is no keyword")));
    }
    object.insert(OPTIONS.to_owned(), options);
    Ok(Value::Object(object))
}

/// Levels of arrays and objects, at most one more than `most`: what nests deeper is not looked at.
fn nesting(value: &Value, most: usize) -> usize {
    let inner = match value {
        Value::Array(items) => items.iter().map(|it| within(it, most)).max(),
        Value::Object(fields) => fields.values().map(|it| within(it, most)).max(),
        _ => return 0,
    };
    1 + inner.unwrap_or(0)
}

fn within(value: &Value, most: usize) -> usize {
    match most.checked_sub(1) {
        Some(most) => nesting(value, most),
        None => 0,
    }
}

/// Keywords whose values say nothing of the text.
const ANNOTATIONS: [&str; 6] = [
    "title",
    "description",
    "$comment",
    "default",
    "examples",
    "$id",
];
/// Numbers below are told apart as floats, which is how the compiler has them.
const LARGEST: f64 = 9_007_199_254_740_992.0;

/// What a schema asks of the compiler.
#[derive(Debug, Default)]
struct Census {
    /// Of the schema as JSON, without escapes.
    bytes: usize,
    values: usize,
    /// The most in one object or list.
    names: usize,
    patterns: usize,
    /// Characters of the longest text.
    text: usize,
}

impl Census {
    /// Counts the value of a keyword or a property.
    fn count(&mut self, value: &Value, key: &str) -> Result<(), String> {
        let is_counted = !ANNOTATIONS.contains(&key);
        self.values += 1;
        match value {
            Value::Null | Value::Bool(_) => self.bytes += 5,
            Value::Number(number) => {
                self.bytes += 8;
                if is_counted && number.as_f64().is_none_or(|it| it.abs() >= LARGEST) {
                    return Err(format!(
                        "{number} is not below 2^53: beyond, numbers are not kept apart"
                    ));
                }
            }
            Value::String(text) => self.text(text, is_counted),
            Value::Array(items) => {
                self.names = self.names.max(items.len());
                self.bytes += items.len() + 2;
                for item in items {
                    self.count(item, key)?;
                }
            }
            Value::Object(fields) => {
                self.names = self.names.max(fields.len());
                if key == "patternProperties" {
                    self.patterns += fields.len();
                }
                self.bytes += 2;
                for (name, value) in fields {
                    self.text(name, true);
                    self.count(value, name)?;
                }
            }
        }
        Ok(())
    }

    fn text(&mut self, text: &str, is_counted: bool) {
        self.bytes += text.len() + 4;
        if is_counted {
            self.text = self.text.max(text.chars().count());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(levels: usize) -> Value {
        (0..levels).fold(json!(true), |inner, _| json!({ "items": inner }))
    }

    #[test]
    fn size_and_nesting_are_bounded() {
        let check = |schema: Value| prepare(&Grammar::JsonSchema(schema.clone()), &schema);
        assert!(check(nested(MAX_NESTING)).is_ok());
        for levels in [MAX_NESTING + 1, 1000] {
            let error = check(nested(levels)).unwrap_err().to_string();
            assert!(error.contains("deeper than 64 levels"), "{error}");
        }
        let many = |n: usize| (0..n).map(|i| (format!("^a{i}$"), json!(true)));
        let object = |n: usize| Value::Object(many(n).collect());
        let names: Vec<String> = many(1001).map(|(name, _)| name).collect();
        for (schema, part) in [
            (json!({ "description": "a".repeat(MAX_BYTES) }), "128 KiB"),
            (json!({ "const": "a".repeat(5000) }), "4096 characters"),
            (json!({ "required": names }), "1000 names"),
            (json!({ "properties": object(1001) }), "1000 names"),
            (json!({ "patternProperties": object(17) }), "16 patterns"),
            (
                json!({ "anyOf": vec![json!({ "enum": vec![1; 200] }); 60] }),
                "10000 values",
            ),
        ] {
            let error = check(schema).unwrap_err();
            assert!(matches!(error, GrammarError::TooLarge { .. }), "{error}");
            assert!(error.to_string().contains(part), "{error}");
        }
        let described = json!({ "description": "a".repeat(5000), "default": 1_u64 << 60 });
        assert!(check(described).is_ok());
        for number in [9_007_199_254_740_993_i64, -(1 << 60)] {
            let error = check(json!({ "enum": [1, number] }))
                .unwrap_err()
                .to_string();
            assert!(error.contains("2^53"), "{error}");
        }
        for (schema, part) in [
            (json!({ "x-guidance": {} }), "no keyword"),
            (json!([]), "must be an object"),
            (json!("string"), "must be an object"),
        ] {
            let error = check(schema).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
