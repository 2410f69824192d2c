//! Whether a model thinks before it answers, and how a prompt says so.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tercel_text::{PromptEnd, Rendered, ThinkTags};

use crate::error::Error;

/// Whether the model is to think before it answers. Models that do not think have nothing to turn
/// off; asking them to think is [`Error::NoThinking`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Thinking {
    /// As the model's template has it.
    #[default]
    Auto,
    /// The answer comes at once. Where the template cannot be asked for that, an empty thought is
    /// put before the answer.
    Off,
    /// The model thinks. Where the template cannot be asked for that, the thought is begun at the
    /// end of the prompt.
    On,
}

impl Thinking {
    /// The name in flags, JSON and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Off => "off",
            Self::On => "on",
        }
    }

    /// What a template is told.
    pub(crate) fn enabled(self) -> Option<bool> {
        match self {
            Self::Auto => None,
            Self::Off => Some(false),
            Self::On => Some(true),
        }
    }

    /// Makes the end of a rendered prompt say what is wanted, where the template could not be
    /// asked (`is_asked`) or did not listen. Gives what it says then.
    pub(crate) fn settle(
        self,
        tags: Option<ThinkTags>,
        is_asked: bool,
        prompt: &mut Rendered,
    ) -> Result<PromptEnd, Error> {
        let Some(tags) = tags else {
            return match self {
                // A template that asks knows of thoughts, however it marks them.
                Self::On if !is_asked => Err(Error::NoThinking),
                _ => Ok(PromptEnd::Plain),
            };
        };
        match (self, tags.end_of(prompt)) {
            (Self::On, PromptEnd::Plain) if !is_asked => prompt.push(&tags.opening()),
            (Self::Off, PromptEnd::Plain) if !is_asked => prompt.push(&tags.empty_block()),
            (Self::Off, PromptEnd::Open) => prompt.push(&tags.closing()),
            _ => {}
        }
        Ok(tags.end_of(prompt))
    }
}

impl fmt::Display for Thinking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Thinking {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        [Self::Auto, Self::Off, Self::On]
            .into_iter()
            .find(|mode| mode.name() == name)
            .ok_or_else(|| Error::invalid_parameter("thinking", name, "auto, off or on"))
    }
}

#[cfg(test)]
mod tests;
