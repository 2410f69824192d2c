//! `/set`: the sampling values by their names, as the flags and the API have them.

use serde_json::{Map, Value};
use tercel::{Chat, Sampling, Settings};

use super::command::Change;

/// Shows or changes values. Both what was done and what is wrong are for the user to read.
pub(super) fn set(chat: &mut Chat, model: &Sampling, change: &Change) -> Result<String, String> {
    match change {
        Change::ShowAll => {
            let effective = effective(chat.current_sampling(), model)?;
            let width = effective.keys().map(String::len).max().unwrap_or(0);
            let line =
                |(name, value): (&String, &Value)| format!("{name:<width$}  {}", shown(value));
            Ok(effective.iter().map(line).collect::<Vec<_>>().join("\n"))
        }
        Change::Show(name) => {
            let effective = effective(chat.current_sampling(), model)?;
            let value = effective
                .get(name)
                .ok_or_else(|| unknown(name, &effective))?;
            Ok(format!("{name}  {}", shown(value)))
        }
        Change::Set { name, value } => {
            let changed = changed(chat.current_sampling(), name, value)?;
            changed.validate().map_err(|error| error.to_string())?;
            chat.set_sampling(changed);
            set(chat, model, &Change::Show(name.clone()))
        }
    }
}

fn changed(sampling: &Sampling, name: &str, value: &str) -> Result<Sampling, String> {
    let mut values = fields(sampling)?;
    if !values.contains_key(name) {
        return Err(unknown(name, &values));
    }
    if value == "default" {
        values.remove(name);
    } else if name == "stop" {
        // One more each time, as `--stop` has it.
        match values.get_mut(name) {
            Some(Value::Array(stops)) => stops.push(value.into()),
            _ => return Err("`stop` cannot be set".to_owned()),
        }
    } else {
        let parsed = serde_json::from_str(value).unwrap_or_else(|_| value.into());
        values.insert(name.to_owned(), parsed);
    }
    serde_json::from_value(Value::Object(values))
        .map_err(|_| format!("`{value}` is no value of {name}"))
}

/// What the next reply will be made with, by name: a value, or words for what has none.
pub(crate) fn effective(
    sampling: &Sampling,
    model: &Sampling,
) -> Result<Map<String, Value>, String> {
    let defaults = fields(&Settings::default())?;
    let mut values = fields(&sampling.clone().or(model))?;
    for (name, value) in &mut values {
        if value.is_null() {
            *value = match name.as_str() {
                "seed" => "another one each time".into(),
                "max_thinking_tokens" => "no limit".into(),
                "reserve_tokens" => "as context_overflow has it".into(),
                _ => defaults.get(name).cloned().unwrap_or_default(),
            };
        }
    }
    Ok(values)
}

fn fields(value: &impl serde::Serialize) -> Result<Map<String, Value>, String> {
    // By way of text, which keeps a 0.7 from becoming 0.699999988.
    let text = serde_json::to_string(value).map_err(|error| error.to_string())?;
    serde_json::from_str(&text).map_err(|error| error.to_string())
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "none".to_owned(),
        value => value.to_string(),
    }
}

fn unknown(name: &str, known: &Map<String, Value>) -> String {
    let names: Vec<&str> = known.keys().map(String::as_str).collect();
    format!("no setting {name}; there are {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_set_taken_back_and_refused_by_name() {
        let start = Sampling::default();
        let set = |name, value| changed(&start, name, value);
        assert_eq!(set("top_k", "5").expect("set").top_k, Some(5));
        assert_eq!(
            set("temperature", "0.5").expect("set").temperature,
            Some(0.5)
        );
        assert_eq!(
            set("ignore_eos", "true").expect("set").ignore_eos,
            Some(true)
        );
        assert_eq!(
            set("thinking", "off").expect("set").thinking,
            Some(tercel::Thinking::Off)
        );
        let stops = changed(&set("stop", "a b").expect("set"), "stop", "7").expect("set");
        assert_eq!(stops.stop, ["a b", "7"]);
        assert_eq!(changed(&stops, "stop", "default").expect("set"), start);
        for (name, value) in [
            ("top_k", "many"),
            ("top_k", "-1"),
            ("seed", "1.5"),
            ("ignore_eos", "3"),
            ("thinking", "maybe"),
        ] {
            let message = set(name, value).expect_err("no value");
            assert_eq!(message, format!("`{value}` is no value of {name}"));
        }
        let message = set("top-k", "5").expect_err("no name");
        assert!(
            message.contains("no setting top-k") && message.contains("min_p"),
            "{message}"
        );
    }

    #[test]
    fn what_is_in_force_is_shown_as_it_was_written() {
        let mut model = Sampling::default();
        model.temperature = Some(0.2);
        let mut own = Sampling::default();
        own.top_p = Some(0.8);
        let values = effective(&own, &model).expect("values");
        let shown = |name: &str| shown(&values[name]);
        assert_eq!(
            [
                shown("temperature"),
                shown("top_p"),
                shown("top_k"),
                shown("stop"),
                shown("seed")
            ],
            ["0.2", "0.8", "20", "none", "another one each time"]
        );
    }
}
