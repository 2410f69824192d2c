//! The room that a prompt has, and how one that is too long is cut.

use tercel_text::{Message, Tokenizer};

use super::conversation::Conversation;
use super::{ContextOverflow, ContextReport, Cut, CutKind};
use crate::TokenId;
use crate::error::Error;
use crate::request::{Prompt, Prompter};
use crate::sampling::Settings;
use crate::thinking::Thinking;

/// What stands in the place of what was cut from the middle.
pub(super) const MARK: &str = "\n[...]\n";

/// How a prompt is to fit the context of an engine.
pub(crate) struct Fit {
    pub(super) policy: ContextOverflow,
    /// Tokens kept free for the reply.
    reserve: usize,
    /// Whether the caller said so.
    is_reserved: bool,
    pub(super) keep_first: usize,
    /// At least 1 above `reserve`.
    max_context: usize,
}

impl Fit {
    /// What `settings` ask of a context of `max_context` tokens, at least 2.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] where nothing would be left to the prompt.
    pub(crate) fn of(settings: &Settings, max_context: usize) -> Result<Self, Error> {
        let policy = settings.context_overflow;
        let reserve = match (settings.reserve_tokens, policy) {
            (Some(tokens), _) => tokens,
            (None, ContextOverflow::Error) => 1,
            (None, _) => settings.max_new_tokens.min((max_context / 4).max(1)),
        };
        if reserve >= max_context {
            let range = format!("1 to {}", max_context.saturating_sub(1));
            return Err(Error::invalid_parameter(
                "reserve_tokens",
                reserve.to_string(),
                range,
            ));
        }
        Ok(Self {
            policy,
            reserve,
            is_reserved: settings.reserve_tokens.is_some(),
            keep_first: settings.keep_first_tokens,
            max_context,
        })
    }

    /// The same, for a prompt of at most so many tokens.
    pub(crate) fn at_most(self, prompt_tokens: usize) -> Self {
        let most = prompt_tokens.saturating_add(self.reserve);
        Self {
            max_context: self.max_context.min(most),
            ..self
        }
    }

    /// The most tokens that the prompt may have.
    pub(crate) fn room(&self) -> usize {
        self.max_context - self.reserve
    }

    /// Cuts a prompt without turns that has more tokens than there is room for.
    pub(crate) fn cut_tokens(
        &self,
        mut prompt: Prompt,
        tokenizer: &Tokenizer,
    ) -> Result<Prompt, Error> {
        let before = prompt.tokens.len();
        let room = self.room();
        let (head, mark, tail) = match self.policy {
            ContextOverflow::SlidingWindow => {
                let begins = usize::from(prompt.tokens.first().copied() == tokenizer.bos());
                let head = self.keep_first.max(begins).min(room.saturating_sub(1));
                (head, Vec::new(), room - head)
            }
            ContextOverflow::TruncateMiddle => {
                let mark = tokenizer.encode(MARK);
                let kept = room.saturating_sub(mark.len());
                if kept < 2 {
                    return Err(self.refusal(before));
                }
                (kept.div_ceil(2), mark, kept / 2)
            }
            ContextOverflow::Error | ContextOverflow::DropOldestTurns => {
                return Err(self.refusal(before));
            }
        };
        let (first, rest) = prompt.tokens.split_at(head);
        let first = whole_end(first, tokenizer);
        let last = whole_start(&rest[rest.len() - tail..], tokenizer);
        let cut = before - first.len() - last.len();
        prompt.tokens = [first, &mark, last].concat();
        let cut = Cut {
            what: CutKind::Tokens,
            message: None,
            role: None,
            tokens: cut,
        };
        prompt.context = Some(self.report(before, prompt.tokens.len(), vec![cut]));
        Ok(prompt)
    }

    /// Cuts a conversation whose prompt of `before` tokens is more than there is room for.
    pub(crate) fn cut_messages(
        &self,
        messages: &[Message],
        thinking: Thinking,
        before: usize,
        prompter: &Prompter<'_>,
    ) -> Result<Prompt, Error> {
        let conversation = Conversation::new(messages, thinking, before, prompter, self);
        let (mut prompt, cuts) = match self.policy {
            ContextOverflow::Error => return Err(self.refusal(before)),
            ContextOverflow::DropOldestTurns => conversation.drop_oldest()?,
            ContextOverflow::SlidingWindow => conversation.slide()?,
            ContextOverflow::TruncateMiddle => conversation.truncate_middle()?,
        };
        prompt.context = Some(self.report(before, prompt.tokens.len(), cuts));
        Ok(prompt)
    }

    /// The error for a prompt of which at least `prompt_tokens` would have to run.
    pub(super) fn refusal(&self, prompt_tokens: usize) -> Error {
        if self.policy == ContextOverflow::Error && !self.is_reserved {
            return Error::ContextOverflow {
                prompt_tokens,
                max_context: self.max_context,
            };
        }
        Error::ContextReserve {
            policy: self.policy,
            prompt_tokens,
            reserve_tokens: self.reserve,
            max_context: self.max_context,
        }
    }

    fn report(&self, before: usize, after: usize, cuts: Vec<Cut>) -> ContextReport {
        ContextReport {
            policy: self.policy,
            prompt_tokens_before: before,
            prompt_tokens_after: after,
            reserve_tokens: self.reserve,
            cuts,
        }
    }
}

/// The tokens without the first part of a character at their end.
fn whole_end<'t>(tokens: &'t [TokenId], tokenizer: &Tokenizer) -> &'t [TokenId] {
    // A character has at most four bytes, so at most its first three are here.
    let from = tokens.len().saturating_sub(4);
    let spell = |ids: &[TokenId]| -> Vec<u8> {
        let pieces = ids.iter().flat_map(|id| tokenizer.piece(*id));
        pieces.copied().collect()
    };
    for end in (from..=tokens.len()).rev() {
        let bytes = spell(&tokens[from..end]);
        let is_open = bytes
            .utf8_chunks()
            .last()
            .is_some_and(|chunk| is_begun(chunk.invalid()));
        if !is_open {
            return &tokens[..end];
        }
    }
    tokens
}

/// Whether more bytes could make a character of these.
fn is_begun(bytes: &[u8]) -> bool {
    match std::str::from_utf8(bytes) {
        Ok(_) => false,
        Err(error) => error.error_len().is_none(),
    }
}

/// The tokens without the last part of a character at their start.
fn whole_start<'t>(tokens: &'t [TokenId], tokenizer: &Tokenizer) -> &'t [TokenId] {
    let continues = |id: &&TokenId| {
        let first = tokenizer.piece(**id).first();
        first.is_some_and(|byte| byte & 0b1100_0000 == 0b1000_0000)
    };
    let broken = tokens.iter().take(3).take_while(continues).count();
    // The prompt keeps a token, whatever it is.
    &tokens[broken.min(tokens.len().saturating_sub(1))..]
}
