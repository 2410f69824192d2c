//! Parameters of a call: each is taken out by name and type, and what is left over is an error.

use serde_json::{Map, Value};

use super::error::JsonError;

/// The parameters of a call that were not looked at yet. `null` counts as left out.
pub(super) struct Params {
    left: Map<String, Value>,
    /// What they are part of, as a prefix of their names.
    of: &'static str,
}

impl Params {
    /// The parameters of a call: an object, or nothing.
    pub(super) fn new(params: Value) -> Result<Self, JsonError> {
        Self::of("", params)
            .map_err(|_| JsonError::new("invalid_request", "params must be an object"))
    }

    /// The fields of the parameter `name`.
    pub(super) fn of(name: &'static str, params: Value) -> Result<Self, JsonError> {
        match params {
            Value::Null => Ok(Self {
                left: Map::new(),
                of: name,
            }),
            Value::Object(left) => Ok(Self { left, of: name }),
            other => Err(wrong_type(name, &other, "an object")),
        }
    }

    /// All that is left, as it is.
    pub(super) fn copy(&self) -> Value {
        Value::Object(self.left.clone())
    }

    /// Any value.
    pub(super) fn value(&mut self, name: &str) -> Option<Value> {
        // The order of what is left does not matter: it is sorted before it is shown.
        self.left.swap_remove(name).filter(|value| !value.is_null())
    }

    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, JsonError> {
        self.typed(name, "a string", |value| match value {
            Value::String(text) => Some(text.clone()),
            _ => None,
        })
    }

    pub(super) fn required_text(&mut self, name: &str) -> Result<String, JsonError> {
        let text = self.text(name)?;
        text.filter(|text| !text.is_empty())
            .ok_or_else(|| JsonError::parameter(&self.full(name), "is missing"))
    }

    pub(super) fn truth(&mut self, name: &str) -> Result<Option<bool>, JsonError> {
        self.typed(name, "true or false", Value::as_bool)
    }

    pub(super) fn count(&mut self, name: &str) -> Result<Option<usize>, JsonError> {
        let what = "a whole number of at least 0";
        self.typed(name, what, |value| usize::try_from(value.as_u64()?).ok())
    }

    pub(super) fn seed(&mut self, name: &str) -> Result<Option<u64>, JsonError> {
        self.typed(name, "a whole number of at least 0", Value::as_u64)
    }

    pub(super) fn number(&mut self, name: &str) -> Result<Option<f32>, JsonError> {
        self.typed(name, "a number", |value| Some(value.as_f64()? as f32))
    }

    /// A string, or a list of strings.
    pub(super) fn texts(&mut self, name: &str) -> Result<Option<Vec<String>>, JsonError> {
        self.typed(name, "a string or a list of strings", |value| match value {
            Value::String(text) => Some(vec![text.clone()]),
            Value::Array(list) => list
                .iter()
                .map(|item| item.as_str().map(str::to_owned))
                .collect(),
            _ => None,
        })
    }

    /// An error where something was not asked for.
    pub(super) fn finish(self) -> Result<(), JsonError> {
        let mut names: Vec<String> = self.left.keys().map(|name| self.full(name)).collect();
        names.sort_unstable();
        let Some(first) = names.first() else {
            return Ok(());
        };
        let list = names.join("`, `");
        let plural = if names.len() > 1 { "s" } else { "" };
        let message = format!("unknown parameter{plural} `{list}`");
        Err(JsonError::new("invalid_parameter", message).with_param(first))
    }

    fn typed<T>(
        &mut self,
        name: &str,
        wanted: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>, JsonError> {
        let Some(value) = self.value(name) else {
            return Ok(None);
        };
        match read(&value) {
            Some(it) => Ok(Some(it)),
            None => Err(wrong_type(&self.full(name), &value, wanted)),
        }
    }

    fn full(&self, name: &str) -> String {
        if self.of.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.of)
        }
    }
}

fn wrong_type(name: &str, value: &Value, wanted: &str) -> JsonError {
    let found = match value {
        Value::Null => "null".to_owned(),
        Value::Bool(it) => it.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(_) => "a string".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    };
    JsonError::parameter(name, format!("is {found}, must be {wanted}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn params(value: Value) -> Params {
        Params::new(value).expect("an object")
    }

    fn message(error: JsonError) -> String {
        let value = error.into_value();
        value["message"].as_str().expect("a message").to_owned()
    }

    #[test]
    fn what_nobody_asked_for_is_named() {
        let mut all = params(json!({"zeta": 1, "known": "x", "alpha": null}));
        assert_eq!(all.text("known").expect("a string").as_deref(), Some("x"));
        let error = all.finish().expect_err("left over").into_value();
        assert_eq!(
            error,
            json!({
                "code": "invalid_parameter",
                "message": "unknown parameters `alpha`, `zeta`",
                "param": "alpha",
            })
        );
        let inner = Params::of("config", json!({"x": 1})).expect("an object");
        let error = inner.finish().expect_err("left over");
        assert_eq!(message(error), "unknown parameter `config.x`");
        params(Value::Null).finish().expect("nothing is left");
    }

    #[test]
    fn wrong_types_are_named() {
        for value in [json!([]), json!("x"), json!(1)] {
            let error = Params::new(value).err().expect("no object");
            assert_eq!(message(error), "params must be an object");
        }
        let text = |value| {
            params(json!({"a": value}))
                .text("a")
                .expect_err("wrong type")
        };
        assert_eq!(message(text(json!(1.5))), "`a` is 1.5, must be a string");
        assert_eq!(message(text(json!(true))), "`a` is true, must be a string");
        assert_eq!(message(text(json!([1]))), "`a` is a list, must be a string");
        for value in [json!(-1), json!(1.5), json!("1"), json!(true)] {
            let error = params(json!({"a": value}))
                .count("a")
                .expect_err("wrong type");
            assert!(message(error).ends_with("must be a whole number of at least 0"));
        }
        for value in [json!("0.5"), json!({}), json!(false)] {
            let error = params(json!({"a": value}))
                .number("a")
                .expect_err("wrong type");
            assert!(message(error).ends_with("must be a number"));
        }
        let error = params(json!({"a": ["x", 1]}))
            .texts("a")
            .expect_err("wrong type");
        assert!(message(error).contains("a list of strings"));
        let error = params(json!({"a": 1})).truth("a").expect_err("wrong type");
        assert_eq!(message(error), "`a` is 1, must be true or false");
        for missing in [json!({}), json!({"a": null}), json!({"a": ""})] {
            let error = params(missing).required_text("a").expect_err("missing");
            assert_eq!(message(error), "`a` is missing");
        }
    }

    #[test]
    fn right_types_are_taken() {
        let mut all = params(json!({"n": 3, "f": 2, "s": ["a", "b"], "t": "c", "b": false}));
        assert_eq!(all.count("n").expect("a count"), Some(3));
        assert_eq!(all.number("f").expect("a number"), Some(2.0));
        assert_eq!(
            all.texts("s").expect("texts"),
            Some(vec!["a".into(), "b".into()])
        );
        assert_eq!(all.texts("t").expect("a text"), Some(vec!["c".into()]));
        assert_eq!(all.truth("b").expect("a truth"), Some(false));
        assert_eq!(all.seed("none").expect("left out"), None);
        all.finish().expect("nothing is left");
    }
}
