//! `POST /generate` (9.3): a text that is continued as it stands, and nothing but the fields of the
//! list.

use axum::Json as JsonReply;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{MAX_NEW_TOKENS, MAX_PROMPT_CHARS, MAX_STOP_BYTES, NEW_TOKENS, Refusals, Stops, Usage};
use crate::app::Shared;
use crate::body::Json;
use crate::error::ApiError;
use crate::gate::Caller;
use crate::routes::backend::Backend;
use crate::work::{Ask, Input, TercelBlock, begin};

const FIELDS: [&str; 6] = [
    "prompt",
    "max_new_tokens",
    "temperature",
    "top_p",
    "repetition_penalty",
    "stop",
];
const MAX_STOPS: usize = 4;

/// What is to be continued, and how. No other fields are taken.
#[derive(Deserialize, ToSchema)]
#[schema(as = tercel::GenerateRequest)]
#[serde(deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "it describes the body, which is checked field by field"
)]
struct GenerateRequest {
    /// White space at its ends is taken off; something must be left.
    #[schema(min_length = 1, max_length = 4000, pattern = r"\S")]
    prompt: String,
    /// The most tokens to generate.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 256, default = 128)]
    max_new_tokens: u16,
    /// 0 takes the most likely token.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 2, default = 0.7)]
    temperature: f32,
    /// Above 0; 1 is off.
    #[serde(default)]
    #[schema(exclusive_minimum = 0, maximum = 1, default = 0.9)]
    top_p: f32,
    /// 1 is off.
    #[serde(default)]
    #[schema(minimum = 0.8, maximum = 1.2, default = 1.05)]
    repetition_penalty: f32,
    /// Up to 4 texts that end the reply and are no part of it.
    stop: Option<Stops>,
}

/// The continuation.
#[derive(Serialize, ToSchema)]
#[schema(as = tercel::GenerateReply)]
struct GenerateReply {
    /// Without the prompt and the stop sequence.
    text: String,
    usage: Usage,
    tercel: TercelBlock,
}

/// Continues a text.
#[utoipa::path(
    post,
    path = "/generate",
    tag = "tercel",
    operation_id = "tercel_generate",
    request_body = GenerateRequest,
    responses((status = 200, body = GenerateReply, description = "The continuation"), Refusals)
)]
pub(super) async fn generate(
    State(app): State<Shared>,
    caller: Caller,
    Json(body): Json<Map<String, Value>>,
) -> Result<Response, ApiError> {
    let running = begin(&app, &caller, ask(&body)?).await?;
    let backend = Backend::of(&running);
    let finished = running.finish().await?;
    let reply = GenerateReply {
        usage: Usage::of(&finished),
        tercel: finished.block(),
        text: finished.text,
    };
    Ok(backend.on(JsonReply(reply).into_response()))
}

/// The question, each rule checked. What is out of range is refused, never moved into it.
fn ask(body: &Map<String, Value>) -> Result<Ask, ApiError> {
    let mut extra: Vec<&str> = body.keys().map(String::as_str).collect();
    extra.retain(|name| !FIELDS.contains(name));
    extra.sort_unstable();
    if let Some(first) = extra.first() {
        let message = format!("unknown fields: {}", extra.join(", "));
        return Err(invalid(first, message));
    }
    let mut ask = Ask::new(None, Input::Text(prompt(body)?));
    let sampling = &mut ask.sampling;
    sampling.max_new_tokens = Some(max_new_tokens(body)?);
    let temperature = number(body, "temperature", 0.7, "0 to 2", |it| {
        (0.0..=2.0).contains(&it)
    })?;
    sampling.temperature = Some(temperature);
    let top_p = number(body, "top_p", 0.9, "above 0, up to 1", |it| {
        it > 0.0 && it <= 1.0
    })?;
    sampling.top_p = Some(top_p);
    let in_range = |it: f64| (0.8..=1.2).contains(&it);
    let penalty = number(body, "repetition_penalty", 1.05, "0.8 to 1.2", in_range)?;
    sampling.repetition_penalty = Some(penalty);
    sampling.stop = stops(body)?;
    Ok(ask)
}

fn prompt(body: &Map<String, Value>) -> Result<String, ApiError> {
    let refuse = |message: &str| Err(invalid("prompt", message));
    let prompt = match body.get("prompt") {
        None => return refuse("`prompt` is missing"),
        Some(Value::String(text)) => text.trim(),
        Some(_) => return refuse("`prompt` must be a string"),
    };
    if prompt.is_empty() {
        return refuse("`prompt` is empty");
    }
    // Before anything becomes tokens.
    let chars = prompt.chars().count();
    if chars > MAX_PROMPT_CHARS {
        return refuse(&format!(
            "`prompt` has {chars} characters, must be at most {MAX_PROMPT_CHARS}"
        ));
    }
    Ok(prompt.to_owned())
}

fn max_new_tokens(body: &Map<String, Value>) -> Result<usize, ApiError> {
    let field = "max_new_tokens";
    let Some(value) = body.get(field) else {
        return Ok(NEW_TOKENS);
    };
    let is_integer = value
        .as_number()
        .is_some_and(|it| it.is_u64() || it.is_i64());
    if !is_integer {
        return Err(invalid(field, format!("`{field}` must be an integer")));
    }
    let tokens = value
        .as_u64()
        .and_then(|tokens| usize::try_from(tokens).ok());
    tokens
        .filter(|tokens| (1..=MAX_NEW_TOKENS).contains(tokens))
        .ok_or_else(|| {
            invalid(
                field,
                format!("`{field}` is {value}, must be 1 to {MAX_NEW_TOKENS}"),
            )
        })
}

fn number(
    body: &Map<String, Value>,
    field: &str,
    default: f32,
    range: &str,
    is_in_range: impl Fn(f64) -> bool,
) -> Result<f32, ApiError> {
    let Some(value) = body.get(field) else {
        return Ok(default);
    };
    // Read twice: the range counts before the number is rounded.
    let (Some(exact), Ok(rounded)) = (value.as_f64(), f32::deserialize(value)) else {
        return Err(invalid(field, format!("`{field}` must be a number")));
    };
    if is_in_range(exact) {
        Ok(rounded)
    } else {
        Err(invalid(
            field,
            format!("`{field}` is {value}, must be {range}"),
        ))
    }
}

fn stops(body: &Map<String, Value>) -> Result<Vec<String>, ApiError> {
    let refuse = |message: String| Err(invalid("stop", message));
    let kind = "`stop` must be null, a string or a list of strings";
    let stops = match body.get("stop") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::String(stop)) => vec![stop.clone()],
        Some(Value::Array(list)) => {
            let texts = list.iter().map(|it| it.as_str().map(str::to_owned));
            match texts.collect::<Option<Vec<String>>>() {
                Some(texts) => texts,
                None => return refuse(kind.to_owned()),
            }
        }
        Some(_) => return refuse(kind.to_owned()),
    };
    if stops.len() > MAX_STOPS {
        return refuse(format!(
            "`stop` has {} strings, must be at most {MAX_STOPS}",
            stops.len()
        ));
    }
    if stops
        .iter()
        .any(|stop| stop.is_empty() || stop.len() > MAX_STOP_BYTES)
    {
        return refuse(format!(
            "each string of `stop` must be of 1 to {MAX_STOP_BYTES} bytes"
        ));
    }
    Ok(stops)
}

fn invalid(field: &str, message: impl Into<String>) -> ApiError {
    ApiError::bad_request("invalid_request", message).about(field)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(body: Value) -> Result<Ask, ApiError> {
        let Value::Object(body) = body else {
            panic!("the body is an object");
        };
        ask(&body)
    }

    #[test]
    fn what_is_left_out_has_the_defaults_of_the_list() {
        let ask = parse(json!({"prompt": "  Hi \n"})).unwrap();
        assert_eq!(ask.input, Input::Text("Hi".to_owned()));
        assert_eq!(ask.model, None);
        let sampling = &ask.sampling;
        assert_eq!(sampling.max_new_tokens, Some(128));
        assert_eq!(sampling.temperature, Some(0.7));
        assert_eq!(sampling.top_p, Some(0.9));
        assert_eq!(sampling.repetition_penalty, Some(1.05));
        assert!(sampling.stop.is_empty());
        assert!(sampling.validate().is_ok());
    }

    #[test]
    fn bounds_are_part_of_the_ranges() {
        let long = "\u{e9}".repeat(4000);
        for body in [
            json!({"prompt": format!(" {long} ")}),
            json!({"prompt": "a", "max_new_tokens": 1}),
            json!({"prompt": "a", "max_new_tokens": 256}),
            json!({"prompt": "a", "temperature": 0}),
            json!({"prompt": "a", "temperature": 2.0}),
            json!({"prompt": "a", "top_p": 1}),
            json!({"prompt": "a", "top_p": 0.001}),
            json!({"prompt": "a", "repetition_penalty": 0.8}),
            json!({"prompt": "a", "repetition_penalty": 1.2}),
            json!({"prompt": "a", "stop": null}),
            json!({"prompt": "a", "stop": []}),
            json!({"prompt": "a", "stop": "x"}),
            json!({"prompt": "a", "stop": ["a", "b", "c", "d"]}),
        ] {
            let ask = parse(body.clone()).unwrap();
            assert!(ask.sampling.validate().is_ok(), "{body}");
        }
    }

    #[test]
    fn each_rule_has_its_own_message() {
        let long = "a".repeat(4001);
        let cases = [
            (json!({}), "prompt", "`prompt` is missing"),
            (json!({"prompt": 3}), "prompt", "`prompt` must be a string"),
            (json!({"prompt": " \n\t"}), "prompt", "`prompt` is empty"),
            (
                json!({"prompt": long}),
                "prompt",
                "`prompt` has 4001 characters, must be at most 4000",
            ),
            (
                json!({"prompt": "a", "top_k": 1, "seed": 2, "model": "m"}),
                "model",
                "unknown fields: model, seed, top_k",
            ),
            (
                json!({"prompt": "a", "max_new_tokens": 0}),
                "max_new_tokens",
                "`max_new_tokens` is 0, must be 1 to 256",
            ),
            (
                json!({"prompt": "a", "max_new_tokens": -1}),
                "max_new_tokens",
                "`max_new_tokens` is -1, must be 1 to 256",
            ),
            (
                json!({"prompt": "a", "max_new_tokens": 257}),
                "max_new_tokens",
                "`max_new_tokens` is 257, must be 1 to 256",
            ),
            (
                json!({"prompt": "a", "max_new_tokens": 18_446_744_073_709_551_615_u64}),
                "max_new_tokens",
                "`max_new_tokens` is 18446744073709551615, must be 1 to 256",
            ),
            (
                json!({"prompt": "a", "max_new_tokens": true}),
                "max_new_tokens",
                "`max_new_tokens` must be an integer",
            ),
            (
                json!({"prompt": "a", "max_new_tokens": 1.5}),
                "max_new_tokens",
                "`max_new_tokens` must be an integer",
            ),
            (
                json!({"prompt": "a", "temperature": true}),
                "temperature",
                "`temperature` must be a number",
            ),
            (
                json!({"prompt": "a", "temperature": 2.000_000_001}),
                "temperature",
                "`temperature` is 2.000000001, must be 0 to 2",
            ),
            (
                json!({"prompt": "a", "top_p": 0}),
                "top_p",
                "`top_p` is 0, must be above 0, up to 1",
            ),
            (
                json!({"prompt": "a", "top_p": 1.7}),
                "top_p",
                "`top_p` is 1.7, must be above 0, up to 1",
            ),
            (
                json!({"prompt": "a", "top_p": "0.5"}),
                "top_p",
                "`top_p` must be a number",
            ),
            (
                json!({"prompt": "a", "repetition_penalty": 0.79}),
                "repetition_penalty",
                "`repetition_penalty` is 0.79, must be 0.8 to 1.2",
            ),
            (
                json!({"prompt": "a", "repetition_penalty": null}),
                "repetition_penalty",
                "`repetition_penalty` must be a number",
            ),
            (
                json!({"prompt": "a", "stop": 1}),
                "stop",
                "`stop` must be null, a string or a list of strings",
            ),
            (
                json!({"prompt": "a", "stop": ["a", 1]}),
                "stop",
                "`stop` must be null, a string or a list of strings",
            ),
            (
                json!({"prompt": "a", "stop": ["a", "b", "c", "d", "e"]}),
                "stop",
                "`stop` has 5 strings, must be at most 4",
            ),
            (
                json!({"prompt": "a", "stop": ""}),
                "stop",
                "each string of `stop` must be of 1 to 256 bytes",
            ),
        ];
        for (body, param, message) in cases {
            let error = parse(body.clone()).unwrap_err();
            assert_eq!(
                (error.status.as_u16(), error.code),
                (400, "invalid_request"),
                "{body}"
            );
            assert_eq!(error.param.as_deref(), Some(param), "{body}");
            assert_eq!(error.message, message);
        }
    }
}
