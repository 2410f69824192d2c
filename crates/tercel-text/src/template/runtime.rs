//! What a template finds while it runs: functions, filters and methods of Python.

use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::value::{Kwargs, Rest};
use minijinja::{Environment, Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat::unknown_method_callback;

use super::python::{self, JsonStyle};

/// Adds what `transformers` gives a template.
pub(super) fn install(environment: &mut Environment<'_>, local_seconds: Option<i64>) {
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", move |format: &str| {
        python::strftime(format, local_seconds.unwrap_or_else(utc_seconds))
    });
    environment.add_filter("tojson", tojson);
    environment.add_filter("trim", trim);
    environment.set_unknown_method_callback(method);
}

/// Runs a render where deep recursion has room: a template may build a value so deep that taking
/// it apart would overflow the stack of an ordinary thread.
pub(super) fn on_deep_stack<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    work()
}

fn raise_exception(message: &str) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message.to_owned()))
}

fn utc_seconds() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(0)
}

/// `json.dumps(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`
fn tojson(value: &Value, args: Rest<Value>, kwargs: Kwargs) -> Result<Value, Error> {
    let argument = |index: usize, name: &str| -> Result<Option<Value>, Error> {
        let given = match args.get(index) {
            Some(value) => Some(value.clone()),
            None => kwargs.get::<Option<Value>>(name)?,
        };
        Ok(given.filter(|value| !value.is_none()))
    };
    let refuse = |detail: &'static str| Error::new(ErrorKind::InvalidOperation, detail);
    let ascii = argument(0, "ensure_ascii")?.is_some_and(|value| value.is_true());
    let indent = match argument(1, "indent")? {
        None => None,
        Some(value) => Some(match (value.as_str(), value.as_usize()) {
            (Some(text), _) if text.len() <= 32 => text.to_owned(),
            (_, Some(width)) if width <= 32 => " ".repeat(width),
            _ => return Err(refuse("tojson: the indent is 0 to 32 spaces or characters")),
        }),
    };
    let separators = match argument(2, "separators")? {
        None => None,
        Some(pair) => {
            let parts: Vec<String> = pair.try_iter()?.map(|part| part.to_string()).collect();
            let [item, key] = parts.as_slice() else {
                return Err(refuse("tojson: separators are two strings"));
            };
            Some((item.clone(), key.clone()))
        }
    };
    let sort_keys = argument(3, "sort_keys")?.is_some_and(|value| value.is_true());
    kwargs.assert_all_used()?;
    let between = if indent.is_some() { "," } else { ", " };
    let (item_separator, key_separator) =
        separators.unwrap_or_else(|| (between.to_owned(), ": ".to_owned()));
    let style = JsonStyle {
        ascii,
        sort_keys,
        indent,
        item_separator,
        key_separator,
    };
    python::json(value, &style).map(Value::from)
}

/// Jinja's `trim`, which is Python's `str.strip`.
fn trim(text: String, chars: Option<String>) -> String {
    match chars {
        None => text.trim_matches(python::is_space).to_owned(),
        Some(chars) => text.trim_matches(|c| chars.contains(c)).to_owned(),
    }
}

/// Methods of Python's values.
fn method(
    state: &mut State<'_, '_>,
    value: &Value,
    name: &str,
    args: &[Value],
) -> Result<Value, Error> {
    if let (Some(text), true) = (value.as_str(), args.is_empty() || args[0].is_none()) {
        match name {
            "strip" => return Ok(Value::from(text.trim_matches(python::is_space))),
            "lstrip" => return Ok(Value::from(text.trim_start_matches(python::is_space))),
            "rstrip" => return Ok(Value::from(text.trim_end_matches(python::is_space))),
            _ => {}
        }
    }
    unknown_method_callback(state, value, name, args)
}
