//! Python's filters, operators and methods, as far as the engine's own are missing, differ, or
//! make much of little. All charge the render's budget before they work.

use minijinja::formatting::{self, FormatStyle};
use minijinja::value::{Kwargs, Tuple, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat::unknown_method_callback;

use super::budget::Budget;
use super::guard;
use super::python::{self, JsonStyle};

/// Bytes that one piece of a string counts when it is cut, beside its own.
const PIECE: usize = 48;

/// Widest field of a format string, in digits.
const FORMAT_DIGITS: usize = 4;

pub(super) fn refuse(detail: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, detail)
}

/// An argument by position or by name; `None` where it is absent or `none`.
fn argument(
    args: &[Value],
    kwargs: &Kwargs,
    index: usize,
    name: &str,
) -> Result<Option<Value>, Error> {
    let given = match args.get(index) {
        Some(value) => Some(value.clone()),
        None => kwargs.get::<Option<Value>>(name)?,
    };
    Ok(given.filter(|value| !value.is_none() && !value.is_undefined()))
}

/// `json.dumps(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`
pub(super) fn tojson(
    budget: &Budget,
    value: &Value,
    args: &[Value],
    kwargs: &Kwargs,
) -> Result<Value, Error> {
    let ascii = argument(args, kwargs, 0, "ensure_ascii")?.is_some_and(|value| value.is_true());
    let indent = match argument(args, kwargs, 1, "indent")? {
        None => None,
        Some(value) => Some(match (value.as_str(), value.as_usize()) {
            (Some(text), _) if text.len() <= 32 => text.to_owned(),
            (_, Some(width)) if width <= 32 => " ".repeat(width),
            _ => return Err(refuse("tojson: the indent is at most 32 characters".into())),
        }),
    };
    let (item_separator, key_separator) = match argument(args, kwargs, 2, "separators")? {
        None if indent.is_some() => (",".to_owned(), ": ".to_owned()),
        None => (", ".to_owned(), ": ".to_owned()),
        Some(pair) => {
            budget.deep(&pair)?;
            let parts: Vec<String> = pair.try_iter()?.map(|part| part.to_string()).collect();
            match <[String; 2]>::try_from(parts) {
                Ok([item, key]) if item.len() + key.len() <= 32 => (item, key),
                _ => return Err(refuse("tojson: separators are two short strings".into())),
            }
        }
    };
    let sort_keys = argument(args, kwargs, 3, "sort_keys")?.is_some_and(|value| value.is_true());
    let style = JsonStyle {
        ascii,
        sort_keys,
        indent,
        item_separator,
        key_separator,
    };
    budget.deep(value)?;
    let text = python::json(value, &style)?;
    budget.charge(text.len())?;
    Ok(Value::from(text))
}

/// Jinja's `trim`, which is Python's `str.strip`.
pub(super) fn trim(
    budget: &Budget,
    value: &Value,
    args: &[Value],
    kwargs: &Kwargs,
) -> Result<Value, Error> {
    let text = value.to_string();
    budget.charge(text.len())?;
    Ok(Value::from(match argument(args, kwargs, 0, "chars")? {
        None => text.trim_matches(python::is_space),
        Some(chars) => {
            let chars: Vec<char> = chars.to_string().chars().collect();
            text.trim_matches(chars.as_slice())
        }
    }))
}

pub(super) fn join(
    budget: &Budget,
    value: &Value,
    args: &[Value],
    kwargs: &Kwargs,
) -> Result<Value, Error> {
    budget.deep(value)?;
    let separator = argument(args, kwargs, 0, "d")?
        .map(|d| d.to_string())
        .unwrap_or_default();
    let attribute = argument(args, kwargs, 1, "attribute")?.map(|name| name.to_string());
    budget.charge(separator.len().saturating_mul(value.len().unwrap_or(0)))?;
    let mut out = String::new();
    for (index, item) in value.try_iter()?.enumerate() {
        if index > 0 {
            out.push_str(&separator);
        }
        let item = match &attribute {
            Some(name) => item.get_attr(name)?,
            None => item,
        };
        out.push_str(&item.to_string());
    }
    Ok(Value::from(out))
}

pub(super) fn replace(
    budget: &Budget,
    value: &Value,
    args: &[Value],
    _kwargs: &Kwargs,
) -> Result<Value, Error> {
    let [old, new, rest @ ..] = args else {
        return Err(refuse(
            "replace: it takes what to replace and what with".into(),
        ));
    };
    let count = rest
        .first()
        .filter(|count| !count.is_none())
        .and_then(Value::as_usize);
    budget.deep(value)?;
    budget.deep(old)?;
    budget.deep(new)?;
    replaced(
        budget,
        &value.to_string(),
        &old.to_string(),
        &new.to_string(),
        count,
    )
}

/// `str.replace`, after the bytes it makes have been paid for.
fn replaced(
    budget: &Budget,
    text: &str,
    old: &str,
    new: &str,
    count: Option<usize>,
) -> Result<Value, Error> {
    let matches = text.matches(old).count().min(count.unwrap_or(usize::MAX));
    let made = new.len().saturating_add(PIECE).saturating_mul(matches);
    budget.charge(text.len().saturating_add(made))?;
    Ok(Value::from(match count {
        Some(count) => text.replacen(old, new, count),
        None => text.replace(old, new),
    }))
}

pub(super) fn indent(
    budget: &Budget,
    value: &Value,
    args: &[Value],
    kwargs: &Kwargs,
) -> Result<Value, Error> {
    let width = argument(args, kwargs, 0, "width")?;
    let fill = match width
        .as_ref()
        .map(|width| (width.as_str(), width.as_usize()))
    {
        None => "    ".to_owned(),
        Some((Some(text), _)) => text.to_owned(),
        Some((None, Some(width))) if width <= 256 => " ".repeat(width),
        Some(_) => return Err(refuse("indent: the width is 0 to 256".into())),
    };
    let first = argument(args, kwargs, 1, "first")?.is_some_and(|value| value.is_true());
    let blank = argument(args, kwargs, 2, "blank")?.is_some_and(|value| value.is_true());
    let text = value.to_string();
    let lines = text.split('\n').count();
    budget.charge(text.len().saturating_add(fill.len().saturating_mul(lines)))?;
    let mut out = String::new();
    for (index, line) in text.split('\n').enumerate() {
        if index > 0 {
            out.push('\n');
        }
        if (index > 0 || first) && (blank || !line.is_empty()) {
            out.push_str(&fill);
        }
        out.push_str(line);
    }
    Ok(Value::from(out))
}

pub(super) fn format(
    budget: &Budget,
    value: &Value,
    args: &[Value],
    _kwargs: &Kwargs,
) -> Result<Value, Error> {
    printf(budget, value, args)
}

pub(super) fn printf(budget: &Budget, text: &Value, args: &[Value]) -> Result<Value, Error> {
    check_format(budget, text, args)?;
    formatting::format(FormatStyle::Printf, &text.to_string(), args).map(Value::from)
}

/// Charges for the arguments of a format string, whose fields must not be wide.
fn check_format(budget: &Budget, text: &Value, args: &[Value]) -> Result<(), Error> {
    let text = text.to_string();
    let mut longest = 0;
    let mut digits = 0;
    for c in text.chars() {
        digits = if c.is_ascii_digit() { digits + 1 } else { 0 };
        longest = longest.max(digits);
    }
    if longest > FORMAT_DIGITS || text.contains('*') {
        let detail = format!("format: a field of more than {FORMAT_DIGITS} digits, or `*`");
        return Err(refuse(detail));
    }
    // A format string may name one argument many times, and pad each.
    let fields = text.matches(['%', '{']).count();
    budget.charge(
        fields
            .saturating_mul(10usize.pow(4))
            .saturating_add(text.len()),
    )?;
    for _ in 0..fields.max(1) {
        args.iter().try_for_each(|argument| budget.deep(argument))?;
    }
    Ok(())
}

pub(super) fn list(
    budget: &Budget,
    value: &Value,
    _args: &[Value],
    _kwargs: &Kwargs,
) -> Result<Value, Error> {
    budget.charge(value.len().unwrap_or(0).saturating_mul(PIECE))?;
    match value.as_str() {
        Some(text) => Ok(text.chars().map(Value::from).collect()),
        None => Ok(value.try_iter()?.collect()),
    }
}

/// `a * b`
pub(super) fn times(budget: &Budget, a: &Value, b: &Value) -> Result<Value, Error> {
    let (many, count) = if b.is_number() || b.kind() == ValueKind::Bool {
        (a, b)
    } else {
        (b, a)
    };
    match many.kind() {
        ValueKind::Number | ValueKind::Bool => product(a, b),
        ValueKind::String => {
            let text = many.as_str().unwrap_or_default();
            let count = repetitions(count)?;
            budget.charge(text.len().saturating_mul(count))?;
            Ok(Value::from(text.repeat(count)))
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let count = repetitions(count)?;
            budget.charge(
                many.len()
                    .unwrap_or(1)
                    .saturating_mul(count)
                    .saturating_mul(PIECE),
            )?;
            let items: Vec<Value> = many.try_iter()?.collect();
            Ok(std::iter::repeat_n(items, count).flatten().collect())
        }
        kind => Err(refuse(format!("a {kind} among the factors of a product"))),
    }
}

/// How often a string or list is repeated; none for a negative number, as in Python.
fn repetitions(count: &Value) -> Result<usize, Error> {
    let count = i64::try_from(count.clone()).map_err(|_| {
        refuse("a string or list can only be repeated a whole number of times".into())
    })?;
    Ok(usize::try_from(count).unwrap_or(0))
}

fn product(a: &Value, b: &Value) -> Result<Value, Error> {
    let whole = |value: &Value| value.is_integer() || value.kind() == ValueKind::Bool;
    if let (Ok(x), Ok(y)) = (i128::try_from(a.clone()), i128::try_from(b.clone()))
        && whole(a)
        && whole(b)
    {
        let product = x
            .checked_mul(y)
            .ok_or_else(|| refuse("a product overflows".into()))?;
        return Ok(i64::try_from(product).map_or(Value::from(product), Value::from));
    }
    match (f64::try_from(a.clone()), f64::try_from(b.clone())) {
        (Ok(a), Ok(b)) => Ok(Value::from(a * b)),
        _ => Err(refuse("a product of things that are no numbers".into())),
    }
}

/// Methods of Python's values.
pub(super) fn method(
    budget: &Budget,
    state: &mut State<'_, '_>,
    value: &Value,
    name: &str,
    args: &[Value],
) -> Result<Value, Error> {
    if name == guard::SLICE {
        let part = |index: usize| args.get(index).filter(|part| !part.is_none());
        return slice(budget, value, [part(0), part(1), part(2)]);
    }
    budget.shallow(value)?;
    args.iter()
        .try_for_each(|argument| budget.shallow(argument))?;
    let Some(text) = value.as_str() else {
        return unknown_method_callback(state, value, name, args);
    };
    let bare = args.first().is_none_or(Value::is_none);
    match (name, args) {
        ("strip", _) if bare => Ok(Value::from(text.trim_matches(python::is_space))),
        ("lstrip", _) if bare => Ok(Value::from(text.trim_start_matches(python::is_space))),
        ("rstrip", _) if bare => Ok(Value::from(text.trim_end_matches(python::is_space))),
        ("replace", [old, new, rest @ ..]) => {
            let (Some(old), Some(new)) = (old.as_str(), new.as_str()) else {
                return Err(refuse("replace: it takes two strings".into()));
            };
            replaced(
                budget,
                text,
                old,
                new,
                rest.first().and_then(Value::as_usize),
            )
        }
        ("split" | "splitlines", _) => {
            let pieces = match args.first().and_then(Value::as_str) {
                Some("") => return Err(refuse("split: the separator is empty".into())),
                Some(separator) => text.matches(separator).count(),
                None => text.matches(char::is_whitespace).count(),
            };
            budget.charge(pieces.saturating_add(1).saturating_mul(PIECE))?;
            unknown_method_callback(state, value, name, args)
        }
        ("join", [items, ..]) => {
            budget.deep(items)?;
            budget.charge(text.len().saturating_mul(items.len().unwrap_or(0)))?;
            unknown_method_callback(state, value, name, args)
        }
        ("format", _) => {
            check_format(budget, value, args)?;
            unknown_method_callback(state, value, name, args)
        }
        _ => unknown_method_callback(state, value, name, args),
    }
}

/// `value[start:stop:step]`, as in Python.
fn slice(budget: &Budget, value: &Value, parts: [Option<&Value>; 3]) -> Result<Value, Error> {
    let mut numbers = [None; 3];
    for (number, part) in numbers.iter_mut().zip(parts) {
        if let Some(part) = part {
            let whole = i64::try_from(part.clone());
            *number = Some(whole.map_err(|_| refuse("a slice takes whole numbers".into()))?);
        }
    }
    let [start, stop, step] = numbers;
    let step = step.unwrap_or(1);
    if step == 0 {
        return Err(refuse("the step of a slice is zero".into()));
    }
    if let Some(text) = value.as_str() {
        budget.charge(text.len().saturating_mul(4))?;
        let chars: Vec<char> = text.chars().collect();
        let picked = places(chars.len(), start, stop, step).filter_map(|at| chars.get(at));
        return Ok(Value::from(picked.collect::<String>()));
    }
    if !matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) {
        return Err(refuse(format!("a {} cannot be sliced", value.kind())));
    }
    budget.charge(value.len().unwrap_or(0).saturating_mul(PIECE))?;
    let items: Vec<Value> = value.try_iter()?.collect();
    let picked = places(items.len(), start, stop, step).filter_map(|at| items.get(at).cloned());
    let picked: Vec<Value> = picked.collect();
    Ok(if value.is_tuple() {
        Value::from(Tuple::from(picked))
    } else {
        Value::from(picked)
    })
}

/// The places that a slice picks from so many (Python, "Common Sequence Operations", note 5).
fn places(
    length: usize,
    start: Option<i64>,
    stop: Option<i64>,
    step: i64,
) -> impl Iterator<Item = usize> {
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    let (low, high) = if step > 0 {
        (0, length)
    } else {
        (-1, length - 1)
    };
    let clamp = |place: i64| {
        let place = if place < 0 {
            place.saturating_add(length)
        } else {
            place
        };
        place.clamp(low, high)
    };
    let (first, last) = if step > 0 { (low, high) } else { (high, low) };
    let stop = stop.map_or(last, clamp);
    let mut at = start.map_or(first, clamp);
    std::iter::from_fn(move || {
        let inside = if step > 0 { at < stop } else { at > stop };
        let place = usize::try_from(at).ok().filter(|_| inside)?;
        at = at.saturating_add(step);
        Some(place)
    })
}
