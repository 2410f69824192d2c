//! `/api/chat` and `/api/generate`.

use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::error::OllamaError;
use super::record::{NDJSON, Record, Records, Shape};
use super::request::{Asked, ChatRequest, GenerateRequest, Question};
use crate::app::Shared;
use crate::body::Json;
use crate::error::ApiError;
use crate::gate::{Caller, Role};
use crate::routes::backend::Backend;
use crate::routes::whole::Whole;
use crate::stream::respond;
use crate::work::{Input, begin};

/// Reply to a conversation.
#[utoipa::path(
    post,
    path = "/api/chat",
    operation_id = "ollama_chat",
    tag = "ollama",
    request_body = ChatRequest,
    responses(
        (status = 200, description = "The reply; unless `stream` is false, in lines.", content(
            (Record = "application/json"),
            (String = "application/x-ndjson"),
        )),
        (status = 400, description = "The request is wrong or not supported.", body = OllamaError),
        (status = 401, description = "The key is missing or unknown.", body = OllamaError),
        (status = 403, description = "Not allowed.", body = OllamaError),
        (status = 404, description = "No such model.", body = OllamaError),
        (status = 409, description = "The model to unload is in use.", body = OllamaError),
        (status = 413, description = "The body is too large.", body = OllamaError),
        (status = 415, description = "The body is not JSON.", body = OllamaError),
        (status = 429, description = "Too many requests.", body = OllamaError),
        (status = 500, description = "The model failed.", body = OllamaError),
        (status = 503, description = "The model is not ready.", body = OllamaError),
    ),
)]
pub(super) async fn chat(
    State(app): State<Shared>,
    caller: Caller,
    Json(request): Json<ChatRequest>,
) -> Result<Response, ApiError> {
    let asked = request.read(&app.config)?;
    answer(&app, &caller, Shape::Chat, asked).await
}

/// Continue a text.
#[utoipa::path(
    post,
    path = "/api/generate",
    operation_id = "ollama_generate",
    tag = "ollama",
    request_body = GenerateRequest,
    responses(
        (status = 200, description = "The reply; unless `stream` is false, in lines.", content(
            (Record = "application/json"),
            (String = "application/x-ndjson"),
        )),
        (status = 400, description = "The request is wrong or not supported.", body = OllamaError),
        (status = 401, description = "The key is missing or unknown.", body = OllamaError),
        (status = 403, description = "Not allowed.", body = OllamaError),
        (status = 404, description = "No such model.", body = OllamaError),
        (status = 409, description = "The model to unload is in use.", body = OllamaError),
        (status = 413, description = "The body is too large.", body = OllamaError),
        (status = 415, description = "The body is not JSON.", body = OllamaError),
        (status = 429, description = "Too many requests.", body = OllamaError),
        (status = 500, description = "The model failed.", body = OllamaError),
        (status = 503, description = "The model is not ready.", body = OllamaError),
    ),
)]
pub(super) async fn generate(
    State(app): State<Shared>,
    caller: Caller,
    Json(request): Json<GenerateRequest>,
) -> Result<Response, ApiError> {
    let asked = request.read(&app.config)?;
    answer(&app, &caller, Shape::Generate, asked).await
}

async fn answer(
    app: &Shared,
    caller: &Caller,
    shape: Shape,
    asked: Asked,
) -> Result<Response, ApiError> {
    let question = match asked {
        Asked::Question(question) => *question,
        Asked::Presence {
            model,
            is_wanted,
            adjustments,
        } => {
            let model = app.models.find(Some(&model))?.name.clone();
            if is_wanted {
                load(app, &model).await?;
            } else if app.config.keys.is_empty() || caller.role == Role::Admin {
                unload(app, &model).await?;
            } else {
                // As `/admin/models/unload` has it.
                let message = "only a key of an administrator may unload a model";
                return Err(ApiError::new(StatusCode::FORBIDDEN, "forbidden", message));
            }
            let records = Records::new(shape, model, Duration::ZERO, adjustments);
            let record = records.presence(if is_wanted { "load" } else { "unload" });
            return Ok(axum::Json(record).into_response());
        }
    };
    let asked_at = Instant::now();
    let Question {
        ask,
        is_streamed,
        adjustments,
        ..
    } = fit_to_model(app, question).await?;
    let running = begin(app, caller, ask).await?;
    let backend = Backend::of(&running);
    let model = running.model().to_owned();
    let records = Records::new(shape, model, asked_at.elapsed(), adjustments);
    if is_streamed {
        return Ok(backend.on(respond(NDJSON, vec![running], records)));
    }
    let whole = Whole::of(running).await?;
    Ok(backend.on(axum::Json(records.whole(whole)).into_response()))
}

/// Checks and completes what depends on the model, which is loaded for that.
async fn fit_to_model(app: &Shared, mut question: Question) -> Result<Question, ApiError> {
    if question.num_ctx.is_none() && question.without_template.is_none() {
        return Ok(question);
    }
    let model = &app.models.find(question.ask.model.as_deref())?.name;
    // What needs no model is wrong before it is loaded.
    question.ask.check(&app.config.limits)?;
    if app.is_draining() {
        return Err(ApiError::from(tercel::host::HostError::Closed));
    }
    let lease = app.models.lease(model).await?;
    if let Some(asked) = question.num_ctx {
        let note = check_context(asked, lease.info().max_context)?;
        question.adjustments.extend(note);
    }
    if let Some(prompt) = question.without_template.take()
        && !lease.info().has_template
    {
        question.ask.input = Input::Text(prompt);
    }
    Ok(question)
}

/// Whether the model has the context that a client counts on, and what to tell where it has more.
///
/// # Errors
/// 400 where it has less.
pub(super) fn check_context(asked: usize, loaded: usize) -> Result<Option<String>, ApiError> {
    if asked > loaded {
        let message = format!(
            "`num_ctx` is {asked}, but the model is loaded with a context of {loaded} tokens"
        );
        return Err(ApiError::unsupported("options.num_ctx", message));
    }
    Ok((asked < loaded)
        .then(|| format!("num_ctx: the model is loaded with a context of {loaded} tokens")))
}

async fn load(app: &Shared, model: &str) -> Result<(), ApiError> {
    if app.is_draining() {
        return Err(ApiError::from(tercel::host::HostError::Closed));
    }
    app.models.lease(model).await.map(drop)
}

/// Takes a model out of the memory that nobody uses: others are not made to wait for it.
async fn unload(app: &Shared, model: &str) -> Result<(), ApiError> {
    let running = app.models.status(model)?.running;
    if running > 0 {
        let name = model.to_owned();
        return Err(ApiError::from(tercel::host::HostError::InUse {
            name,
            running,
        }));
    }
    let (host, name) = (app.models.host().clone(), model.to_owned());
    match tokio::task::spawn_blocking(move || host.unload(&name)).await {
        Ok(unloaded) => Ok(unloaded?),
        Err(_) => Err(ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the unload of the model failed",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_that_is_not_there_is_refused_and_another_told() {
        assert_eq!(check_context(4096, 4096), Ok(None));
        let note = check_context(2048, 4096).expect("enough").expect("a note");
        assert!(
            note.starts_with("num_ctx: ") && note.contains("4096"),
            "{note}"
        );
        let error = check_context(8192, 4096).unwrap_err();
        assert_eq!(error.param.as_deref(), Some("options.num_ctx"));
        assert!(error.message.contains("8192") && error.message.contains("4096"));
    }
}
