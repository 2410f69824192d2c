//! Prompts that are no conversations: texts and tokens, one or several.

use serde::Deserialize;
use tercel::TokenId;
use utoipa::ToSchema;

use super::texts::TextOr;
use crate::error::ApiError;
use crate::work::Input;

/// An element of a list of prompts, or of a prompt that is a list.
#[derive(Clone, Debug, Deserialize, PartialEq, ToSchema)]
#[serde(
    untagged,
    expecting = "expected a string, a token id or a list of token ids"
)]
pub(super) enum PromptItem {
    /// A whole prompt.
    Text(String),
    /// One token of the only prompt.
    Token(TokenId),
    /// A whole prompt.
    Tokens(Vec<TokenId>),
}

/// The prompts of a field, at least one.
pub(super) fn inputs(prompts: TextOr<PromptItem>, field: &str) -> Result<Vec<Input>, ApiError> {
    let items = match prompts {
        TextOr::Text(text) => return Ok(vec![Input::Text(text)]),
        TextOr::List(items) => items,
    };
    if items.is_empty() {
        return Err(ApiError::invalid(
            field,
            format!("`{field}` is an empty list"),
        ));
    }
    let count = items.len();
    let mut tokens = Vec::new();
    let mut inputs = Vec::new();
    for item in items {
        match item {
            PromptItem::Token(token) => tokens.push(token),
            PromptItem::Text(text) => inputs.push(Input::Text(text)),
            PromptItem::Tokens(tokens) => inputs.push(Input::Tokens(tokens)),
        }
    }
    if tokens.len() == count {
        return Ok(vec![Input::Tokens(tokens)]);
    }
    let is_text = |input: &Input| matches!(input, Input::Text(_));
    let is_mixed = inputs
        .iter()
        .any(|input| is_text(input) != is_text(&inputs[0]));
    if !tokens.is_empty() || is_mixed {
        let message = format!("`{field}` mixes strings, token ids and lists of token ids");
        return Err(ApiError::invalid(field, message));
    }
    Ok(inputs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::parse;

    #[test]
    fn the_four_forms_are_told_apart() {
        let text = |text: &str| Input::Text(text.to_owned());
        for (body, want) in [
            (r#""a""#, vec![text("a")]),
            (r#"["a", "b"]"#, vec![text("a"), text("b")]),
            ("[1, 2]", vec![Input::Tokens(vec![1, 2])]),
            (
                "[[1], [2, 3]]",
                vec![Input::Tokens(vec![1]), Input::Tokens(vec![2, 3])],
            ),
        ] {
            let prompts = parse::<TextOr<PromptItem>>(body.as_bytes(), 8).unwrap();
            assert_eq!(inputs(prompts, "prompt"), Ok(want), "{body}");
        }
    }

    #[test]
    fn what_is_none_of_them_is_refused() {
        for body in ["[]", r#"["a", 1]"#, r#"[[1], "a"]"#, "[1, [2]]"] {
            let prompts = parse::<TextOr<PromptItem>>(body.as_bytes(), 8).unwrap();
            let error = inputs(prompts, "prompt").unwrap_err();
            assert_eq!(error.param.as_deref(), Some("prompt"), "{body}");
        }
        for body in [
            "[-1]",
            "[1.5]",
            "[null]",
            "{}",
            "7",
            "[[\"a\"]]",
            "[4294967296]",
        ] {
            let error = parse::<TextOr<PromptItem>>(body.as_bytes(), 8).unwrap_err();
            assert_eq!(error.code, "invalid_request", "{body}");
            assert!(
                error.message.contains("string"),
                "{body}: {}",
                error.message
            );
        }
    }
}
