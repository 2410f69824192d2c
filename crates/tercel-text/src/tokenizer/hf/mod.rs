//! Tokenizers from the files of Hugging Face checkpoints: `tokenizer.json` and its companions.

mod base64;
mod components;
pub(super) mod config;
mod decoder;
mod json;
mod model;
mod post;
#[cfg(test)]
mod tests;
mod tokens;

use std::collections::HashSet;

use super::markers::{Marker, Markers};
use super::pipeline::Pipeline;
use super::vocab::Arena;
use super::{StripStart, TokenKind, Tokenizer, VocabularySize, build};
use crate::error::TextError;
use components::PreTokenization;
use config::{Config, Token};
use decoder::Decoder;
use json::{AddedToken, File};
use post::Ends;
use tokens::Tokens;

/// The name of the file in errors.
const FILE: &str = "tokenizer.json";

/// Largest file that is read; the largest published ones have 35 MB.
const MAX_FILE_BYTES: usize = 1 << 28;

/// The contents of the files that describe a tokenizer in a checkpoint's directory.
#[derive(Debug, Clone, Copy)]
pub struct HfTokenizerFiles<'a> {
    /// `tokenizer.json`: the tokenizer itself.
    pub tokenizer_json: &'a [u8],
    /// `tokenizer_config.json`: the roles of tokens.
    pub tokenizer_config: Option<&'a [u8]>,
    /// `special_tokens_map.json`: the roles of tokens, where the config does not say.
    pub special_tokens_map: Option<&'a [u8]>,
}

impl Tokenizer {
    /// The tokenizer of a Hugging Face checkpoint.
    ///
    /// Ids are those of the Python package `tokenizers` for the same file. A part of the file that
    /// this build does not know is an error that names it. What the file wants around a text
    /// becomes [`Tokenizer::add_bos`] and [`Tokenizer::add_eos`]; `add_bos_token` and
    /// `add_eos_token` of the config, where they are given, have the last word.
    ///
    /// # Errors
    /// A file that is malformed or inconsistent, or of a kind that this build cannot run.
    pub fn from_hf(files: &HfTokenizerFiles<'_>) -> Result<Self, TextError> {
        let config = Config::read(files.tokenizer_config, files.special_tokens_map)?;
        let mut file = parse(files.tokenizer_json)?;
        let model_kind = model::Kind::of(&file.model)?;
        let pre = components::pre_tokenizer(file.pre_tokenizer)?;
        let normalizer = components::normalizer(file.normalizer)?;
        let decoder = Decoder::read(file.decoder)?;
        let ends = Ends::read(file.post_processor)?;
        complete(&mut file, &config);

        let tokens = Tokens::new(&file, &config)?;
        let vocab = tokens.vocab()?;
        let pieces = pieces(&tokens, &decoder, &pre)?;
        let PreTokenization {
            splitter,
            byte_level,
            name,
        } = pre;
        let model = model::build(&file.model, model_kind, &vocab, &tokens, byte_level)?;
        let pipeline = Pipeline {
            normalizer,
            splitter,
            model,
        };
        let markers = Specials::new(&tokens, &pipeline)?;
        let role =
            |token: &Option<Token>| token.as_ref().and_then(|t| vocab.find(t.text().as_bytes()));
        let bos = role(&config.bos_token).or(ends.before_id(&vocab)?);
        let eos = role(&config.eos_token).or(ends.after_id(&vocab)?);
        let add_bos = match config.add_bos_token {
            Some(add) => add,
            None => ends.adds_before(&vocab, bos)?,
        };
        let add_eos = match config.add_eos_token {
            Some(add) => add,
            None => ends.adds_after(&vocab, eos)?,
        };
        Ok(Self {
            ends: build::end_ids([eos], &vocab),
            pieces,
            model: model_kind.name().into(),
            pre: name,
            specials: markers.all,
            normalized_specials: markers.normalized,
            control: markers.control,
            strip_start: StripStart::one_if(decoder.strips_first_space),
            add_bos: add_bos && bos.is_some(),
            add_eos: add_eos && eos.is_some(),
            bos,
            eos,
            unk: tokens.unknown,
            pad: role(&config.pad_token),
            pipeline,
            vocab,
        })
    }
}

/// How large the vocabulary of a file is.
pub(super) fn vocabulary_size(tokenizer_json: &[u8]) -> Result<VocabularySize, TextError> {
    let file = parse(tokenizer_json)?;
    let byte_level = components::pre_tokenizer(file.pre_tokenizer)?.byte_level;
    let mut size = VocabularySize {
        merges: file
            .model
            .merges
            .as_ref()
            .map_or(0, |merges| merges.iter().len()),
        // Texts that are not of the byte-level alphabet are counted as they are for scored ones.
        scored: !byte_level,
        ..VocabularySize::default()
    };
    let known: HashSet<u32> = file.model.vocab.iter().map(|(_, id, _)| id).collect();
    for (text, ..) in file.model.vocab.iter() {
        size.add(text, TokenKind::Normal);
    }
    size.scored = file.model.vocab.scored;
    for token in &file.added_tokens {
        size.add_special(&token.content);
        if !known.contains(&token.id) {
            size.tokens += 1;
            size.text_bytes += token.content.len();
        }
    }
    Ok(size)
}

fn parse(bytes: &[u8]) -> Result<File<'_>, TextError> {
    let wrong = |problem: String| TextError::File {
        file: FILE,
        problem,
    };
    if bytes.len() > MAX_FILE_BYTES {
        return Err(wrong(format!("{} bytes, at most 256 MiB", bytes.len())));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| wrong(error.to_string()))?;
    let file: File<'_> = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
    match file.version.as_deref() {
        None | Some("1.0") => Ok(file),
        Some(version) => Err(wrong(format!(
            "version `{version}`, this build knows `1.0`"
        ))),
    }
}

/// Adds the tokens that the config names and the file lacks, as the Python package does.
fn complete(file: &mut File<'_>, config: &Config) {
    let known: HashSet<&str> = file
        .added_tokens
        .iter()
        .map(|token| &*token.content)
        .collect();
    let missing: Vec<AddedToken> = config
        .added_tokens()
        .filter(|token| !known.contains(&*token.content))
        .collect();
    file.added_tokens.extend(missing);
}

/// The bytes that each token stands for.
fn pieces(
    tokens: &Tokens<'_>,
    decoder: &Decoder,
    pre: &PreTokenization,
) -> Result<Arena, TextError> {
    let mut pieces = Arena::with_capacity(tokens.texts.len(), 0);
    let mut spelled = Vec::new();
    for (id, (text, kind)) in tokens.texts.iter().zip(&tokens.kinds).enumerate() {
        spelled.clear();
        let fits = match kind {
            TokenKind::Control | TokenKind::Unknown | TokenKind::Unused => true,
            // Added tokens are no text of the byte-level alphabet.
            TokenKind::UserDefined if pre.byte_level => {
                spelled.extend_from_slice(text.as_bytes());
                true
            }
            TokenKind::UserDefined | TokenKind::Normal | TokenKind::Byte => {
                decoder.spell(text, &mut spelled)
            }
        };
        if !fits {
            return Err(TextError::Entry {
                field: "model.vocab",
                index: id,
                problem: "the decoder makes it more than 16 times as long".into(),
            });
        }
        pieces.push(&spelled)?;
    }
    pieces.shrink();
    Ok(pieces)
}

/// Tokens that are matched whole.
struct Specials {
    all: Markers,
    normalized: Markers,
    control: Markers,
}

impl Specials {
    fn new(tokens: &Tokens<'_>, pipeline: &Pipeline) -> Result<Self, TextError> {
        let (mut all, mut normalized, mut control) = (Vec::new(), Vec::new(), Vec::new());
        for (index, token) in tokens.added.iter().enumerate() {
            build::check_special("added_tokens", index, &token.content)?;
            let kind = tokens.kinds[token.id as usize];
            let is_control = matches!(kind, TokenKind::Control | TokenKind::Unknown);
            let marker = |text: &str, normalized: bool| Marker {
                normalized,
                single_word: token.single_word,
                strip_left: token.lstrip,
                strip_right: token.rstrip,
                ..Marker::new(text, token.id, is_control)
            };
            all.push(marker(&token.content, token.normalized));
            if token.normalized {
                normalized.push(marker(&pipeline.normalize(&token.content), false));
            }
            if is_control {
                control.push(Marker::new(&token.content, token.id, true));
            }
        }
        // Tokens of a role that the file does not add are control tokens all the same.
        let roles = tokens
            .roles
            .iter()
            .map(|(id, text)| Marker::new(text, *id, true));
        all.extend(roles.clone());
        control.extend(roles);
        Ok(Self {
            all: Markers::of(all),
            normalized: Markers::of(normalized),
            control: Markers::of(control),
        })
    }
}
