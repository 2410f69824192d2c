//! Tokenizers from SentencePiece's own file, `tokenizer.model`.

mod proto;

use super::build;
use super::charsmap::Charsmap;
use super::hf::config::{Config, Token};
use super::markers::{Marker, Markers};
use super::merge::NO_TOKEN;
use super::normalize::{Normalize, Normalizer};
use super::pipeline::{Model, Pipeline};
use super::sentencepiece::{self, SentencePiece};
use super::split::Splitter;
use super::unigram::{Unigram, UnigramOptions};
use super::vocab::Vocab;
use super::{StripStart, TokenId, TokenKind, Tokenizer};
use crate::error::TextError;
use proto::ModelProto;

/// The name of the file in errors.
const FILE: &str = "tokenizer.model";

/// `TrainerSpec.ModelType`.
const UNIGRAM: u64 = 1;
const BPE: u64 = 2;

impl Tokenizer {
    /// The tokenizer of a SentencePiece model, byte-pair encoding or unigram.
    ///
    /// Ids are those of the Python package `sentencepiece`. `tokenizer_config` is the
    /// `tokenizer_config.json` beside it, where there is one: it may name the roles of tokens, add
    /// tokens after those of the model, and say what goes around a text. Where it does not say,
    /// [`Tokenizer::add_bos`] is true for byte-pair encoding that has such a token.
    ///
    /// # Errors
    /// A file that is malformed or inconsistent, or of a kind that this build cannot run.
    pub fn from_sentencepiece(
        model: &[u8],
        tokenizer_config: Option<&[u8]>,
    ) -> Result<Self, TextError> {
        let config = Config::read(tokenizer_config, None)?;
        let wrong = |problem| TextError::File {
            file: FILE,
            problem,
        };
        let file = ModelProto::parse(model).map_err(wrong)?;
        let name = match file.trainer.model_type {
            UNIGRAM => "Unigram",
            BPE => "BPE",
            other => {
                return Err(TextError::UnknownModel {
                    name: format!("SentencePiece type {other}"),
                    supported: "1 (Unigram), 2 (BPE)".into(),
                });
            }
        };
        if file.trainer.whitespace_as_suffix || !file.normalizer.escape_whitespaces {
            return Err(TextError::UnsupportedPart {
                part: FILE,
                name: "white space at the ends of words, or unescaped".into(),
            });
        }
        let added: Vec<_> = config.added_tokens().collect();
        let mut texts: Vec<&str> = file.pieces.iter().map(|piece| piece.text).collect();
        let mut kinds = Vec::with_capacity(texts.len());
        for (index, piece) in file.pieces.iter().enumerate() {
            kinds.push(
                TokenKind::from_file(piece.kind).ok_or_else(|| TextError::Entry {
                    field: "pieces",
                    index,
                    problem: format!("kind {} is none of 1 to 6", piece.kind),
                })?,
            );
        }
        for (index, token) in added.iter().enumerate() {
            let kind = if token.special {
                TokenKind::Control
            } else {
                TokenKind::UserDefined
            };
            let id = token.id as usize;
            if id == texts.len() {
                texts.push(&token.content);
                kinds.push(kind);
            } else if texts.get(id) == Some(&token.content.as_str()) {
                if kinds[id] == TokenKind::Normal {
                    kinds[id] = kind;
                }
            } else {
                return Err(TextError::Entry {
                    field: "added_tokens_decoder",
                    index,
                    problem: format!(
                        "`{}` is not the token {id}",
                        super::bpe::clip(&token.content)
                    ),
                });
            }
        }
        let roles = Roles::read(&file, &config, &texts)?;
        for id in [roles.bos, roles.eos, roles.pad].into_iter().flatten() {
            if let Some(kind @ TokenKind::Normal) = kinds.get_mut(id as usize) {
                *kind = TokenKind::Control;
            }
        }
        let vocab = Vocab::new(&texts, kinds)?;
        let pipeline = pipeline(&file, &vocab, &texts, roles.unk)?;
        let specials = Specials::new(&vocab, &texts, &pipeline)?;
        Ok(Self {
            ends: build::end_ids([roles.eos], &vocab),
            pieces: sentencepiece::pieces(&vocab, &texts)?,
            model: name.into(),
            pre: "none".into(),
            specials: specials.control.clone(),
            normalized_specials: specials.user,
            control: specials.control,
            strip_start: match file.normalizer.remove_extra_whitespaces {
                true => StripStart::SpaceTokens,
                false => StripStart::one_if(file.normalizer.add_dummy_prefix),
            },
            add_bos: config.add_bos_token.unwrap_or(name == "BPE") && roles.bos.is_some(),
            add_eos: config.add_eos_token.unwrap_or(false) && roles.eos.is_some(),
            bos: roles.bos,
            eos: roles.eos,
            unk: roles.unk,
            pad: roles.pad,
            pipeline,
            vocab,
        })
    }
}

struct Roles {
    bos: Option<TokenId>,
    eos: Option<TokenId>,
    unk: Option<TokenId>,
    pad: Option<TokenId>,
}

impl Roles {
    /// The config's tokens, or those of the model itself.
    fn read(file: &ModelProto<'_>, config: &Config, texts: &[&str]) -> Result<Self, TextError> {
        let role = |name: &str, token: &Option<Token>, id: i64| {
            if let Some(token) = token {
                let found = texts.iter().position(|text| *text == token.text());
                let id = found.and_then(|id| TokenId::try_from(id).ok());
                return id.map(Some).ok_or_else(|| TextError::Vocabulary {
                    problem: format!("`{name}` is `{}`, which is no token", token.text()),
                });
            }
            // Models name tokens that they then do not have.
            let known = TokenId::try_from(id).ok();
            Ok(known.filter(|id| (*id as usize) < file.pieces.len()))
        };
        let trainer = &file.trainer;
        Ok(Self {
            bos: role("bos_token", &config.bos_token, trainer.bos)?,
            eos: role("eos_token", &config.eos_token, trainer.eos)?,
            unk: role("unk_token", &config.unk_token, trainer.unk)?,
            pad: role("pad_token", &config.pad_token, trainer.pad)?,
        })
    }
}

fn pipeline(
    file: &ModelProto<'_>,
    vocab: &Vocab,
    texts: &[&str],
    unk: Option<TokenId>,
) -> Result<Pipeline, TextError> {
    let spec = &file.normalizer;
    let mut steps = Vec::new();
    if !spec.charsmap.is_empty() {
        let map = Charsmap::parse(spec.charsmap).map_err(|problem| TextError::File {
            file: FILE,
            problem,
        })?;
        steps.push(Normalize::Longest(map));
    }
    if spec.remove_extra_whitespaces {
        steps.push(Normalize::SingleSpaces);
    }
    if spec.add_dummy_prefix {
        steps.push(Normalize::Prepend(" ".into()));
    }
    steps.push(Normalizer::visible_spaces());
    if spec.remove_extra_whitespaces {
        steps.push(Normalize::TrimEnd(sentencepiece::SPACE));
    }
    let scores = file.pieces.iter().map(|piece| piece.score);
    let model = if file.trainer.model_type == BPE {
        let mut scores: Vec<f32> = scores.collect();
        scores.resize(texts.len(), 0.0);
        Model::SentencePiece(SentencePiece::new(vocab, texts, &scores, unk)?)
    } else {
        let bytes = file.trainer.byte_fallback.then(|| {
            let mut bytes = Box::new([NO_TOKEN; 256]);
            for (byte, id) in bytes.iter_mut().enumerate() {
                let text = format!("<0x{byte:02X}>");
                *id = vocab.find(text.as_bytes()).unwrap_or(NO_TOKEN);
            }
            bytes
        });
        let options = UnigramOptions {
            unknown: unk.ok_or(TextError::MissingField { field: "unk_id" })?,
            bytes,
            sentencepiece: true,
            field: "pieces",
        };
        Model::Unigram(Unigram::new(
            vocab,
            texts,
            scores.map(f64::from).collect(),
            options,
        )?)
    };
    Ok(Pipeline {
        normalizer: Normalizer(steps),
        splitter: Splitter::default(),
        model,
    })
}

/// Tokens that are matched whole.
struct Specials {
    control: Markers,
    /// In normalized text, as SentencePiece does.
    user: Markers,
}

impl Specials {
    fn new(vocab: &Vocab, texts: &[&str], pipeline: &Pipeline) -> Result<Self, TextError> {
        let (mut control, mut user) = (Vec::new(), Vec::new());
        for (id, kind, text) in vocab.iter(texts) {
            let is_control = match kind {
                TokenKind::Control | TokenKind::Unknown => true,
                TokenKind::UserDefined => false,
                _ => continue,
            };
            build::check_special("pieces", id as usize, text)?;
            if is_control {
                control.push(Marker::new(text, id, true));
                continue;
            }
            let visible = text.replace(' ', sentencepiece::SPACE.encode_utf8(&mut [0; 4]));
            // SentencePiece leaves these out of the normalization, which then must not matter.
            let charsmap = pipeline.normalizer.0.iter().find_map(|step| match step {
                Normalize::Longest(map) => Some(map.replace_longest(&visible)),
                _ => None,
            });
            if charsmap.is_some_and(|changed| changed != visible) {
                return Err(TextError::UnsupportedPart {
                    part: "user-defined token",
                    name: format!("{text}, which the normalizer changes"),
                });
            }
            user.push(Marker::new(&visible, id, false));
        }
        Ok(Self {
            control: Markers::of(control),
            user: Markers::of(user),
        })
    }
}
