//! `/api/show`: what one model is.

use std::sync::Arc;
use std::time::SystemTime;

use axum::Extension;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tercel::{Inspection, Sampling};
use utoipa::ToSchema;

use super::error::OllamaError;
use super::files::Found;
use super::list::{Details, Known, blocking, created, details, modified};
use super::time::rfc3339;
use crate::app::Shared;
use crate::body::Json;
use crate::config::ServedModel;
use crate::error::ApiError;

/// A question to `/api/show`.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[schema(as = ollama::ShowRequest)]
#[serde(deny_unknown_fields)]
pub(super) struct ShowRequest {
    model: Option<String>,
    /// The same, as older clients have it.
    name: Option<String>,
    /// Must not be true.
    verbose: Option<bool>,
}

/// A reply of `/api/show`.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ollama::ShowReply)]
pub(super) struct ShowReply {
    modelfile: String,
    /// What replies are made with unless a request says otherwise.
    parameters: String,
    /// The chat template (Jinja).
    template: String,
    details: Details,
    #[schema(value_type = Object)]
    model_info: Map<String, Value>,
    capabilities: Vec<&'static str>,
    modified_at: String,
    /// The name of the licence.
    #[serde(skip_serializing_if = "Option::is_none")]
    license: Option<String>,
}

/// Describe a model.
#[utoipa::path(
    post,
    path = "/api/show",
    operation_id = "ollama_show",
    tag = "ollama",
    request_body = ShowRequest,
    responses(
        (status = 200, description = "What the model is.", body = ShowReply),
        (status = 400, description = "The request is wrong or not supported.", body = OllamaError),
        (status = 401, description = "The key is missing or unknown.", body = OllamaError),
        (status = 403, description = "Not allowed.", body = OllamaError),
        (status = 404, description = "No such model.", body = OllamaError),
        (status = 413, description = "The body is too large.", body = OllamaError),
        (status = 415, description = "The body is not JSON.", body = OllamaError),
        (status = 429, description = "Too many requests.", body = OllamaError),
    ),
)]
pub(super) async fn show(
    State(app): State<Shared>,
    Extension(known): Extension<Arc<Known>>,
    Json(request): Json<ShowRequest>,
) -> Result<axum::Json<ShowReply>, ApiError> {
    if request.verbose == Some(true) {
        return Err(ApiError::unsupported(
            "verbose",
            "the vocabulary is not shown",
        ));
    }
    let Some(name) = request.model.or(request.name) else {
        let error = ApiError::bad_request("invalid_request", "missing field `model`");
        return Err(error.about("model"));
    };
    let model = app.models.find(Some(&name))?.clone();
    let reply = blocking(move || {
        let found = known.files.find(&model.source);
        describe(&model, found.as_ref(), created(&app))
    });
    Ok(axum::Json(reply.await?))
}

fn describe(model: &ServedModel, found: Option<&Found>, created: SystemTime) -> ShowReply {
    let inspection = found.and_then(|found| found.inspection.as_deref());
    let template = inspection
        .and_then(|it| it.template.clone())
        .unwrap_or_default();
    let mut capabilities = vec!["completion"];
    if template.contains("<think>") || template.contains("enable_thinking") {
        capabilities.push("thinking");
    }
    let of_files = found.and_then(|found| found.local.licence.clone());
    ShowReply {
        modelfile: format!("FROM {}\n", model.name),
        parameters: inspection
            .map(|it| parameters(&it.sampling))
            .unwrap_or_default(),
        template,
        details: details(found),
        model_info: inspection.map(model_info).unwrap_or_default(),
        capabilities,
        modified_at: rfc3339(modified(found, created)),
        license: of_files.or_else(|| inspection.and_then(|it| it.licence.clone())),
    }
}

/// Lines of a name and a value, as Ollama's model files have them.
fn parameters(sampling: &Sampling) -> String {
    let mut lines = Vec::new();
    let mut line = |name: &str, value: Option<String>| {
        lines.extend(value.map(|value| format!("{name:<30} {value}")));
    };
    let float = |value: Option<f32>| value.map(|it| it.to_string());
    let count = |value: Option<usize>| value.map(|it| it.to_string());
    line("num_predict", count(sampling.max_new_tokens));
    line("temperature", float(sampling.temperature));
    line("top_k", count(sampling.top_k));
    line("top_p", float(sampling.top_p));
    line("min_p", float(sampling.min_p));
    line("repeat_penalty", float(sampling.repetition_penalty));
    line("repeat_last_n", count(sampling.repetition_window));
    line("presence_penalty", float(sampling.presence_penalty));
    line("frequency_penalty", float(sampling.frequency_penalty));
    for stop in &sampling.stop {
        line("stop", Some(format!("{stop:?}")));
    }
    lines.join("\n")
}

/// Numbers of a model under the names of GGUF.
fn model_info(inspection: &Inspection) -> Map<String, Value> {
    let model = &inspection.model;
    let of = |name: &str| format!("{}.{name}", model.architecture);
    let fields = [
        ("general.architecture".to_owned(), json!(model.architecture)),
        ("general.name".to_owned(), json!(model.name)),
        (
            "general.parameter_count".to_owned(),
            json!(model.parameters),
        ),
        (of("context_length"), json!(model.trained_context)),
        (of("embedding_length"), json!(model.hidden_size)),
        (of("block_count"), json!(model.n_layers)),
        (of("feed_forward_length"), json!(model.feed_forward)),
        (of("attention.head_count"), json!(model.n_heads)),
        (of("attention.head_count_kv"), json!(model.n_kv_heads)),
        (of("attention.key_length"), json!(model.head_dim)),
        (of("attention.sliding_window"), json!(model.sliding_window)),
        (of("vocab_size"), json!(model.vocab_size)),
        (
            "tokenizer.ggml.model".to_owned(),
            json!(inspection.tokenizer),
        ),
        (
            "tokenizer.ggml.pre".to_owned(),
            json!(inspection.pre_tokenizer),
        ),
    ];
    let known = fields.into_iter().filter(|(_, value)| !value.is_null());
    known.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_whose_files_are_not_here_is_described_all_the_same() {
        let model = ServedModel::new("small", "some/where", || tercel::Engine::builder("x"));
        let shown = describe(&model, None, SystemTime::UNIX_EPOCH);
        assert_eq!(shown.modelfile, "FROM small\n");
        assert_eq!(shown.capabilities, ["completion"]);
        assert!(shown.model_info.is_empty());
    }

    #[test]
    fn defaults_are_shown_under_ollamas_names() {
        let mut sampling = Sampling::default();
        sampling.temperature = Some(0.6);
        sampling.top_k = Some(20);
        sampling.stop = vec!["<|im_end|>".to_owned()];
        let shown = parameters(&sampling);
        let words: Vec<Vec<&str>> = shown
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(
            words,
            [
                ["temperature", "0.6"],
                ["top_k", "20"],
                ["stop", "\"<|im_end|>\""]
            ]
        );
    }
}
