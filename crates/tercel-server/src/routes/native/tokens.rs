//! What text becomes for a model, and back: for clients that count tokens or fill the context
//! themselves. Fields and replies are those of llama.cpp's server.

use axum::Json as JsonReply;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use tercel::{TokenId, Tokenizer};
use utoipa::ToSchema;

use super::Refusals;
use super::chat::{Turn, messages};
use crate::app::Shared;
use crate::body::Json;
use crate::error::ApiError;
use crate::gate::Caller;
use crate::work::on_a_thread;

/// A text that is to become tokens.
#[derive(Deserialize, ToSchema)]
#[schema(as = tercel::TokenizeRequest)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenizeRequest {
    /// The model by name, by default the server's first.
    model: Option<String>,
    /// Names of control tokens in it are text.
    content: String,
    /// Whether the begin token is put before it where the model wants one.
    #[serde(default)]
    add_special: bool,
    /// Whether each token comes with its text.
    #[serde(default)]
    with_pieces: bool,
}

/// The tokens of a text.
#[derive(Serialize, ToSchema)]
#[schema(as = tercel::TokenizeReply)]
pub(super) struct TokenizeReply {
    /// In order: ids alone, or with their texts where `with_pieces` says so.
    tokens: Vec<TokenOfText>,
}

/// A token, alone or with its text.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = tercel::TokenOfText)]
#[serde(untagged)]
enum TokenOfText {
    Id(TokenId),
    Piece(PieceOfText),
}

/// A token with its text.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = tercel::PieceOfText)]
struct PieceOfText {
    id: TokenId,
    piece: Bytes,
}

/// A text, or its bytes where they are a part of a character.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = tercel::Bytes)]
#[serde(untagged)]
enum Bytes {
    Text(String),
    Raw(Vec<u8>),
}

/// Gives the tokens of a text.
#[utoipa::path(
    post,
    path = "/tokenize",
    tag = "tercel",
    operation_id = "tercel_tokenize",
    request_body = TokenizeRequest,
    responses((status = 200, body = TokenizeReply, description = "The tokens"), Refusals)
)]
pub(super) async fn tokenize(
    State(app): State<Shared>,
    _: Caller,
    Json(body): Json<TokenizeRequest>,
) -> Result<JsonReply<TokenizeReply>, ApiError> {
    let name = app.models.find(body.model.as_deref())?.name.clone();
    check_length(&app, "content", body.content.chars().count())?;
    let lease = app.models.lease(&name).await?;
    let reply = on_a_thread(move || {
        let tokens = if body.add_special && !body.content.is_empty() {
            lease.raw_tokens(&body.content)?
        } else {
            lease.tokenizer().encode(&body.content)
        };
        let told = tokens.into_iter().map(|id| match body.with_pieces {
            true => TokenOfText::Piece(piece(lease.tokenizer(), id)),
            false => TokenOfText::Id(id),
        });
        Ok(TokenizeReply {
            tokens: told.collect(),
        })
    });
    reply.await.map(JsonReply)
}

fn piece(tokenizer: &Tokenizer, id: TokenId) -> PieceOfText {
    let bytes = tokenizer.piece(id);
    let piece = match std::str::from_utf8(bytes) {
        Ok(text) => Bytes::Text(text.to_owned()),
        Err(_) => Bytes::Raw(bytes.to_vec()),
    };
    PieceOfText { id, piece }
}

/// Tokens that are to become text.
#[derive(Deserialize, ToSchema)]
#[schema(as = tercel::DetokenizeRequest)]
#[serde(deny_unknown_fields)]
pub(super) struct DetokenizeRequest {
    /// The model by name, by default the server's first.
    model: Option<String>,
    /// Ids of its vocabulary.
    tokens: Vec<TokenId>,
}

/// The text of tokens.
#[derive(Serialize, ToSchema)]
#[schema(as = tercel::DetokenizeReply)]
pub(super) struct DetokenizeReply {
    /// Parts of characters are replaced; control tokens have no text.
    content: String,
}

/// Gives the text of tokens.
#[utoipa::path(
    post,
    path = "/detokenize",
    tag = "tercel",
    operation_id = "tercel_detokenize",
    request_body = DetokenizeRequest,
    responses((status = 200, body = DetokenizeReply, description = "The text"), Refusals)
)]
pub(super) async fn detokenize(
    State(app): State<Shared>,
    _: Caller,
    Json(body): Json<DetokenizeRequest>,
) -> Result<JsonReply<DetokenizeReply>, ApiError> {
    let name = app.models.find(body.model.as_deref())?.name.clone();
    check_length(&app, "tokens", body.tokens.len())?;
    let lease = app.models.lease(&name).await?;
    let reply = on_a_thread(move || {
        check_ids(&body.tokens, lease.tokenizer().vocab_size())?;
        let content = lease.tokenizer().decode(&body.tokens);
        Ok(DetokenizeReply { content })
    });
    reply.await.map(JsonReply)
}

fn check_ids(tokens: &[TokenId], vocab_size: usize) -> Result<(), ApiError> {
    let is_known = |id: TokenId| usize::try_from(id).is_ok_and(|id| id < vocab_size);
    match tokens.iter().position(|id| !is_known(*id)) {
        None => Ok(()),
        Some(index) => Err(ApiError::invalid(
            format!("tokens[{index}]"),
            format!(
                "token {} is not in the vocabulary of {vocab_size}",
                tokens[index]
            ),
        )),
    }
}

/// A conversation that is to become a prompt.
#[derive(Deserialize, ToSchema)]
#[schema(as = tercel::ApplyTemplateRequest)]
#[serde(deny_unknown_fields)]
pub(super) struct ApplyTemplateRequest {
    /// The model by name, by default the server's first.
    model: Option<String>,
    #[schema(min_items = 1)]
    messages: Vec<Turn>,
    /// Whether the prompt ends with the beginning of a reply.
    #[serde(default = "yes")]
    #[schema(default = true)]
    add_generation_prompt: bool,
}

/// The prompt of a conversation.
#[derive(Serialize, ToSchema)]
#[schema(as = tercel::ApplyTemplateReply)]
pub(super) struct ApplyTemplateReply {
    prompt: String,
}

/// Gives what the model's chat template makes of a conversation.
#[utoipa::path(
    post,
    path = "/apply-template",
    tag = "tercel",
    operation_id = "tercel_apply_template",
    request_body = ApplyTemplateRequest,
    responses((status = 200, body = ApplyTemplateReply, description = "The prompt"), Refusals)
)]
pub(super) async fn apply_template(
    State(app): State<Shared>,
    _: Caller,
    Json(body): Json<ApplyTemplateRequest>,
) -> Result<JsonReply<ApplyTemplateReply>, ApiError> {
    let name = app.models.find(body.model.as_deref())?.name.clone();
    let messages = messages(body.messages)?;
    let chars = messages
        .iter()
        .map(|message| message.content.chars().count());
    check_length(&app, "messages", chars.sum())?;
    let lease = app.models.lease(&name).await?;
    let reply = on_a_thread(move || {
        let prompt = lease.render(&messages, body.add_generation_prompt)?;
        Ok(ApplyTemplateReply { prompt })
    });
    reply.await.map(JsonReply)
}

fn yes() -> bool {
    true
}

/// The bound of prompts holds for what becomes none, too.
fn check_length(app: &Shared, field: &str, length: usize) -> Result<(), ApiError> {
    let most = app.config.limits.prompt_chars;
    if length <= most {
        return Ok(());
    }
    let message = format!("`{field}` has a length of {length}, at most {most} is taken");
    Err(ApiError::bad_request("input_too_large", message).about(field))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ids_out_of_the_vocabulary_are_refused_with_their_place() {
        assert!(check_ids(&[], 0).is_ok());
        assert!(check_ids(&[0, 9], 10).is_ok());
        let error = check_ids(&[0, 10, 11], 10).unwrap_err();
        assert_eq!(
            (error.status.as_u16(), error.code),
            (400, "invalid_parameter")
        );
        assert_eq!(error.param.as_deref(), Some("tokens[1]"));
        assert_eq!(error.message, "token 10 is not in the vocabulary of 10");
    }

    #[test]
    fn replies_are_as_other_servers_give_them() {
        let text = PieceOfText {
            id: 1,
            piece: Bytes::Text("a".to_owned()),
        };
        let part = PieceOfText {
            id: 2,
            piece: Bytes::Raw(vec![0xC3]),
        };
        for (tokens, wire) in [
            (
                vec![TokenOfText::Id(1), TokenOfText::Id(2)],
                json!({"tokens": [1, 2]}),
            ),
            (
                vec![TokenOfText::Piece(text), TokenOfText::Piece(part)],
                json!({"tokens": [{"id": 1, "piece": "a"}, {"id": 2, "piece": [0xC3]}]}),
            ),
        ] {
            let reply = TokenizeReply { tokens };
            assert_eq!(serde_json::to_value(reply).unwrap(), wire);
        }
    }

    #[test]
    fn a_reply_is_begun_unless_told_otherwise() {
        let body = json!({"messages": [{"role": "user", "content": "Hi"}]});
        let request: ApplyTemplateRequest = serde_json::from_value(body).unwrap();
        assert!(request.add_generation_prompt);
    }
}
