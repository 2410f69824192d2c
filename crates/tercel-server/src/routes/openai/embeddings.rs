//! Vectors for texts.

use axum::extract::State;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use tercel::{Engine, Error, Pooling};
use utoipa::ToSchema;

use super::prompts::{self, PromptItem};
use super::refusals::Refusals;
use super::texts::{TextOr, short};
use crate::app::Shared;
use crate::body::Json;
use crate::config::Limits;
use crate::error::{ApiError, ErrorBody};
use crate::gate::Caller;
use crate::work::{Input, on_a_thread};

/// What is to become vectors.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EmbeddingRequest {
    /// The model; the server's first where none is named.
    model: Option<String>,
    // A text, a list of texts, a list of tokens or a list of such lists.
    #[schema(inline)]
    input: TextOr<PromptItem>,
    /// `float` (the default), or `base64`: 32-bit floats, the lowest byte first.
    encoding_format: Option<String>,
    /// Must be what the model has.
    dimensions: Option<usize>,
    /// Without effect.
    #[expect(dead_code, reason = "it is accepted and has no effect")]
    user: Option<String>,
}

/// The vectors.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(super) struct EmbeddingList {
    /// `list`.
    object: &'static str,
    /// In the order of the inputs.
    data: Vec<Embedding>,
    model: String,
    usage: EmbeddingUsage,
}

/// A vector.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(super) struct Embedding {
    /// `embedding`.
    object: &'static str,
    index: usize,
    embedding: Vector,
}

/// The numbers of a vector.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
enum Vector {
    /// As numbers.
    Floats(Vec<f32>),
    /// As the base64 of their bytes.
    Base64(String),
}

/// What the texts came to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, ToSchema)]
pub(super) struct EmbeddingUsage {
    prompt_tokens: usize,
    total_tokens: usize,
}

/// A request that was checked.
#[derive(Debug, PartialEq)]
struct Checked {
    inputs: Vec<Input>,
    is_base64: bool,
}

/// Vectors of length 1 for texts.
#[utoipa::path(
    post,
    path = "/v1/embeddings",
    tag = "openai",
    request_body = EmbeddingRequest,
    responses(
        (status = 200, description = "The vectors", body = EmbeddingList),
        (status = 400, description = "The request is wrong", body = ErrorBody),
        Refusals,
    )
)]
pub(super) async fn create(
    State(app): State<Shared>,
    _caller: Caller,
    Json(request): Json<EmbeddingRequest>,
) -> Result<Response, ApiError> {
    let (wanted, dimensions) = (request.model.clone(), request.dimensions);
    let checked = request.check(&app.config.limits)?;
    let model = app.models.find(wanted.as_deref())?.name.clone();
    if app.is_draining() {
        return Err(ApiError::from(tercel::host::HostError::Closed));
    }
    let vectors = vectors(&app, &model, checked, dimensions);
    let list = match app.config.limits.deadline {
        None => vectors.await?,
        Some(deadline) => match tokio::time::timeout(deadline, vectors).await {
            Ok(list) => list?,
            Err(_) => {
                let status = axum::http::StatusCode::SERVICE_UNAVAILABLE;
                return Err(ApiError::new(
                    status,
                    "timeout",
                    "the vectors took too long",
                ));
            }
        },
    };
    Ok(super::reply(&list, &[]))
}

/// Dropping the future ends the work.
async fn vectors(
    app: &Shared,
    model: &str,
    checked: Checked,
    dimensions: Option<usize>,
) -> Result<EmbeddingList, ApiError> {
    let pooling = app.models.pooling(model);
    let lease = app.models.lease(model).await?;
    let size = lease.info().model.hidden_size;
    if let Some(asked) = dimensions.filter(|asked| *asked != size) {
        let message = format!("`dimensions` is {asked}, the model's vectors have {size}");
        return Err(ApiError::unsupported("dimensions", message));
    }
    let mut data = Vec::with_capacity(checked.inputs.len());
    let mut prompt_tokens = 0;
    for (index, input) in checked.inputs.into_iter().enumerate() {
        let about = |error: ApiError| error.about(format!("input[{index}]"));
        let (vector, tokens) = embed(lease.engine(), input, pooling).await.map_err(about)?;
        prompt_tokens += tokens;
        let embedding = if checked.is_base64 {
            Vector::Base64(base64_of(&vector))
        } else {
            Vector::Floats(vector)
        };
        data.push(Embedding {
            object: "embedding",
            index,
            embedding,
        });
    }
    let usage = EmbeddingUsage {
        prompt_tokens,
        total_tokens: prompt_tokens,
    };
    Ok(EmbeddingList {
        object: "list",
        data,
        model: model.to_owned(),
        usage,
    })
}

/// A vector, and how many tokens it was made of.
async fn embed(
    engine: &Engine,
    input: Input,
    pooling: Pooling,
) -> Result<(Vec<f32>, usize), ApiError> {
    let tokens = match input {
        Input::Text(text) => {
            let engine = engine.clone();
            on_a_thread(move || Ok(engine.raw_tokens(&text)?)).await?
        }
        Input::Tokens(tokens) => tokens,
        // Prompts that are no conversations never are this.
        Input::Chat(_) => return Err(Error::EmptyPrompt.into()),
    };
    let count = tokens.len();
    Ok((engine.embed_async(tokens, pooling).await?, count))
}

fn base64_of(vector: &[f32]) -> String {
    let bytes: Vec<u8> = vector
        .iter()
        .flat_map(|number| number.to_le_bytes())
        .collect();
    STANDARD.encode(bytes)
}

impl EmbeddingRequest {
    /// Checks what needs no model.
    fn check(self, limits: &Limits) -> Result<Checked, ApiError> {
        let is_base64 = match self.encoding_format.as_deref() {
            None | Some("float") => false,
            Some("base64") => true,
            Some(other) => {
                let message = format!(
                    "`encoding_format` is `{}`, must be float or base64",
                    short(other)
                );
                return Err(ApiError::invalid("encoding_format", message));
            }
        };
        let inputs = prompts::inputs(self.input, "input")?;
        if inputs.len() > limits.inputs {
            let (count, most) = (inputs.len(), limits.inputs);
            let message = format!("`input` has {count} texts, at most {most} are taken");
            return Err(ApiError::invalid("input", message));
        }
        let chars: usize = inputs.iter().map(Input::chars).sum();
        if chars > limits.prompt_chars {
            let most = limits.prompt_chars;
            let message = format!("the texts have {chars} characters, at most {most} are taken");
            return Err(ApiError::bad_request("input_too_large", message).about("input"));
        }
        Ok(Checked { inputs, is_base64 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::parse;

    #[test]
    fn requests_are_checked_before_a_model_is_asked() {
        let limits = Limits {
            inputs: 2,
            prompt_chars: 5,
            ..Limits::default()
        };
        let check = |body: &str| {
            parse::<EmbeddingRequest>(body.as_bytes(), 8).and_then(|it| it.check(&limits))
        };
        let read =
            check(r#"{"model": "m", "input": "abc", "encoding_format": "base64", "user": "u"}"#);
        let inputs = vec![Input::Text("abc".to_owned())];
        assert_eq!(
            read,
            Ok(Checked {
                inputs,
                is_base64: true
            })
        );
        for (body, code, param) in [
            (r#"{"input": "abcdef"}"#, "input_too_large", "input"),
            (
                r#"{"input": ["a", "b", "c"]}"#,
                "invalid_parameter",
                "input",
            ),
            (r#"{"input": []}"#, "invalid_parameter", "input"),
            (
                r#"{"input": "a", "encoding_format": "int8"}"#,
                "invalid_parameter",
                "encoding_format",
            ),
            (
                r#"{"input": "a", "pooling": "mean"}"#,
                "invalid_request",
                "pooling",
            ),
            (r#"{"input": 3}"#, "invalid_request", "input"),
        ] {
            let error = check(body).unwrap_err();
            assert_eq!(
                (error.code, error.param.as_deref()),
                (code, Some(param)),
                "{body}"
            );
        }
    }

    #[test]
    fn base64_is_of_floats_with_the_lowest_byte_first() {
        assert_eq!(base64_of(&[1.0, -2.0]), "AACAPwAAAMA=");
    }
}
