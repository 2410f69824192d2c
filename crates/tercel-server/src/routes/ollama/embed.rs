//! `/api/embed`, and `/api/embeddings` as it was before.

use std::time::Instant;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use tercel::host::Lease;
use utoipa::ToSchema;

use super::answer::check_context;
use super::error::OllamaError;
use super::keep_alive::KeepAlive;
use super::options::{Options, Strings};
use super::time::nanos;
use crate::app::Shared;
use crate::body::Json;
use crate::config::Limits;
use crate::error::ApiError;
use crate::routes::ranges;
use crate::work::on_a_thread;

/// A question to `/api/embed`.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[schema(as = ollama::EmbedRequest)]
#[serde(deny_unknown_fields)]
pub(super) struct EmbedRequest {
    model: String,
    /// One text or several.
    input: Strings,
    /// Without effect: a text that is too long for the context is an error, never cut.
    #[expect(dead_code, reason = "a text that is too long is an error in any case")]
    truncate: Option<bool>,
    /// Must be what the model has.
    dimensions: Option<usize>,
    options: Option<Options>,
    keep_alive: Option<KeepAlive>,
}

/// A question to `/api/embeddings`.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[schema(as = ollama::EmbeddingsRequest)]
#[serde(deny_unknown_fields)]
pub(super) struct EmbeddingsRequest {
    model: String,
    prompt: Option<String>,
    options: Option<Options>,
    keep_alive: Option<KeepAlive>,
}

/// A reply of `/api/embed`.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ollama::EmbedReply)]
pub(super) struct EmbedReply {
    model: String,
    /// One for each text, each of length 1.
    embeddings: Vec<Vec<f32>>,
    /// Nanoseconds from the request to the end.
    total_duration: u64,
    /// Nanoseconds until the model was there.
    load_duration: u64,
    /// Tokens of all texts.
    prompt_eval_count: usize,
    /// What was not done as asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    adjustments: Vec<String>,
}

/// A reply of `/api/embeddings`.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ollama::EmbeddingsReply)]
pub(super) struct EmbeddingsReply {
    /// Of length 1.
    embedding: Vec<f32>,
    /// What was not done as asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    adjustments: Vec<String>,
}

/// Turn texts into vectors.
#[utoipa::path(
    post,
    path = "/api/embed",
    operation_id = "ollama_embed",
    tag = "ollama",
    request_body = EmbedRequest,
    responses(
        (status = 200, description = "The vectors.", body = EmbedReply),
        (status = 400, description = "The request is wrong or not supported.", body = OllamaError),
        (status = 401, description = "The key is missing or unknown.", body = OllamaError),
        (status = 403, description = "Not allowed.", body = OllamaError),
        (status = 404, description = "No such model.", body = OllamaError),
        (status = 413, description = "The body is too large.", body = OllamaError),
        (status = 415, description = "The body is not JSON.", body = OllamaError),
        (status = 429, description = "Too many requests.", body = OllamaError),
        (status = 500, description = "The model failed.", body = OllamaError),
        (status = 503, description = "The model is not ready.", body = OllamaError),
    ),
)]
pub(super) async fn embed(
    State(app): State<Shared>,
    Json(request): Json<EmbedRequest>,
) -> Result<axum::Json<EmbedReply>, ApiError> {
    let texts = Texts {
        name: "input",
        texts: request.input.into_list(),
        dimensions: request.dimensions,
        options: request.options.unwrap_or_default(),
        keep_alive: request.keep_alive,
    };
    texts.embed(&app, &request.model).await.map(axum::Json)
}

/// Turn a text into a vector.
#[utoipa::path(
    post,
    path = "/api/embeddings",
    operation_id = "ollama_embeddings",
    tag = "ollama",
    request_body = EmbeddingsRequest,
    responses(
        (status = 200, description = "The vector.", body = EmbeddingsReply),
        (status = 400, description = "The request is wrong or not supported.", body = OllamaError),
        (status = 401, description = "The key is missing or unknown.", body = OllamaError),
        (status = 403, description = "Not allowed.", body = OllamaError),
        (status = 404, description = "No such model.", body = OllamaError),
        (status = 413, description = "The body is too large.", body = OllamaError),
        (status = 415, description = "The body is not JSON.", body = OllamaError),
        (status = 429, description = "Too many requests.", body = OllamaError),
        (status = 500, description = "The model failed.", body = OllamaError),
        (status = 503, description = "The model is not ready.", body = OllamaError),
    ),
)]
pub(super) async fn embeddings(
    State(app): State<Shared>,
    Json(request): Json<EmbeddingsRequest>,
) -> Result<axum::Json<EmbeddingsReply>, ApiError> {
    let texts = Texts {
        name: "prompt",
        // Without one, the model is loaded and the vector is empty.
        texts: request
            .prompt
            .filter(|text| !text.is_empty())
            .into_iter()
            .collect(),
        dimensions: None,
        options: request.options.unwrap_or_default(),
        keep_alive: request.keep_alive,
    };
    let reply = texts.embed(&app, &request.model).await?;
    Ok(axum::Json(EmbeddingsReply {
        embedding: reply.embeddings.into_iter().next().unwrap_or_default(),
        adjustments: reply.adjustments,
    }))
}

/// Texts that become vectors.
struct Texts {
    /// The field they came in.
    name: &'static str,
    texts: Vec<String>,
    dimensions: Option<usize>,
    options: Options,
    keep_alive: Option<KeepAlive>,
}

impl Texts {
    async fn embed(self, app: &Shared, model: &str) -> Result<EmbedReply, ApiError> {
        let asked_at = Instant::now();
        let model = app.models.find(Some(model))?.name.clone();
        self.check(&app.config.limits)?;
        let stay = self.keep_alive.as_ref().map(KeepAlive::read).transpose()?;
        let note = stay.and_then(|stay| stay.note(app.config.idle_ttl));
        let mut adjustments: Vec<String> = note.into_iter().collect();
        if app.is_draining() {
            return Err(ApiError::from(tercel::host::HostError::Closed));
        }
        let lease = app.models.lease(&model).await?;
        let load_duration = nanos(asked_at.elapsed());
        adjustments.extend(self.fit(&lease)?);
        let pooling = app.models.pooling(&model);
        let (mut embeddings, mut prompt_eval_count) = (Vec::with_capacity(self.texts.len()), 0);
        for (index, text) in self.texts.iter().enumerate() {
            let at = |error: ApiError| error.about(format!("{}[{index}]", self.name));
            let (engine, text) = (lease.engine().clone(), text.clone());
            let tokens = on_a_thread(move || Ok(engine.raw_tokens(&text)?)).await;
            let tokens = tokens.map_err(at)?;
            prompt_eval_count += tokens.len();
            let vector = lease.embed_async(tokens, pooling).await;
            embeddings.push(vector.map_err(|error| at(error.into()))?);
        }
        Ok(EmbedReply {
            model,
            embeddings,
            total_duration: nanos(asked_at.elapsed()),
            load_duration,
            prompt_eval_count,
            adjustments,
        })
    }

    /// Checks what needs no model.
    fn check(&self, limits: &Limits) -> Result<(), ApiError> {
        self.options.refuse_sampling()?;
        let (count, most) = (self.texts.len(), limits.inputs);
        if count > most {
            let message = format!(
                "`{}` has {count} texts, at most {most} are taken",
                self.name
            );
            return Err(ApiError::invalid(self.name, message));
        }
        let chars: usize = self.texts.iter().map(|text| text.chars().count()).sum();
        let most = limits.prompt_chars;
        if chars > most {
            let message = format!(
                "`{}` has {chars} characters, at most {most} are taken",
                self.name
            );
            return Err(ApiError::bad_request("input_too_large", message).about(self.name));
        }
        if let Some(index) = self.texts.iter().position(String::is_empty) {
            let error = ApiError::from(tercel::Error::EmptyPrompt);
            return Err(error.about(format!("{}[{index}]", self.name)));
        }
        Ok(())
    }

    /// Checks what depends on the model, and gives what the client must be told.
    fn fit(&self, lease: &Lease) -> Result<Option<String>, ApiError> {
        let info = lease.info();
        let size = info.model.hidden_size;
        if let Some(asked) = self.dimensions
            && asked != size
        {
            let range = format!("left out or {size}, which this model has");
            return Err(ranges::out_of_range("dimensions", asked, &range));
        }
        match self.options.num_ctx {
            Some(asked) => check_context(asked, info.max_context),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::body;

    #[test]
    fn a_text_or_several_are_read() {
        for (input, expected) in [(json!("a"), vec!["a"]), (json!(["a", "b"]), vec!["a", "b"])] {
            let request = json!({"model": "m", "input": input, "truncate": true}).to_string();
            let request: EmbedRequest = body::parse(request.as_bytes(), 8).expect("a request");
            assert_eq!(request.input.into_list(), expected);
        }
        let error = body::parse::<EmbedRequest>(br#"{"model": "m", "input": [1]}"#, 8);
        let error = error.unwrap_err();
        assert_eq!(error.param.as_deref(), Some("input"));
        assert!(
            error.message.contains("a string or a list of strings"),
            "{}",
            error.message
        );
    }

    #[test]
    fn too_much_is_refused_before_the_model_is_asked() {
        let limits = Limits {
            inputs: 2,
            prompt_chars: 5,
            ..Limits::default()
        };
        let check = |texts: &[&str]| {
            let texts = Texts {
                name: "input",
                texts: texts.iter().map(|text| (*text).to_owned()).collect(),
                dimensions: None,
                options: Options::default(),
                keep_alive: None,
            };
            texts
                .check(&limits)
                .map_err(|error| (error.code, error.param))
        };
        let param = |name: &str| Some(name.to_owned());
        assert_eq!(check(&["a", "bcde"]), Ok(()));
        assert_eq!(check(&[]), Ok(()));
        assert_eq!(
            check(&["a", "b", "c"]),
            Err(("invalid_parameter", param("input")))
        );
        assert_eq!(
            check(&["abc", "def"]),
            Err(("input_too_large", param("input")))
        );
        assert_eq!(check(&["a", ""]), Err(("empty_prompt", param("input[1]"))));
    }
}
