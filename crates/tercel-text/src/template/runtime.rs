//! What a template finds while it runs: functions, filters and methods of Python, each of which
//! charges the render's budget for the text it touches.

use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Environment, Error, State, Value, escape_formatter};

use super::budget::Budget;
use super::filters::{self, refuse};
use super::guard;
use super::python;

/// Filters of the engine that chat templates have no use for, and that make much of little.
const REMOVED: &[&str] = &["batch", "slice", "pprint", "chain", "zip", "groupby"];

/// Adds what `transformers` gives a template, and what guards it.
pub(super) fn install(
    environment: &mut Environment<'_>,
    budget: &Budget,
    local_seconds: Option<i64>,
) {
    for name in REMOVED {
        environment.remove_filter(name);
    }
    environment.remove_global("debug");
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", move |format: &str| {
        python::strftime(format, local_seconds.unwrap_or_else(utc_seconds))
    });
    environment.add_filter("tojson", charged(budget, filters::tojson));
    environment.add_filter("trim", charged(budget, filters::trim));
    environment.add_filter("join", charged(budget, filters::join));
    environment.add_filter("replace", charged(budget, filters::replace));
    environment.add_filter("indent", charged(budget, filters::indent));
    environment.add_filter("format", charged(budget, filters::format));
    environment.add_filter("string", |value: Value| match python::float_text(&value) {
        Some(text) => Value::from(text),
        None if value.kind() == ValueKind::String => value,
        None => Value::from(value.to_string()),
    });
    environment.add_filter("list", charged(budget, filters::list));
    guards(environment, budget);
    comparisons(environment, budget);
    let own = budget.clone();
    environment.set_formatter(move |out, state, value| {
        own.deep(value)?;
        match python::float_text(value) {
            Some(text) => escape_formatter(out, state, &Value::from(text)),
            None => escape_formatter(out, state, value),
        }
    });
    let own = budget.clone();
    environment.set_unknown_method_callback(move |state, value, name, args| {
        filters::method(&own, state, value, name, args)
    });
}

/// The filters that `super::guard` writes into a template.
fn guards(environment: &mut Environment<'_>, budget: &Budget) {
    let own = budget.clone();
    environment.add_filter(guard::SHALLOW, move |value: Value| {
        own.shallow(&value).map(|()| value)
    });
    let own = budget.clone();
    environment.add_filter(guard::DEEP, move |value: Value| {
        own.deep(&value).map(|()| value)
    });
    let own = budget.clone();
    environment.add_filter(guard::NESTED, move |value: Value| {
        own.nested(&value).map(|()| value)
    });
    let own = budget.clone();
    environment.add_filter(guard::STORED, move |value: Value| {
        own.stored(&value).map(|()| value)
    });
    environment.add_filter(guard::NUMBER, |value: Value| match value.kind() {
        ValueKind::Number | ValueKind::Bool => Ok(value),
        kind => Err(refuse(format!("a {kind} among the factors of a product"))),
    });
    let own = budget.clone();
    environment.add_filter(guard::TIMES, move |a: Value, b: Value| {
        filters::times(&own, &a, &b)
    });
    let own = budget.clone();
    environment.add_filter(guard::PERCENT, move |text: Value, given: Value| {
        let args = if given.is_tuple() {
            given.try_iter()?.collect()
        } else {
            vec![given]
        };
        filters::printf(&own, &text, &args)
    });
    let own = budget.clone();
    environment.add_function(guard::TEXT, move |bytes: usize| {
        own.charge(bytes).map(|()| "")
    });
}

/// The engine's comparisons by name, charged: `selectattr('role', 'equalto', 'user')`.
fn comparisons(environment: &mut Environment<'_>, budget: &Budget) {
    type Test = fn(&Value, &Value) -> bool;
    let tests: [(&[&'static str], Test); 7] = [
        (&["eq", "equalto", "=="], |a, b| a == b),
        (&["ne", "!="], |a, b| a != b),
        (&["lt", "lessthan", "<"], |a, b| a < b),
        (&["le", "<="], |a, b| a <= b),
        (&["gt", "greaterthan", ">"], |a, b| a > b),
        (&["ge", ">="], |a, b| a >= b),
        (&["sameas"], |a, b| a.kind() == b.kind() && a == b),
    ];
    for (names, test) in tests {
        for name in names {
            let own = budget.clone();
            environment.add_test(*name, move |a: Value, b: Value| {
                own.deep(&a)?;
                own.deep(&b)?;
                Ok::<_, Error>(test(&a, &b))
            });
        }
    }
    let own = budget.clone();
    environment.add_test("in", move |state: &State<'_, '_>, a: Value, b: Value| {
        own.deep(&a)?;
        own.deep(&b)?;
        minijinja::tests::is_in(state, &a, &b)
    });
}

/// A filter that gets the render's budget, its value, and its other arguments.
type Filter = fn(&Budget, &Value, &[Value], &Kwargs) -> Result<Value, Error>;

fn charged(
    budget: &Budget,
    filter: Filter,
) -> impl Fn(Value, Rest<Value>, Kwargs) -> Result<Value, Error> + Send + Sync + 'static {
    let budget = budget.clone();
    move |value, args, kwargs| {
        let result = filter(&budget, &value, &args, &kwargs)?;
        kwargs.assert_all_used()?;
        Ok(result)
    }
}

fn raise_exception(message: &str) -> Result<Value, Error> {
    Err(refuse(message.to_owned()))
}

fn utc_seconds() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(0)
}
