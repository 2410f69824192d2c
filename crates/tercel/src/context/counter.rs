//! Who counts the tokens of a prompt that is being put together.

use tercel_text::{ChatTemplate, Message, TextError, Tokenizer};

use crate::engine::Engine;
use crate::error::Error;
use crate::files::ModelFiles;
use crate::request::{Prompter, Template};
use crate::thinking::Thinking;

/// Counts tokens. A function from a text to a number counts the blocks of a prompt one by one; an
/// [`Engine`] or a [`PromptCounter`] counts the whole prompt as the model will see it.
pub trait TokenCounter {
    /// Tokens of a text by itself.
    fn count(&self, text: &str) -> usize;

    /// Tokens of a conversation, rendered; nothing where its parts are to be added up.
    ///
    /// # Errors
    /// What keeps the conversation from being rendered.
    fn count_messages(&self, messages: &[Message]) -> Result<Option<usize>, Error> {
        let _ = messages;
        Ok(None)
    }

    /// Tokens of a whole prompt without a template; nothing where its parts are to be added up.
    fn count_prompt(&self, text: &str) -> Option<usize> {
        let _ = text;
        None
    }
}

impl<F: Fn(&str) -> usize> TokenCounter for F {
    fn count(&self, text: &str) -> usize {
        self(text)
    }
}

impl TokenCounter for Engine {
    fn count(&self, text: &str) -> usize {
        self.tokenizer().encode(text).len()
    }

    fn count_messages(&self, messages: &[Message]) -> Result<Option<usize>, Error> {
        count_messages(&self.prompter(), messages)
    }

    fn count_prompt(&self, text: &str) -> Option<usize> {
        Some(self.prompter().raw(text).map_or(0, |tokens| tokens.len()))
    }
}

/// A model's tokenizer and chat template, to count with, without the model.
pub struct PromptCounter {
    tokenizer: Tokenizer,
    template: Template,
}

impl PromptCounter {
    /// That of a model's files.
    ///
    /// # Errors
    /// Those of [`ModelFiles::tokenizer`], and [`Error::Template`] for a chat template that cannot
    /// be used.
    pub fn of(files: &ModelFiles) -> Result<Self, Error> {
        let checkpoint = files.checkpoint()?;
        let broken = |message| {
            Error::Template(TextError::Template {
                message,
                line: None,
            })
        };
        let template = match files.template(&checkpoint).map_err(broken)? {
            Some(source) => {
                let compiled = ChatTemplate::new(&source).map_err(Error::Template)?;
                Template::Ready(Box::new(compiled))
            }
            None => Template::Missing,
        };
        Ok(Self {
            tokenizer: files.tokenizer_of(&checkpoint)?,
            template,
        })
    }

    /// Whether there is a chat template.
    pub fn has_template(&self) -> bool {
        self.template.source().is_some()
    }

    fn prompter(&self) -> Prompter<'_> {
        Prompter {
            tokenizer: &self.tokenizer,
            template: &self.template,
            tools: &[],
            tags: None,
            vocab_size: self.tokenizer.vocab_size(),
            max_context: usize::MAX,
        }
    }
}

impl TokenCounter for PromptCounter {
    fn count(&self, text: &str) -> usize {
        self.tokenizer.encode(text).len()
    }

    fn count_messages(&self, messages: &[Message]) -> Result<Option<usize>, Error> {
        count_messages(&self.prompter(), messages)
    }

    fn count_prompt(&self, text: &str) -> Option<usize> {
        Some(self.prompter().raw(text).map_or(0, |tokens| tokens.len()))
    }
}

impl std::fmt::Debug for PromptCounter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PromptCounter")
            .field("tokenizer", &self.tokenizer)
            .finish_non_exhaustive()
    }
}

fn count_messages(prompter: &Prompter<'_>, messages: &[Message]) -> Result<Option<usize>, Error> {
    let prompt = prompter.chat(messages, Thinking::Auto)?;
    Ok(Some(prompt.tokens.len()))
}
