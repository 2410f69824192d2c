//! The tokenizer of a GGUF file as the files of a Hugging Face directory.

mod byte_level;
mod sentencepiece;

use serde_json::{Map, Value as Json, json};

use super::pretokenize::PreTokenizer;
use super::{TokenId, TokenKind, TokenizerParts};
use crate::error::TextError;

/// A file to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExportedFile {
    /// Its name in the directory.
    pub name: &'static str,
    /// Its contents.
    pub bytes: Vec<u8>,
}

impl TokenizerParts<'_> {
    /// The files that describe this tokenizer in a Hugging Face directory: `tokenizer.json` for
    /// byte-level BPE, `tokenizer.model` for SentencePiece, and `tokenizer_config.json` and
    /// `special_tokens_map.json` with the roles of tokens and the chat template.
    ///
    /// [`Tokenizer`](super::Tokenizer) reads them back to the same ids.
    ///
    /// # Errors
    /// Parts that are missing, inconsistent, or cannot be expressed there.
    pub fn to_hugging_face(&self, template: Option<&str>) -> Result<Vec<ExportedFile>, TextError> {
        self.check_ids()?;
        let kinds = self.token_kinds()?;
        let mut files = vec![match self.model {
            "gpt2" => byte_level::file(self, &kinds)?,
            "llama" => sentencepiece::file(self, &kinds)?,
            name => {
                return Err(TextError::UnknownModel {
                    name: name.into(),
                    supported: "gpt2, llama".into(),
                });
            }
        }];
        let roles = self.role_texts();
        let mut config = self.config(&kinds, &roles);
        if let Some(template) = template {
            config.insert("chat_template".to_owned(), template.into());
        }
        for (name, json) in [
            ("tokenizer_config.json", config),
            ("special_tokens_map.json", roles),
        ] {
            let bytes = pretty(&Json::Object(json));
            files.push(ExportedFile { name, bytes });
        }
        Ok(files)
    }

    /// Whether a plain text begins with the begin token, as [`Tokenizer`](super::Tokenizer) has it.
    fn begins(&self) -> bool {
        let pre = PreTokenizer::named(self.pre.unwrap_or("default"));
        let by_default = self.model == "llama" || pre == Some(PreTokenizer::Llama3);
        self.add_bos.unwrap_or(by_default) && self.bos.is_some()
    }

    fn ends(&self) -> bool {
        self.add_eos.unwrap_or(false) && self.eos.is_some()
    }

    fn text(&self, id: TokenId) -> Option<&str> {
        self.tokens.get(id as usize).copied()
    }

    fn role_texts(&self) -> Map<String, Json> {
        let roles = [
            ("bos_token", self.bos),
            ("eos_token", self.eos),
            ("unk_token", self.unk),
            ("pad_token", self.pad),
        ];
        let text = |(name, id): (&str, Option<TokenId>)| {
            Some((name.to_owned(), Json::from(self.text(id?)?)))
        };
        roles.into_iter().filter_map(text).collect()
    }

    fn config(&self, kinds: &[TokenKind], roles: &Map<String, Json>) -> Map<String, Json> {
        let added = self.added(kinds).map(|(id, text, special)| {
            let mut entry = added_token(text, special);
            entry.remove("id");
            (id.to_string(), Json::Object(entry))
        });
        let mut config = Map::new();
        config.insert("add_bos_token".to_owned(), self.begins().into());
        config.insert("add_eos_token".to_owned(), self.ends().into());
        config.insert("added_tokens_decoder".to_owned(), added.collect());
        config.insert("clean_up_tokenization_spaces".to_owned(), false.into());
        config.extend(roles.clone());
        let class = if self.model == "llama" {
            let prefix = self.add_space_prefix.unwrap_or(true);
            config.insert("add_prefix_space".to_owned(), prefix.into());
            config.insert("legacy".to_owned(), false.into());
            // The one family of ours that has this kind and no space in front is Gemma.
            match prefix {
                true => "LlamaTokenizer",
                false => "GemmaTokenizer",
            }
        } else {
            "PreTrainedTokenizerFast"
        };
        config.insert("tokenizer_class".to_owned(), class.into());
        config
    }

    /// The tokens that are matched whole: id, text, whether they are no text of a reply.
    fn added<'s>(
        &'s self,
        kinds: &'s [TokenKind],
    ) -> impl Iterator<Item = (TokenId, &'s str, bool)> {
        let tokens = (0..).zip(kinds).zip(&self.tokens);
        tokens.filter_map(|((id, kind), text)| match kind {
            TokenKind::Control | TokenKind::Unknown => Some((id, *text, true)),
            TokenKind::UserDefined => Some((id, *text, false)),
            TokenKind::Normal | TokenKind::Unused | TokenKind::Byte => None,
        })
    }
}

fn added_token(text: &str, special: bool) -> Map<String, Json> {
    let token = json!({
        "id": 0,
        "content": text,
        "single_word": false,
        "lstrip": false,
        "rstrip": false,
        "normalized": false,
        "special": special,
    });
    match token {
        Json::Object(token) => token,
        _ => Map::new(),
    }
}

fn pretty(json: &Json) -> Vec<u8> {
    let mut text = format!("{json:#}");
    text.push('\n');
    text.into_bytes()
}
