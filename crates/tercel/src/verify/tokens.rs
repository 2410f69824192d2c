//! The tokenizer: of the model's size, with the model's special tokens, and true to texts.

use serde_json::Value as Json;
use tercel_formats::Checkpoint;
use tercel_formats::checkpoint::Field;
use tercel_text::{TokenKind, Tokenizer};

use super::{PromptCheck, SpecialTokenIds, Verification};
use crate::TokenId;
use crate::files::ModelFiles;

const VOCABULARY: &str = "vocabulary";
const SPECIALS: &str = "special tokens";
const ENDS: &str = "end tokens";
const MAP: &str = "special_tokens_map";
const ROUND_TRIP: &str = "round trip";
const IDS: &str = "ids";

/// What is encoded and decoded again.
const PROMPTS: [&str; 4] = [
    "Hello!",
    "Write a haiku about edge devices.",
    "<|system|> Keep answers short. <|user|> Summarize this.",
    "Hello, edge devices.",
];

pub(super) fn check(
    files: &ModelFiles,
    checkpoint: &Checkpoint<'_>,
    tokenizer: &Tokenizer,
    report: &mut Verification,
) {
    report.tokenizer_vocab_size = Some(tokenizer.vocab_size());
    report.special_token_ids = SpecialTokenIds {
        bos_token_id: tokenizer.bos(),
        eos_token_id: tokenizer.eos(),
        pad_token_id: tokenizer.pad(),
        unk_token_id: tokenizer.unk(),
    };
    report.end_token_ids = tokenizer.end_ids().to_vec();
    vocabulary(tokenizer.vocab_size(), report);
    specials(tokenizer, report);
    ends(tokenizer, report);
    for (role, own) in [
        ("bos", tokenizer.bos()),
        ("eos", tokenizer.eos()),
        ("pad", tokenizer.pad()),
    ] {
        configured(files, checkpoint, tokenizer, (role, own), report);
    }
    map(files, tokenizer, report);
    round_trip(tokenizer, report);
}

/// As many tokens as the model has, or a few less where its embedding is padded.
fn vocabulary(tokens: usize, report: &mut Verification) {
    let Some(expected) = report.expected_vocab else {
        return;
    };
    if tokens > expected {
        report.fail(
            VOCABULARY,
            format!(
                "the tokenizer has {tokens} tokens, the model {expected}: wrong directory, wrong \
                 variant or stale config"
            ),
        );
        return;
    }
    let padding = expected - tokens;
    let rounded = [64, 128, 256, 512]
        .iter()
        .any(|n| tokens.next_multiple_of(*n) == expected);
    let detail = format!("{tokens} tokens, and {padding} rows of padding in the embedding");
    if padding == 0 {
        report.ok(VOCABULARY, format!("{tokens} tokens on both sides"));
    } else if rounded || padding < expected / 100 {
        report.ok(VOCABULARY, detail);
    } else if tokens < expected / 2 {
        report.fail(
            VOCABULARY,
            format!(
                "the tokenizer has {tokens} tokens, the model {expected}, which no padding \
                 explains: wrong directory or wrong variant"
            ),
        );
    } else {
        report.warn(VOCABULARY, format!("{detail}: more than usual"));
    }
}

fn specials(tokenizer: &Tokenizer, report: &mut Verification) {
    let shown = |(role, id): (&str, Option<TokenId>)| match id {
        Some(id) => format!("{role} {id} `{}`", name(tokenizer, id)),
        None => format!("{role} none"),
    };
    let roles = [
        ("bos", tokenizer.bos()),
        ("eos", tokenizer.eos()),
        ("pad", tokenizer.pad()),
        ("unk", tokenizer.unk()),
    ];
    let detail = roles.map(shown).join(", ");
    if tokenizer.eos().is_some() {
        report.ok(SPECIALS, detail);
    } else {
        report.fail(
            SPECIALS,
            format!(
                "{detail}: without an end token no reply ends; use the full tokenizer package, \
                 with tokenizer_config.json"
            ),
        );
    }
    if let (Some(pad), true) = (tokenizer.pad(), tokenizer.pad() != tokenizer.eos())
        && tokenizer.kind(pad) == TokenKind::Normal
    {
        let pad = name(tokenizer, pad);
        report.warn(
            SPECIALS,
            format!("the padding token `{pad}` is a piece of text"),
        );
    }
}

fn ends(tokenizer: &Tokenizer, report: &mut Verification) {
    let ends = tokenizer.end_ids().iter();
    let shown: Vec<String> = ends
        .map(|id| format!("{id} `{}`", name(tokenizer, *id)))
        .collect();
    if !shown.is_empty() {
        report.ok(ENDS, format!("a reply ends at {}", shown.join(", ")));
    }
}

/// What the configuration and `generation_config.json` say of a role, against the tokenizer.
fn configured(
    files: &ModelFiles,
    checkpoint: &Checkpoint<'_>,
    tokenizer: &Tokenizer,
    (role, own): (&str, Option<TokenId>),
    report: &mut Verification,
) {
    let field = format!("{role}_token_id");
    let mut named: Vec<(&str, TokenId)> = Vec::new();
    for path in [format!("text_config.{field}"), field.clone()] {
        let ids = checkpoint.field(&path).map_or_else(Vec::new, whole_numbers);
        named.extend(ids.into_iter().map(|id| ("config.json", id)));
    }
    const GENERATION: &str = "generation_config.json";
    if let Ok(Some(json)) = files.small().json(GENERATION) {
        let ids = match json.get(&field) {
            Some(Json::Array(several)) => several.iter().filter_map(Json::as_u64).collect(),
            Some(one) => one.as_u64().into_iter().collect(),
            None => Vec::new(),
        };
        let ids = ids.into_iter().filter_map(|id| TokenId::try_from(id).ok());
        named.extend(ids.map(|id| (GENERATION, id)));
    }
    named.dedup();
    for (file, id) in &named {
        if *id as usize >= report.expected_vocab.unwrap_or(usize::MAX) {
            report.fail(
                IDS,
                format!("`{field}` of {file} is {id}, outside the vocabulary"),
            );
        } else if tokenizer.token(*id).is_none() {
            report.fail(
                IDS,
                format!("`{field}` of {file} is {id}, which the tokenizer does not have"),
            );
        } else if tokenizer.kind(*id) == TokenKind::Normal && Some(*id) != own {
            let detail = format!(
                "`{field}` of {file} is {id}, a piece of text (`{}`) in this tokenizer: the \
                 tokenizer of another model",
                name(tokenizer, *id)
            );
            if role == "eos" {
                report.fail(IDS, detail);
            } else {
                report.warn(IDS, detail);
            }
        }
    }
    match own {
        Some(own) if !named.is_empty() && named.iter().all(|(_, id)| *id != own) => {
            let others: Vec<String> = named.iter().map(|(_, id)| id.to_string()).collect();
            report.warn(
                IDS,
                format!(
                    "`{field}` is {} in the configuration, but {own} `{}` in the tokenizer",
                    others.join(", "),
                    name(tokenizer, own)
                ),
            );
        }
        Some(own) if !named.is_empty() => {
            report.ok(IDS, format!("`{field}` {own} is the same in all files"));
        }
        // Common where a model was trained without: nothing is put before a text then.
        None if role == "bos" && !named.is_empty() => {
            let (file, id) = named[0];
            report.ok(
                IDS,
                format!("`{field}` is {id} in {file}; the tokenizer has none"),
            );
        }
        _ => {}
    }
}

fn whole_numbers(field: Field<'_>) -> Vec<TokenId> {
    let one = |field: Field<'_>| match field {
        Field::Whole(id) => TokenId::try_from(id).ok(),
        _ => None,
    };
    match field {
        Field::List(several) => several.into_iter().filter_map(one).collect(),
        field => one(field).into_iter().collect(),
    }
}

/// `special_tokens_map.json` names the tokens that the tokenizer uses.
fn map(files: &ModelFiles, tokenizer: &Tokenizer, report: &mut Verification) {
    const FILE: &str = "special_tokens_map.json";
    let json = match files.small().json(FILE) {
        Ok(Some(json)) => json,
        Ok(None) => return,
        Err(error) => return report.fail(MAP, format!("{FILE}: {error}")),
    };
    let roles = [
        ("bos", tokenizer.bos()),
        ("eos", tokenizer.eos()),
        ("pad", tokenizer.pad()),
        ("unk", tokenizer.unk()),
    ];
    let mut agrees = true;
    for (role, own) in roles {
        let token = json.get(format!("{role}_token"));
        let text =
            token.and_then(|token| token.as_str().or_else(|| token.get("content")?.as_str()));
        let id = json.get(format!("{role}_token_id")).and_then(Json::as_u64);
        let named = text.map(|text| tokenizer.id(text));
        if let (Some(text), Some(None)) = (text, named) {
            agrees = false;
            report.fail(
                MAP,
                format!("the {role} token `{text}` is not in the vocabulary"),
            );
        }
        let given = id.map(|id| TokenId::try_from(id).ok());
        for found in [named.filter(Option::is_some), given].into_iter().flatten() {
            if found != own {
                agrees = false;
                let shown = |id: Option<TokenId>| id.map_or("none".to_owned(), |id| id.to_string());
                report.warn(
                    MAP,
                    format!(
                        "the {role} token is {} there, and {} by the other files",
                        shown(found),
                        shown(own)
                    ),
                );
            }
        }
    }
    if agrees {
        report.ok(MAP, "names the tokens that the other files name");
    }
}

/// Prompts come back as they went, with ids that the model has, and the same ones each time.
fn round_trip(tokenizer: &Tokenizer, report: &mut Verification) {
    let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut wrong = Vec::new();
    for prompt in PROMPTS {
        let ids = tokenizer.encode(prompt);
        if ids != tokenizer.encode(prompt) {
            report.fail(
                ROUND_TRIP,
                format!("`{prompt}` has other ids the second time"),
            );
        }
        if squeezed(&tokenizer.decode(&ids)) != squeezed(prompt) {
            wrong.push(prompt);
        }
        report.prompt(tokenizer, prompt, &ids);
    }
    match wrong.first() {
        None => report.ok(
            ROUND_TRIP,
            "prompts come back as they went, with the same ids each time",
        ),
        Some(prompt) => {
            let back = tokenizer.decode(&tokenizer.encode(prompt));
            let detail = format!("`{prompt}` comes back as `{back}`");
            if back.trim().is_empty() {
                report.fail(ROUND_TRIP, detail);
            } else {
                report.warn(ROUND_TRIP, detail);
            }
        }
    }
}

impl Verification {
    /// Notes a prompt, and fails where the model does not have its ids.
    pub(super) fn prompt(&mut self, tokenizer: &Tokenizer, prompt: &str, ids: &[TokenId]) {
        const SHOWN: usize = 80;
        let max_id = ids.iter().copied().max().unwrap_or(0);
        if let Some(expected) = self.expected_vocab
            && max_id as usize >= expected
        {
            self.fail(
                ROUND_TRIP,
                format!("`{prompt}` has the id {max_id}, the model has {expected} tokens"),
            );
        }
        let decoded: String = ids.iter().map(|id| shown(tokenizer, *id)).collect();
        self.prompts.push(PromptCheck {
            prompt: prompt.to_owned(),
            tokens: ids.len(),
            max_id,
            decoded: decoded.chars().take(SHOWN).collect(),
        });
    }
}

/// What an id stands for, special tokens by name.
fn shown(tokenizer: &Tokenizer, id: TokenId) -> String {
    let piece = tokenizer.piece(id);
    if piece.is_empty() {
        return tokenizer.token(id).unwrap_or_default().to_owned();
    }
    String::from_utf8_lossy(piece).into_owned()
}

fn name(tokenizer: &Tokenizer, id: TokenId) -> &str {
    tokenizer.token(id).unwrap_or("not in the vocabulary")
}
