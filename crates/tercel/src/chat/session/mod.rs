//! Conversations in a file, to go on with later.

mod error;
mod file;
mod state;

use std::path::Path;

use serde::{Deserialize, Serialize};
use tercel_text::Message;

pub use error::SessionError;

use self::file::{SessionReader, write_file};
use self::state::{KeepsState, pack, unpack};
use super::Chat;
use crate::engine::Engine;
use crate::error::Error;
use crate::files::hash_of_text;
use crate::sampling::Sampling;

/// What was written to a session file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SavedSession {
    /// Messages of the conversation.
    pub messages: usize,
    /// Tokens whose state was saved too; 0 where the engine held none.
    pub state_tokens: usize,
    /// Size of the file.
    pub bytes: u64,
}

/// Who wrote a session, and how its replies were made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    /// Version and platform of Tercel, and what computed.
    build: String,
    /// The model as it was asked for.
    model: String,
    /// See [`Info::fingerprint`](crate::Info::fingerprint).
    fingerprint: String,
    /// SHA-256 of the chat template.
    template: Option<String>,
    sampling: Sampling,
}

impl Chat {
    /// Writes the conversation, its sampling values and, as far as the engine holds it, its state
    /// to a file, for [`Engine::resume`]. A file that is there is replaced, in one step; it is
    /// readable by its owner alone. The texts in it are not encrypted.
    ///
    /// # Errors
    /// [`Error::Session`] where the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<SavedSession, Error> {
        self.save_with(path.as_ref(), Some(&self.engine))
    }

    /// As [`Chat::save`], without the state: the next turn of a resumed conversation computes all
    /// of it.
    ///
    /// # Errors
    /// Those of [`Chat::save`].
    pub fn save_transcript(&self, path: impl AsRef<Path>) -> Result<SavedSession, Error> {
        self.save_with(path.as_ref(), None::<&Engine>)
    }

    fn save_with(
        &self,
        path: &Path,
        states: Option<&impl KeepsState>,
    ) -> Result<SavedSession, Error> {
        // A conversation that cannot be rendered has no state either.
        let state = states.and_then(|states| {
            let mut prompter = self.engine.prompter();
            prompter.tools = self.tools.tools();
            let tokens = prompter.history(&self.history).ok()?;
            let bytes = states.export(&tokens)?;
            Some((tokens.len(), pack(&tokens, &bytes)))
        });
        let header = Header::of(&self.engine, &self.sampling);
        let section = state.as_ref().map(|(_, bytes)| bytes.as_slice());
        let bytes = write_file(path, &header, &self.history, section)?;
        Ok(SavedSession {
            messages: self.history.len(),
            state_tokens: state.map_or(0, |(tokens, _)| tokens),
            bytes,
        })
    }
}

impl Engine {
    /// Goes on with a conversation that [`Chat::save`] wrote: with its history, its sampling values
    /// and, where the file has it, its state, so that the next turn computes only what is new.
    ///
    /// # Errors
    /// [`Error::Session`]: a file that cannot be read, is no session, is damaged, or was written
    /// with another model, chat template or build.
    pub fn resume(&self, path: impl AsRef<Path>) -> Result<Chat, Error> {
        self.resume_with(path.as_ref(), self)
    }

    /// As [`Engine::resume`], whatever model, chat template and build wrote the file: the history
    /// and the sampling values alone, without the state.
    ///
    /// # Errors
    /// [`Error::Session`]: a file that cannot be read, is no session, or is damaged.
    pub fn resume_transcript(&self, path: impl AsRef<Path>) -> Result<Chat, Error> {
        let mut reader = SessionReader::open(path.as_ref())?;
        let header = reader.header()?;
        let messages = reader.messages()?;
        Ok(self.chat_of(header, messages))
    }

    fn resume_with(&self, path: &Path, states: &impl KeepsState) -> Result<Chat, Error> {
        let mut reader = SessionReader::open(path)?;
        let saved = reader.header()?;
        saved.check(&Header::of(self, &saved.sampling), path)?;
        let messages = reader.messages()?;
        // A state is never larger than what holds it.
        let most = (self.info().memory.total_bytes as u64).saturating_add(1 << 20);
        if let Some(section) = reader.state(most)? {
            let vocab_size = self.info().model.vocab_size;
            let (tokens, bytes) = unpack(&section, vocab_size).map_err(|problem| {
                Error::Session(SessionError::Damaged {
                    path: path.to_owned(),
                    problem,
                })
            })?;
            states.import(&tokens, bytes)?;
        }
        reader.finish()?;
        Ok(self.chat_of(saved, messages))
    }

    fn chat_of(&self, header: Header, messages: Vec<Message>) -> Chat {
        let chat = self.chat().with_history(messages);
        chat.sampling(header.sampling)
    }
}

impl Header {
    fn of(engine: &Engine, sampling: &Sampling) -> Self {
        let info = engine.info();
        let (version, os, arch) = (
            env!("CARGO_PKG_VERSION"),
            std::env::consts::OS,
            std::env::consts::ARCH,
        );
        Self {
            build: format!("{version} {arch}-{os} {}", info.backend),
            model: info.id.clone(),
            fingerprint: info.fingerprint.clone(),
            template: engine.template().map(hash_of_text),
            sampling: sampling.clone(),
        }
    }

    /// Checks that a session that was written under `self` can go on under `now`.
    fn check(&self, now: &Self, path: &Path) -> Result<(), SessionError> {
        let path = path.to_owned();
        if self.fingerprint != now.fingerprint {
            return Err(SessionError::OtherModel {
                path,
                saved: self.model.clone(),
                loaded: now.model.clone(),
            });
        }
        if self.template != now.template {
            return Err(SessionError::OtherTemplate { path });
        }
        if self.build != now.build {
            return Err(SessionError::OtherBuild {
                path,
                saved: self.build.clone(),
                running: now.build.clone(),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
