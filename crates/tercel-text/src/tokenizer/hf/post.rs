//! The `post_processor` of a `tokenizer.json`: the tokens it puts around a text.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::components::Part;
use crate::error::TextError;
use crate::tokenizer::TokenId;
use crate::tokenizer::vocab::Vocab;

/// The token before a text and the one after it.
#[derive(Default)]
pub(super) struct Ends {
    before: Option<Given>,
    after: Option<Given>,
}

struct Given {
    text: String,
    id: TokenId,
}

impl Ends {
    pub(super) fn read(raw: Option<&RawValue>) -> Result<Self, TextError> {
        let mut ends = Self::default();
        for part in &Part::list("post_processor", "processors", raw)? {
            match part.name() {
                // Concerns the places of tokens in the text alone.
                "ByteLevel" => {}
                "TemplateProcessing" => template(part, &mut ends)?,
                "BertProcessing" | "RobertaProcessing" => bert(part, &mut ends)?,
                _ => return Err(part.unsupported()),
            }
        }
        Ok(ends)
    }

    pub(super) fn before_id(&self, vocab: &Vocab) -> Result<Option<TokenId>, TextError> {
        self.before.as_ref().map(|it| it.check(vocab)).transpose()
    }

    pub(super) fn after_id(&self, vocab: &Vocab) -> Result<Option<TokenId>, TextError> {
        self.after.as_ref().map(|it| it.check(vocab)).transpose()
    }

    /// Whether `bos` is what goes before a text.
    pub(super) fn adds_before(
        &self,
        vocab: &Vocab,
        bos: Option<TokenId>,
    ) -> Result<bool, TextError> {
        same("before", self.before_id(vocab)?, bos)
    }

    /// Whether `eos` is what goes after a text.
    pub(super) fn adds_after(
        &self,
        vocab: &Vocab,
        eos: Option<TokenId>,
    ) -> Result<bool, TextError> {
        same("after", self.after_id(vocab)?, eos)
    }
}

fn same(place: &str, given: Option<TokenId>, role: Option<TokenId>) -> Result<bool, TextError> {
    match given {
        None => Ok(false),
        Some(_) if given == role => Ok(true),
        Some(id) => Err(TextError::UnsupportedPart {
            part: "post_processor",
            name: format!(
                "TemplateProcessing with the token {id} {place} the text, which is not the config's"
            ),
        }),
    }
}

impl Given {
    fn check(&self, vocab: &Vocab) -> Result<TokenId, TextError> {
        if vocab.find(self.text.as_bytes()) == Some(self.id) {
            return Ok(self.id);
        }
        Err(TextError::Vocabulary {
            problem: format!(
                "the post_processor's `{}` is not the token {}",
                crate::tokenizer::bpe::clip(&self.text),
                self.id
            ),
        })
    }
}

fn template(part: &Part, ends: &mut Ends) -> Result<(), TextError> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Fields {
        single: Vec<Item>,
        /// How two texts are joined; nobody asks for that here.
        #[serde(default, rename = "pair")]
        _pair: serde::de::IgnoredAny,
        special_tokens: BTreeMap<String, Special>,
    }
    #[derive(serde::Deserialize)]
    enum Item {
        SpecialToken { id: String },
        Sequence { id: String },
    }
    #[derive(serde::Deserialize)]
    struct Special {
        ids: Vec<TokenId>,
    }
    let fields: Fields = part.read()?;
    let (mut before, mut after, mut seen) = (Vec::new(), Vec::new(), false);
    for item in &fields.single {
        match item {
            Item::Sequence { id } if id == "A" && !seen => seen = true,
            Item::Sequence { .. } => return Err(part.unsupported_with("a text other than one A")),
            Item::SpecialToken { id } => {
                let special = fields.special_tokens.get(id);
                let Some([token]) = special.map(|special| special.ids.as_slice()) else {
                    return Err(part.problem(format!("`{id}` is not one token")));
                };
                let side = if seen { &mut after } else { &mut before };
                side.push(Given {
                    text: id.clone(),
                    id: *token,
                });
            }
        }
    }
    if before.len() > 1 || after.len() > 1 || !seen {
        return Err(part.unsupported_with("more than one token before or after the text"));
    }
    (ends.before, ends.after) = (before.pop(), after.pop());
    Ok(())
}

fn bert(part: &Part, ends: &mut Ends) -> Result<(), TextError> {
    #[derive(serde::Deserialize)]
    struct Fields {
        sep: (String, TokenId),
        cls: (String, TokenId),
    }
    let fields: Fields = part.read()?;
    let given = |(text, id)| Some(Given { text, id });
    (ends.before, ends.after) = (given(fields.cls), given(fields.sep));
    Ok(())
}
