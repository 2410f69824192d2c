//! Ollama's `options`: how a reply is made, and how its model was to be loaded.

use serde::Deserialize;
use serde_json::{Map, Value};
use tercel::Sampling;
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::routes::ranges;

/// How a reply is made. What cannot be had is refused by name.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[schema(as = ollama::Options)]
pub(super) struct Options {
    /// The most tokens to generate, at least 1; -1 and -2: until the context is full.
    num_predict: Option<i64>,
    /// 0 to 2.
    temperature: Option<f32>,
    /// 0 is off.
    top_k: Option<usize>,
    /// Above 0, up to 1.
    top_p: Option<f32>,
    /// 0 to below 1.
    min_p: Option<f32>,
    /// Above 0, up to 2.
    repeat_penalty: Option<f32>,
    /// How many tokens the penalties look at; 0: no penalty, -1: all.
    repeat_last_n: Option<i64>,
    /// -2 to 2.
    presence_penalty: Option<f32>,
    /// -2 to 2.
    frequency_penalty: Option<f32>,
    /// -1 draws one.
    seed: Option<i64>,
    /// At most 16 strings of 1 to 256 bytes.
    stop: Option<Strings>,
    /// At most the context that the model is loaded with.
    pub(super) num_ctx: Option<usize>,
    /// First tokens that stay where the prompt is cut.
    num_keep: Option<i64>,
    /// What is not supported.
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// One string or several.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[schema(as = ollama::Strings)]
#[serde(untagged, expecting = "a string or a list of strings")]
pub(super) enum Strings {
    One(String),
    Several(Vec<String>),
}

impl Strings {
    pub(super) fn into_list(self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one],
            Self::Several(several) => several,
        }
    }
}

/// More tokens than any context has.
const UNBOUNDED: usize = 1 << 30;

/// Tercel's names and Ollama's, where they differ.
const NAMES: [(&str, &str); 12] = [
    ("max_new_tokens", "options.num_predict"),
    ("temperature", "options.temperature"),
    ("top_k", "options.top_k"),
    ("top_p", "options.top_p"),
    ("min_p", "options.min_p"),
    ("repetition_penalty", "options.repeat_penalty"),
    ("repetition_window", "options.repeat_last_n"),
    ("presence_penalty", "options.presence_penalty"),
    ("frequency_penalty", "options.frequency_penalty"),
    ("seed", "options.seed"),
    ("stop", "options.stop"),
    ("keep_first_tokens", "options.num_keep"),
];

impl Options {
    /// How the reply is made; `most` is what the server allows a reply to have.
    ///
    /// # Errors
    /// What is not supported or out of range, by name.
    pub(super) fn into_sampling(self, most: Option<usize>) -> Result<Sampling, ApiError> {
        self.refuse_others()?;
        let mut sampling = Sampling::default();
        sampling.max_new_tokens = match self.num_predict {
            Some(-1 | -2) => Some(most.unwrap_or(UNBOUNDED)),
            other => count("num_predict", other, "at least 1, or -1 for no limit")?,
        };
        sampling.temperature = self.temperature;
        sampling.top_k = self.top_k;
        sampling.top_p = self.top_p;
        sampling.min_p = self.min_p;
        sampling.repetition_penalty = self.repeat_penalty;
        sampling.presence_penalty = self.presence_penalty;
        sampling.frequency_penalty = self.frequency_penalty;
        sampling.seed = match self.seed {
            None | Some(-1) => None,
            Some(seed) => Some(u64::try_from(seed).map_err(|_| {
                ranges::out_of_range("options.seed", seed, "at least 0, or -1 to draw one")
            })?),
        };
        sampling.stop = self.stop.map(Strings::into_list).unwrap_or_default();
        sampling.keep_first_tokens = count("num_keep", self.num_keep, "at least 0")?;
        sampling.repetition_window = match self.repeat_last_n {
            Some(-1) => Some(UNBOUNDED),
            other => count("repeat_last_n", other, "at least 0, or -1 for all tokens")?,
        };
        if sampling.repetition_window == Some(0) {
            // Its values are checked all the same.
            sampling.repetition_window = None;
            ranges::check(&sampling, &NAMES)?;
            sampling.repetition_penalty = Some(1.0);
            sampling.presence_penalty = Some(0.0);
            sampling.frequency_penalty = Some(0.0);
        }
        ranges::check(&sampling, &NAMES)?;
        Ok(sampling)
    }

    /// For what makes no text: nothing but the context may be said.
    ///
    /// # Errors
    /// The first option that has no meaning there.
    pub(super) fn refuse_sampling(&self) -> Result<(), ApiError> {
        self.refuse_others()?;
        let set = [
            ("num_predict", self.num_predict.is_some()),
            ("temperature", self.temperature.is_some()),
            ("top_k", self.top_k.is_some()),
            ("top_p", self.top_p.is_some()),
            ("min_p", self.min_p.is_some()),
            ("repeat_penalty", self.repeat_penalty.is_some()),
            ("repeat_last_n", self.repeat_last_n.is_some()),
            ("presence_penalty", self.presence_penalty.is_some()),
            ("frequency_penalty", self.frequency_penalty.is_some()),
            ("seed", self.seed.is_some()),
            ("stop", self.stop.is_some()),
            ("num_keep", self.num_keep.is_some()),
        ];
        match set.into_iter().find(|(_, is_set)| *is_set) {
            Some((name, _)) => Err(ApiError::unsupported(
                format!("options.{name}"),
                format!("`{name}` has no meaning for embeddings"),
            )),
            None => Ok(()),
        }
    }

    fn refuse_others(&self) -> Result<(), ApiError> {
        let is_neutral = |name: &str, value: &Value| {
            value.is_null()
                || match name {
                    "mirostat" => value.as_f64() == Some(0.0),
                    "tfs_z" | "typical_p" => value.as_f64() == Some(1.0),
                    _ => false,
                }
        };
        let mut others = self.others.iter();
        match others.find(|(name, value)| !is_neutral(name, value)) {
            Some((name, _)) => Err(ApiError::unsupported(
                format!("options.{name}"),
                format!("the option `{name}` is not supported"),
            )),
            None => Ok(()),
        }
    }
}

fn count(name: &str, value: Option<i64>, range: &str) -> Result<Option<usize>, ApiError> {
    let Some(value) = value else {
        return Ok(None);
    };
    let count = usize::try_from(value);
    let count = count.map_err(|_| ranges::out_of_range(&format!("options.{name}"), value, range));
    count.map(Some)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::body;

    fn sampling(options: &Value, most: Option<usize>) -> Result<Sampling, ApiError> {
        #[derive(Deserialize)]
        struct Request {
            options: Options,
        }
        let request = json!({"options": options}).to_string();
        let request: Request = body::parse(request.as_bytes(), 8)?;
        request.options.into_sampling(most)
    }

    #[test]
    fn options_become_sampling() {
        type Set = fn(&mut Sampling);
        let cases: [(Value, Set); 12] = [
            (json!({}), |_| {}),
            (json!({"num_predict": 7}), |it| it.max_new_tokens = Some(7)),
            (json!({"num_predict": -1}), |it| {
                it.max_new_tokens = Some(UNBOUNDED);
            }),
            (json!({"num_predict": -2}), |it| {
                it.max_new_tokens = Some(UNBOUNDED);
            }),
            (
                json!({"temperature": 0, "top_k": 0, "top_p": 1.0, "min_p": 0.1}),
                |it| {
                    it.temperature = Some(0.0);
                    it.top_k = Some(0);
                    it.top_p = Some(1.0);
                    it.min_p = Some(0.1);
                },
            ),
            (json!({"repeat_penalty": 1.1, "repeat_last_n": 32}), |it| {
                it.repetition_penalty = Some(1.1);
                it.repetition_window = Some(32);
            }),
            (json!({"repeat_last_n": -1}), |it| {
                it.repetition_window = Some(UNBOUNDED);
            }),
            (
                json!({"repeat_last_n": 0, "repeat_penalty": 1.3, "presence_penalty": 1}),
                |it| {
                    it.repetition_penalty = Some(1.0);
                    it.presence_penalty = Some(0.0);
                    it.frequency_penalty = Some(0.0);
                },
            ),
            (json!({"seed": -1}), |_| {}),
            (json!({"seed": 42, "num_keep": 5}), |it| {
                it.seed = Some(42);
                it.keep_first_tokens = Some(5);
            }),
            (json!({"stop": "x"}), |it| it.stop = vec!["x".to_owned()]),
            (
                json!({"stop": ["x", "y"], "num_ctx": 9, "mirostat": 0, "tfs_z": 1, "numa": null}),
                |it| it.stop = vec!["x".to_owned(), "y".to_owned()],
            ),
        ];
        for (options, set) in cases {
            let mut expected = Sampling::default();
            set(&mut expected);
            assert_eq!(sampling(&options, None), Ok(expected), "{options}");
        }
        let bounded = sampling(&json!({"num_predict": -1}), Some(9)).expect("options");
        assert_eq!(bounded.max_new_tokens, Some(9));
    }

    #[test]
    fn refusals_name_the_option() {
        for (options, code, param) in [
            (
                json!({"num_predict": 0}),
                "invalid_parameter",
                "options.num_predict",
            ),
            (
                json!({"num_predict": -3}),
                "invalid_parameter",
                "options.num_predict",
            ),
            (
                json!({"num_predict": "x"}),
                "invalid_request",
                "options.num_predict",
            ),
            (
                json!({"temperature": 2.5}),
                "invalid_parameter",
                "options.temperature",
            ),
            (json!({"top_k": -1}), "invalid_request", "options.top_k"),
            (json!({"top_p": 0}), "invalid_parameter", "options.top_p"),
            (json!({"min_p": 1.0}), "invalid_parameter", "options.min_p"),
            (
                json!({"repeat_penalty": 3}),
                "invalid_parameter",
                "options.repeat_penalty",
            ),
            (
                json!({"repeat_last_n": -2}),
                "invalid_parameter",
                "options.repeat_last_n",
            ),
            (
                json!({"repeat_last_n": 0, "repeat_penalty": 3}),
                "invalid_parameter",
                "options.repeat_penalty",
            ),
            (json!({"seed": -2}), "invalid_parameter", "options.seed"),
            (
                json!({"num_keep": -1}),
                "invalid_parameter",
                "options.num_keep",
            ),
            (json!({"stop": [""]}), "invalid_parameter", "options.stop"),
            (json!({"stop": 3}), "invalid_request", "options.stop"),
            (
                json!({"mirostat": 2}),
                "unsupported_parameter",
                "options.mirostat",
            ),
            (
                json!({"num_gpu": 1}),
                "unsupported_parameter",
                "options.num_gpu",
            ),
            (
                json!({"num_thread": 2}),
                "unsupported_parameter",
                "options.num_thread",
            ),
        ] {
            let error = sampling(&options, None).unwrap_err();
            let found = (error.code, error.param.as_deref());
            assert_eq!(found, (code, Some(param)), "{options}: {}", error.message);
        }
    }

    #[test]
    fn embeddings_take_no_sampling() {
        let read = |options: Value| serde_json::from_value::<Options>(options).expect("options");
        assert_eq!(read(json!({"num_ctx": 5})).refuse_sampling(), Ok(()));
        for name in ["temperature", "seed", "num_predict", "main_gpu"] {
            let error = read(json!({name: 1})).refuse_sampling().unwrap_err();
            assert_eq!(error.param, Some(format!("options.{name}")));
        }
    }
}
