//! A schema's size and options, before it is compiled.

use serde_json::{Value, json};

use super::limits::{MAX_BYTES, MAX_NESTING};
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
    let too_large = |problem: String| GrammarError::TooLarge {
        kind: grammar.kind(),
        problem,
    };
    if nesting(schema, MAX_NESTING) > MAX_NESTING {
        return Err(too_large(format!(
            "it nests deeper than {MAX_NESTING} levels"
        )));
    }
    if written(schema) > MAX_BYTES {
        return Err(too_large(format!(
            "it is over {} KiB of JSON",
            MAX_BYTES >> 10
        )));
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
    let options = json!({ "whitespace_pattern": WHITE_SPACE });
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

/// Bytes of the value as JSON, without escapes.
fn written(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
        Value::String(text) => text.len() + 2,
        Value::Array(items) => items.iter().map(|item| written(item) + 1).sum::<usize>() + 2,
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| name.len() + 4 + written(value);
            fields.iter().map(field).sum::<usize>() + 2
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
        let long = json!({ "description": "a".repeat(MAX_BYTES) });
        assert!(matches!(check(long), Err(GrammarError::TooLarge { .. })));
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
