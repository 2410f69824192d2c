//! The chat template: it renders, and what it writes are tokens of this vocabulary.

use std::collections::BTreeSet;

use tercel_formats::Checkpoint;
use tercel_text::{ChatTemplate, Message, TemplateInput, TextError, TokenKind, Tokenizer};

use super::{Verification, count};
use crate::TokenId;
use crate::files::ModelFiles;

const TEMPLATE: &str = "template";
const MARKERS: &str = "template markers";
const BEGIN: &str = "begin token";
const TURN: &str = "end of turn";

pub(super) fn check(
    files: &ModelFiles,
    checkpoint: &Checkpoint<'_>,
    tokenizer: &Tokenizer,
    report: &mut Verification,
) {
    let source = match files.template(checkpoint) {
        Ok(Some(source)) => source,
        Ok(None) => return report.ok(TEMPLATE, "none: the model continues text, it does not chat"),
        Err(error) => return report.fail(TEMPLATE, error),
    };
    let template = match ChatTemplate::new(&source) {
        Ok(template) => template,
        Err(error) => return report.fail(TEMPLATE, error.to_string()),
    };
    let asked = [Message::user("Hello!")];
    let ids = match render(&template, tokenizer, &asked, true) {
        Ok((text, ids)) => {
            report.ok(
                TEMPLATE,
                format!("renders a turn of {}", count(ids.len(), "token")),
            );
            report.prompt(tokenizer, &text, &ids);
            ids
        }
        Err(error) => return report.fail(TEMPLATE, error.to_string()),
    };
    markers(&source, tokenizer, report);
    begin(tokenizer, &ids, report);
    let answered = [Message::user("Hello!"), Message::assistant(ANSWER)];
    if let Ok((_, ids)) = render(&template, tokenizer, &answered, false) {
        end_of_turn(tokenizer, &ids, report);
    }
}

/// A text without a special token in it.
const ANSWER: &str = "Yes";

fn render(
    template: &ChatTemplate,
    tokenizer: &Tokenizer,
    messages: &[Message],
    prompt: bool,
) -> Result<(String, Vec<TokenId>), TextError> {
    let name = |id: Option<TokenId>| id.and_then(|id| tokenizer.token(id));
    let mut input = TemplateInput::new(messages, tokenizer.markers());
    input.add_generation_prompt = prompt;
    input.bos_token = name(tokenizer.bos()).unwrap_or_default();
    input.eos_token = name(tokenizer.eos()).unwrap_or_default();
    let rendered = template.render(&input)?;
    let ids = tokenizer.encode_rendered(&rendered);
    Ok((rendered.text().to_owned(), ids))
}

/// What looks like a marker in the template is one token of the vocabulary.
fn markers(source: &str, tokenizer: &Tokenizer, report: &mut Verification) {
    let (known, unknown): (Vec<&str>, Vec<&str>) = written_markers(source)
        .into_iter()
        .partition(|marker| tokenizer.id(marker).is_some());
    if unknown.is_empty() {
        if !known.is_empty() {
            let known = count(known.len(), "marker");
            report.ok(
                MARKERS,
                format!("{known}, each one token of the vocabulary"),
            );
        }
        return;
    }
    let detail = format!("{} not in the vocabulary", unknown.join(", "));
    // A tokenizer with markers of this kind, and none of the template's, was made for another one.
    let has_others = tokenizer
        .markers()
        .iter()
        .any(|token| token.starts_with("<|"));
    if known.is_empty() && has_others {
        report.fail(MARKERS, format!("{detail}: the tokenizer of another model"));
    } else {
        report.warn(
            MARKERS,
            format!("{detail}, so the model gets them as plain text"),
        );
    }
}

/// The texts in a template's source that published models have as tokens: `<|...|>`, and the turns
/// of Gemma.
fn written_markers(source: &str) -> BTreeSet<&str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let mut found = BTreeSet::new();
    for (start, _) in source.match_indices("<|") {
        let rest = &source[start..];
        if let Some(end) = rest.find("|>")
            && end > 2
            && rest[2..end].chars().all(plain)
        {
            found.insert(&rest[..end + 2]);
        }
    }
    let turns = ["<start_of_turn>", "<end_of_turn>"];
    found.extend(turns.into_iter().filter(|turn| source.contains(turn)));
    found
}

/// The begin token stands once.
fn begin(tokenizer: &Tokenizer, ids: &[TokenId], report: &mut Verification) {
    let Some(bos) = tokenizer.bos() else {
        return;
    };
    let name = tokenizer.token(bos).unwrap_or_default();
    let leading = ids.iter().take_while(|id| **id == bos).count();
    match (leading, tokenizer.add_bos()) {
        (0, false) => {}
        (0, true) => report.warn(
            BEGIN,
            format!("plain text begins with `{name}`, but the template does not write it"),
        ),
        (1, true) => report.ok(
            BEGIN,
            format!("the template writes `{name}`, as plain text gets it; it is not added twice"),
        ),
        (1, false) => report.ok(BEGIN, format!("the template writes `{name}`")),
        (n, _) => report.fail(BEGIN, format!("the template writes `{name}` {n} times")),
    }
}

/// A turn ends with a token that ends a reply.
fn end_of_turn(tokenizer: &Tokenizer, ids: &[TokenId], report: &mut Verification) {
    let special = |id: &&TokenId| {
        matches!(
            tokenizer.kind(**id),
            TokenKind::Control | TokenKind::UserDefined
        )
    };
    let answer = tokenizer.encode(ANSWER);
    let after = ids
        .windows(answer.len().max(1))
        .rposition(|window| window == answer)
        .map(|at| at + answer.len());
    let Some(end) = after.and_then(|after| ids.get(after..)?.iter().find(special)) else {
        return;
    };
    let name = tokenizer.token(*end).unwrap_or_default();
    if tokenizer.is_end(*end) {
        report.ok(TURN, format!("{end} `{name}` ends a turn and a reply"));
    } else {
        report.warn(
            TURN,
            format!("the template ends a turn with {end} `{name}`, which is no end token: replies would not stop there"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_found_in_a_template() {
        let found = |source: &str| {
            written_markers(source)
                .into_iter()
                .collect::<Vec<_>>()
                .join(" ")
        };
        for (source, expected) in [
            (
                "{{ '<|im_start|>' + m.role }}<|im_end|>\n<|im_end|>",
                "<|im_end|> <|im_start|>",
            ),
            ("<start_of_turn>user <tool_call>", "<start_of_turn>"),
            ("{% if a <| b |> c %}<||>", ""),
            ("<|a b|> <|open", ""),
        ] {
            assert_eq!(found(source), expected, "{source}");
        }
    }
}
