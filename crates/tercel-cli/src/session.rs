//! `--session`: a conversation that is kept in a file between runs.

use std::path::PathBuf;

use tercel::{Chat, Engine, Sampling};

use crate::failure::Failure;

/// The file of a conversation, and how it is taken up.
pub(crate) struct Session {
    path: PathBuf,
    transcript_alone: bool,
}

impl Session {
    pub(crate) fn new(path: PathBuf, transcript_alone: bool) -> Self {
        Self {
            path,
            transcript_alone,
        }
    }

    /// The conversation in the file, or a new one where there is no file. What `sampling` leaves
    /// out is as it was.
    pub(crate) fn open(&self, engine: &Engine, sampling: Sampling) -> Result<Chat, Failure> {
        let resumed = match self.transcript_alone {
            true => engine.resume_transcript(&self.path),
            false => engine.resume(&self.path),
        };
        match resumed {
            Ok(chat) => {
                let sampling = sampling.or(chat.current_sampling());
                Ok(chat.sampling(sampling))
            }
            Err(error) if error.kind() == "session_not_found" => {
                Ok(engine.chat().sampling(sampling))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Keeps the conversation and its state.
    pub(crate) fn save(&self, chat: &Chat) -> Result<(), Failure> {
        chat.save(&self.path)?;
        Ok(())
    }

    /// Keeps the texts of the conversation, which is quicker.
    pub(crate) fn save_transcript(&self, chat: &Chat) -> Result<(), Failure> {
        chat.save_transcript(&self.path)?;
        Ok(())
    }
}
