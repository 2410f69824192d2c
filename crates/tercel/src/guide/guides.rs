//! Where guides come from: an engine's grammars, and the thread that computes their masks.

use std::sync::{Arc, OnceLock};

use tercel_text::grammar::{GrammarError, Grammars, Mask};
use tercel_text::{PromptEnd, ThinkTags, Tokenizer};

use super::{Guide, Masks};
use crate::error::Error;
use crate::sampling::Settings;
use crate::thinking::Thinking;
use crate::tools::Bound;

/// Made when the first reply is to keep to a grammar.
#[derive(Default)]
pub(crate) struct Guides(OnceLock<Result<(Grammars, Masks), GrammarError>>);

impl Guides {
    /// What leads a reply along what it is bound to, after a prompt that ends so.
    pub(crate) fn lead(
        &self,
        tokenizer: &Arc<Tokenizer>,
        bound: &Bound<'_>,
        tags: Option<ThinkTags>,
        end: PromptEnd,
        settings: &Settings,
    ) -> Result<Guide, Error> {
        if settings.ignore_eos {
            return Err(Error::invalid_parameter(
                "ignore_eos",
                "true",
                "left out where the reply keeps to a grammar",
            ));
        }
        let made = self.0.get_or_init(|| {
            let grammars = Grammars::new(Arc::clone(tokenizer))?;
            Ok((grammars, Masks::start()))
        });
        let (grammars, masks) = made.as_ref().map_err(Clone::clone)?;
        let constraint = match bound {
            Bound::Answer(grammar) => grammars.compile(grammar)?,
            Bound::Tools(tools) => grammars.compile_tools(tools)?,
        };
        // A thought that the model begins itself, with a token of its own.
        let opens = tags.filter(|_| end == PromptEnd::Plain && settings.thinking != Thinking::Off);
        let opens = opens.and_then(|tags| tokenizer.id(tags.open()));
        let is_thinking = end == PromptEnd::Open;
        let in_thought = Mask::all_but(tokenizer.vocab_size(), tokenizer.end_ids());
        let masks = masks.clone();
        Ok(Guide::new(
            masks,
            constraint,
            is_thinking,
            opens,
            in_thought,
        ))
    }
}
