//! Where guides come from: an engine's grammars, and the thread that computes their masks.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tercel_text::grammar::{Grammars, Mask};
use tercel_text::{PromptEnd, ThinkTags, Tokenizer};

use super::{Guide, Masks};
use crate::error::Error;
use crate::memory::{self, Breakdown, Ledger, Policy, Ticket};
use crate::sampling::Settings;
use crate::thinking::Thinking;
use crate::tools::Bound;

/// What constraints have in common, made when the first reply is to keep to one.
pub(crate) struct Guides {
    made: OnceLock<Made>,
    /// Held by whoever makes it.
    making: Mutex<()>,
    room: Room,
}

struct Made {
    grammars: Grammars,
    masks: Masks,
    /// Ends after the rest, which it stands for.
    _ticket: Ticket,
}

/// Where memory is asked for, and by whom.
pub(crate) struct Room {
    pub(crate) ledger: Ledger,
    pub(crate) policy: Policy,
    pub(crate) model: String,
}

impl Guides {
    pub(crate) fn new(room: Room) -> Self {
        Self {
            made: OnceLock::new(),
            making: Mutex::new(()),
            room,
        }
    }

    /// What there is, or what is made of it now.
    fn made(&self, tokenizer: &Arc<Tokenizer>) -> Result<&Made, Error> {
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = self.made.get() {
            return Ok(made);
        }
        let needed = Breakdown::new().with("constraints", Grammars::bytes(tokenizer));
        let Room {
            ledger,
            policy,
            model,
        } = &self.room;
        let ticket = ledger.try_admit(policy.clone(), needed, model.clone());
        let made = Made {
            _ticket: ticket.map_err(Error::Admission)?,
            grammars: Grammars::new(Arc::clone(tokenizer))?,
            masks: Masks::start(),
        };
        // To make it took more than it keeps.
        memory::give_back();
        Ok(self.made.get_or_init(|| made))
    }

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
        let Made {
            grammars, masks, ..
        } = self.made(tokenizer)?;
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
