//! Tercel's own protocol: `/v1/chat` and `/generate` as the book has them, and what a client needs
//! that counts tokens itself.

mod chat;
mod drops;
mod generate;
mod lines;
mod tokens;

use serde::{Deserialize, Serialize};
use utoipa::{IntoResponses, OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::Shared;
use crate::error::ErrorBody;
use crate::work::Finished;

/// What the answers of [`Refusals`] refer to.
#[derive(OpenApi)]
#[openapi(components(schemas(ErrorBody)))]
struct Referred;

pub(crate) fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::with_openapi(Referred::openapi())
        .routes(routes!(chat::chat))
        .routes(routes!(generate::generate))
        .routes(routes!(tokens::tokenize))
        .routes(routes!(tokens::detokenize))
        .routes(routes!(tokens::apply_template))
}

/// Characters of a prompt (9.3, 13.5).
const MAX_PROMPT_CHARS: usize = 4000;
/// Tokens of a reply (9.3, 13.5).
const MAX_NEW_TOKENS: usize = 256;
/// Tokens of a reply where the request says nothing.
const NEW_TOKENS: usize = 128;
/// Bytes of a stop string; the engine's own bound.
const MAX_STOP_BYTES: usize = 256;

/// What a request that needs a model may be answered with instead.
#[derive(IntoResponses)]
#[expect(
    dead_code,
    reason = "it describes answers that errors turn into themselves"
)]
pub(super) enum Refusals {
    /// The request is wrong; `param` names the field.
    #[response(status = 400)]
    BadRequest(ErrorBody),
    /// A key is needed, or the one that was given is wrong.
    #[response(status = 401)]
    Unauthorized(ErrorBody),
    /// The key, the host or the origin may not do this.
    #[response(status = 403)]
    Forbidden(ErrorBody),
    /// There is no such model.
    #[response(status = 404)]
    NotFound(ErrorBody),
    /// The body took too long to come.
    #[response(status = 408)]
    TooLate(ErrorBody),
    /// The model is in use.
    #[response(status = 409)]
    Conflict(ErrorBody),
    /// The body is too large.
    #[response(status = 413)]
    TooLarge(ErrorBody),
    /// The body is not said to be JSON.
    #[response(status = 415)]
    NotJson(ErrorBody),
    /// Too many requests; `Retry-After` says when to ask again.
    #[response(status = 429)]
    TooMany(ErrorBody),
    /// The model failed.
    #[response(status = 500)]
    Failed(ErrorBody),
    /// The model is not ready, or the server is to stop.
    #[response(status = 503)]
    Unavailable(ErrorBody),
}

/// Texts that end a reply.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[schema(as = tercel::Stops)]
#[serde(untagged, expecting = "a string or a list of strings")]
enum Stops {
    /// One.
    One(String),
    /// Several.
    List(Vec<String>),
}

impl Stops {
    fn into_list(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::List(texts) => texts,
        }
    }
}

/// Tokens of a request.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[schema(as = tercel::Usage)]
struct Usage {
    prompt_tokens: usize,
    /// How many of them did not have to be computed.
    cached_tokens: usize,
    generated_tokens: usize,
}

impl Usage {
    fn of(finished: &Finished) -> Self {
        let usage = &finished.reply.usage;
        Self {
            prompt_tokens: usage.prompt_tokens,
            cached_tokens: usage.cached_tokens,
            generated_tokens: usage.generated_tokens,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn the_description_is_whole() {
        let (_, description) = router()
            .merge(super::super::admin::router())
            .split_for_parts();
        let description = serde_json::to_value(description).unwrap();
        let mut found = Vec::new();
        references(&description, &mut found);
        assert!(!found.is_empty());
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(description.pointer(pointer).is_some(), "{reference}");
        }
        let generate = &description["components"]["schemas"]["tercel.GenerateRequest"];
        assert_eq!(generate["additionalProperties"], false);
        assert_eq!(generate["required"], serde_json::json!(["prompt"]));
        let answers = description["paths"]["/v1/chat"]["post"]["responses"]
            .as_object()
            .unwrap();
        let mut answers: Vec<&str> = answers.keys().map(String::as_str).collect();
        answers.sort_unstable();
        let all = [
            "200", "400", "401", "403", "404", "408", "409", "413", "415", "429", "500", "503",
        ];
        assert_eq!(answers, all);
    }
}
