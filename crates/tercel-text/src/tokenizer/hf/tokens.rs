//! All tokens of a `tokenizer.json` by id: those of the model and those added to it.

use super::config::{Config, Token};
use super::json::{AddedToken, File};
use crate::error::TextError;
use crate::tokenizer::bpe::clip;
use crate::tokenizer::sentencepiece::parse_byte;
use crate::tokenizer::vocab::{MAX_TOKENS, Vocab};
use crate::tokenizer::{TokenId, TokenKind};

/// Ids without a token, beyond as many as there are tokens.
const MAX_HOLES: usize = 1 << 16;

/// Every token by id.
pub(super) struct Tokens<'a> {
    pub(super) texts: Vec<&'a str>,
    pub(super) kinds: Vec<TokenKind>,
    pub(super) added: &'a [AddedToken],
    /// Tokens with a role that are not among the added ones.
    pub(super) roles: Vec<(TokenId, &'a str)>,
    pub(super) unknown: Option<TokenId>,
}

impl<'a> Tokens<'a> {
    pub(super) fn new(file: &'a File<'_>, config: &'a Config) -> Result<Self, TextError> {
        let model = &file.model;
        let ids = model.vocab.iter().map(|(_, id, _)| id);
        let last = ids
            .chain(file.added_tokens.iter().map(|token| token.id))
            .max();
        let size = last.map_or(0, |id| id as usize + 1);
        let entries = model.vocab.len() + file.added_tokens.len();
        if size > MAX_TOKENS || size / 2 > entries + MAX_HOLES {
            return Err(TextError::Vocabulary {
                problem: format!("ids up to {} for {entries} tokens", size - 1),
            });
        }
        let mut tokens = Self {
            texts: vec![""; size],
            kinds: vec![TokenKind::Unused; size],
            added: &file.added_tokens,
            roles: Vec::new(),
            unknown: None,
        };
        for (text, id, _) in model.vocab.iter() {
            let byte = model.byte_fallback && parse_byte(text).is_some();
            let kind = if byte {
                TokenKind::Byte
            } else {
                TokenKind::Normal
            };
            tokens.place(id, text, kind)?;
        }
        let mut next = model.vocab.len();
        for (index, token) in file.added_tokens.iter().enumerate() {
            let id = token.id as usize;
            if tokens.texts[id] != token.content {
                // The Python package counts on from the model's own tokens, whatever the file says.
                if id != next {
                    return Err(TextError::Entry {
                        field: "added_tokens",
                        index,
                        problem: format!(
                            "`{}` has the id {id}, the next free one is {next}",
                            clip(&token.content)
                        ),
                    });
                }
                next += 1;
            } else if id >= next {
                next = id + 1;
            }
            let kind = match token.special {
                true => TokenKind::Control,
                false => TokenKind::UserDefined,
            };
            tokens.place(token.id, &token.content, kind)?;
        }
        tokens.assign_roles(file, config)?;
        Ok(tokens)
    }

    fn place(&mut self, id: TokenId, text: &'a str, kind: TokenKind) -> Result<(), TextError> {
        let index = id as usize;
        let held = self.kinds[index] != TokenKind::Unused;
        if held && self.texts[index] != text {
            return Err(TextError::Vocabulary {
                problem: format!(
                    "`{}` and `{}` both have the id {id}",
                    clip(self.texts[index]),
                    clip(text)
                ),
            });
        }
        self.texts[index] = text;
        self.kinds[index] = kind;
        Ok(())
    }

    /// Makes the tokens that have a role control tokens, whatever the file calls them.
    fn assign_roles(&mut self, file: &'a File<'_>, config: &'a Config) -> Result<(), TextError> {
        let model = &file.model;
        if let Some(id) = model.unk_id {
            let vocab_size = model.vocab.len();
            if id as usize >= vocab_size {
                return Err(TextError::TokenId {
                    field: "model.unk_id",
                    id,
                    vocab_size,
                });
            }
            self.assign(id, self.texts[id as usize], true);
            self.unknown = Some(id);
        }
        let unknown = model.unk_token.as_deref();
        // A token may be unknown and an end at once; the last word makes it a control token.
        let roles = [
            ("unk_token", config.unk_token.as_ref().map(Token::text)),
            ("model.unk_token", unknown),
            ("bos_token", config.bos_token.as_ref().map(Token::text)),
            ("eos_token", config.eos_token.as_ref().map(Token::text)),
            ("pad_token", config.pad_token.as_ref().map(Token::text)),
        ];
        for (field, text) in roles {
            let Some(text) = text.filter(|text| !text.is_empty()) else {
                continue;
            };
            let Some(index) = self.texts.iter().position(|token| *token == text) else {
                let problem = format!("`{field}` is `{}`, which is no token", clip(text));
                return Err(TextError::Vocabulary { problem });
            };
            // Ids are below `MAX_TOKENS`.
            let id = TokenId::try_from(index).unwrap_or(TokenId::MAX);
            let is_unknown = field.ends_with("unk_token");
            self.assign(id, text, is_unknown);
            if is_unknown {
                self.unknown = Some(id);
            }
        }
        Ok(())
    }

    fn assign(&mut self, id: TokenId, text: &'a str, unknown: bool) {
        self.kinds[id as usize] = match unknown {
            true => TokenKind::Unknown,
            false => TokenKind::Control,
        };
        let listed = self.roles.iter().any(|(role, _)| *role == id);
        if !listed && !self.added.iter().any(|token| token.id == id) {
            self.roles.push((id, text));
        }
    }

    /// Every token has one id.
    pub(super) fn vocab(&self) -> Result<Vocab, TextError> {
        let vocab = Vocab::new(&self.texts, self.kinds.clone())?;
        match vocab.duplicate() {
            None => Ok(vocab),
            Some(id) => Err(TextError::Vocabulary {
                problem: format!("`{}` has two ids", clip(self.texts[id as usize])),
            }),
        }
    }
}
