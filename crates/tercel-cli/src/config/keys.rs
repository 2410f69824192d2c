//! The settings there are: their names, what they may be, and where they go.

use serde_json::{Map, Value};
use tercel::Sampling;
use tercel::cores::CoreSet;

use super::Settings;
use crate::args::{byte_size, kv_type};

/// A setting, named as in the library and the JSON of replies.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    /// What its value must be.
    pub(crate) range: &'static str,
}

const fn new(name: &'static str, range: &'static str) -> Key {
    Key { name, range }
}

/// How a model is loaded,
const ENGINE: usize = 5;
/// and then how replies are made.
pub(crate) const KEYS: [Key; 22] = [
    new("threads", "a whole number of at least 1"),
    new("cores", "a list of cores such as \"0-3,6\""),
    new("max_context", "a whole number of at least 2"),
    new("kv_type", "\"f16\", \"q8_0\" or \"f32\""),
    new("memory_budget", "a size such as \"2GiB\""),
    new("max_new_tokens", "a whole number of at least 1"),
    new("temperature", "a number from 0 to 2"),
    new("top_k", "a whole number; 0 is off"),
    new("top_p", "a number above 0, up to 1"),
    new("min_p", "a number from 0 to below 1"),
    new("repetition_penalty", "a number above 0, up to 2"),
    new("repetition_window", "a whole number of at least 1"),
    new("presence_penalty", "a number from -2 to 2"),
    new("frequency_penalty", "a number from -2 to 2"),
    new("seed", "a whole number"),
    new("stop", "a list of 1 to 16 strings of 1 to 256 bytes"),
    new("thinking", "\"auto\", \"off\" or \"on\""),
    new("max_thinking_tokens", "a whole number of at least 1"),
    new("min_answer_tokens", "a whole number; 0 is off"),
    new(
        "context_overflow",
        "\"error\", \"drop_oldest_turns\", \"sliding_window\" or \"truncate_middle\"",
    ),
    new("reserve_tokens", "a whole number of at least 1"),
    new("keep_first_tokens", "a whole number"),
];

/// The setting of that name.
pub(crate) fn key(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The name that was probably meant: the same but for dashes and case, or a flag's.
pub(super) fn near(name: &str) -> Option<&'static str> {
    let name = name.to_lowercase().replace('-', "_");
    let name = match name.as_str() {
        "kv" => "kv_type",
        "context" => "max_context",
        "max_tokens" => "max_new_tokens",
        "temp" => "temperature",
        "affinity" | "cpu_affinity" | "core" => "cores",
        name => name,
    };
    key(name).map(|key| key.name)
}

impl Key {
    /// Whether it is about replies, not about the engine.
    pub(crate) fn is_sampling(&self) -> bool {
        KEYS[ENGINE..].iter().any(|key| key.name == self.name)
    }

    /// Puts a value among others, or tells why it cannot be one.
    pub(super) fn put(&self, value: &Value, settings: &mut Settings) -> Result<(), String> {
        let taken = match self.name {
            "threads" => whole(value, 1).map(|threads| settings.threads = Some(threads)),
            "max_context" => whole(value, 2).map(|tokens| settings.max_context = Some(tokens)),
            "cores" => cores(value).map(|cores| settings.cores = Some(cores)),
            "kv_type" => value
                .as_str()
                .and_then(kv_type)
                .map(|kv_type| settings.kv_type = Some(kv_type)),
            "memory_budget" => size(value).map(|bytes| settings.memory_budget = Some(bytes)),
            name => sampling(name, value).map(|own| {
                let others = std::mem::take(&mut settings.sampling);
                settings.sampling = own.or(&others);
            }),
        };
        taken.ok_or_else(|| {
            let (name, range) = (self.name, self.range);
            format!("`{name}` is {value}, must be {range}")
        })
    }
}

fn whole(value: &Value, least: usize) -> Option<usize> {
    let number = usize::try_from(value.as_u64()?).ok()?;
    (number >= least).then_some(number)
}

fn cores(value: &Value) -> Option<CoreSet> {
    value.as_str()?.parse().ok()
}

fn size(value: &Value) -> Option<u64> {
    match value.as_str() {
        Some(text) => byte_size(text).ok(),
        None => value.as_u64(),
    }
}

/// The one value among all that make replies. The library knows their types and ranges.
fn sampling(name: &str, value: &Value) -> Option<Sampling> {
    let values = Map::from_iter([(name.to_owned(), value.clone())]);
    let sampling: Sampling = serde_json::from_value(values.into()).ok()?;
    // What is not there is not given.
    if !is_set(&sampling, name) {
        return None;
    }
    sampling.validate().ok().map(|()| sampling)
}

/// Whether one of the values that make replies is given.
pub(crate) fn is_set(sampling: &Sampling, name: &str) -> bool {
    let values = serde_json::to_value(sampling).unwrap_or_default();
    match values.get(name) {
        None | Some(Value::Null) => false,
        Some(Value::Array(items)) => !items.is_empty(),
        Some(_) => true,
    }
}

/// A value as a person writes it.
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_setting_takes_what_it_says_and_nothing_else() {
        let good = [
            ("threads", json!(4)),
            ("cores", json!("0-3")),
            ("max_context", json!(2)),
            ("kv_type", json!("q8_0")),
            ("memory_budget", json!("2GiB")),
            ("memory_budget", json!(1 << 30)),
            ("max_new_tokens", json!(1)),
            ("temperature", json!(0)),
            ("top_k", json!(0)),
            ("top_p", json!(1.0)),
            ("min_p", json!(0.5)),
            ("repetition_penalty", json!(1.1)),
            ("repetition_window", json!(1)),
            ("presence_penalty", json!(-2)),
            ("frequency_penalty", json!(2)),
            ("seed", json!(7)),
            ("stop", json!(["END", "STOP"])),
            ("thinking", json!("off")),
            ("max_thinking_tokens", json!(1)),
            ("min_answer_tokens", json!(0)),
            ("context_overflow", json!("sliding_window")),
            ("reserve_tokens", json!(1)),
            ("keep_first_tokens", json!(0)),
        ];
        for known in &KEYS {
            assert!(good.iter().any(|(name, _)| *name == known.name));
            let mut settings = Settings::default();
            for wrong in [
                json!({}),
                json!([1]),
                json!("no such"),
                json!(-3),
                json!(true),
            ] {
                let problem = known.put(&wrong, &mut settings).expect_err(known.name);
                let expected = format!("`{}` is {wrong}, must be {}", known.name, known.range);
                assert_eq!(problem, expected);
            }
            assert_eq!(settings.sampling, Sampling::default(), "{}", known.name);
        }
        let mut settings = Settings::default();
        for (name, value) in good {
            let known = key(name).expect("a setting");
            assert_eq!(known.put(&value, &mut settings), Ok(()), "{name}");
            assert_eq!(is_set(&settings.sampling, name), known.is_sampling());
        }
        assert_eq!(settings.memory_budget, Some(1 << 30));
        // A value takes no other back.
        assert_eq!(settings.sampling.top_k, Some(0));
        assert_eq!(settings.sampling.seed, Some(7));
        for (name, value) in [
            ("threads", json!(0)),
            ("max_context", json!(1)),
            ("temperature", json!(2.1)),
            ("top_p", json!(0)),
            ("seed", json!(1.5)),
            ("kv_type", json!("q4_0")),
            ("stop", json!([""])),
            ("stop", json!([])),
        ] {
            let known = key(name).expect("a setting");
            assert!(known.put(&value, &mut settings).is_err(), "{name} {value}");
        }
    }

    #[test]
    fn what_was_meant_is_found() {
        for (name, meant) in [
            ("max-context", Some("max_context")),
            ("Threads", Some("threads")),
            ("kv", Some("kv_type")),
            ("colour", None),
        ] {
            assert_eq!(near(name), meant, "{name}");
        }
    }
}
