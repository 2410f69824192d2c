//! `tokenizer_config.json` and `special_tokens_map.json`: which token has which role.

use std::collections::BTreeMap;

use super::json::AddedToken;
use crate::error::TextError;

/// What the files say of tokens. All other fields concern other programs.
#[derive(Default, serde::Deserialize)]
pub(in crate::tokenizer) struct Config {
    #[serde(default)]
    pub(in crate::tokenizer) bos_token: Option<Token>,
    #[serde(default)]
    pub(in crate::tokenizer) eos_token: Option<Token>,
    #[serde(default)]
    pub(in crate::tokenizer) unk_token: Option<Token>,
    #[serde(default)]
    pub(in crate::tokenizer) pad_token: Option<Token>,
    #[serde(default)]
    pub(in crate::tokenizer) add_bos_token: Option<bool>,
    #[serde(default)]
    pub(in crate::tokenizer) add_eos_token: Option<bool>,
    /// Tokens by id, some of which `tokenizer.json` may lack.
    #[serde(default)]
    pub(in crate::tokenizer) added_tokens_decoder: BTreeMap<u32, DecoderEntry>,
}

/// A token: its text, or an object that holds it.
#[derive(serde::Deserialize)]
#[serde(untagged)]
pub(in crate::tokenizer) enum Token {
    Text(String),
    Object { content: String },
}

impl Token {
    pub(in crate::tokenizer) fn text(&self) -> &str {
        match self {
            Self::Text(text) | Self::Object { content: text } => text,
        }
    }
}

#[derive(serde::Deserialize)]
pub(in crate::tokenizer) struct DecoderEntry {
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    normalized: bool,
    #[serde(default)]
    special: bool,
}

impl Config {
    /// Both files, either of which may be absent; the first says more and goes first.
    pub(in crate::tokenizer) fn read(
        tokenizer_config: Option<&[u8]>,
        special_tokens_map: Option<&[u8]>,
    ) -> Result<Self, TextError> {
        let config: Self = parse("tokenizer_config.json", tokenizer_config)?;
        let map: Self = parse("special_tokens_map.json", special_tokens_map)?;
        Ok(Self {
            bos_token: config.bos_token.or(map.bos_token),
            eos_token: config.eos_token.or(map.eos_token),
            unk_token: config.unk_token.or(map.unk_token),
            pad_token: config.pad_token.or(map.pad_token),
            ..config
        })
    }

    /// The tokens of `added_tokens_decoder`, by id.
    pub(in crate::tokenizer) fn added_tokens(&self) -> impl Iterator<Item = AddedToken> {
        let entries = self.added_tokens_decoder.iter();
        entries.map(|(id, entry)| AddedToken {
            id: *id,
            content: entry.content.clone(),
            single_word: entry.single_word,
            lstrip: entry.lstrip,
            rstrip: entry.rstrip,
            normalized: entry.normalized,
            special: entry.special,
        })
    }
}

fn parse(file: &'static str, bytes: Option<&[u8]>) -> Result<Config, TextError> {
    let Some(bytes) = bytes else {
        return Ok(Config::default());
    };
    serde_json::from_slice(bytes).map_err(|error| TextError::File {
        file,
        problem: error.to_string(),
    })
}
