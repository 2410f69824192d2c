//! Going back: other replies, other questions, other ways on.

use tercel_text::Message;

use super::{Chat, ChatStream};
use crate::context::turn_starts;
use crate::error::Error;
use crate::reply::Reply;

/// A turn is what the user says and all up to what they say next. Turns are numbered from 0.
///
/// The engine finds by itself what it still holds of a conversation, so a fork, or a turn said
/// anew, computes only what differs.
impl Chat {
    /// A copy that goes its own way: same engine, same conversation, same sampling values.
    #[must_use]
    pub fn fork(&self) -> Self {
        self.clone()
    }

    /// How many turns there are.
    pub fn turns(&self) -> usize {
        turn_starts(&self.history).len()
    }

    /// Takes the last `turns` turns back. What comes before the first turn stays.
    ///
    /// # Errors
    /// [`Error::NoSuchTurn`] where there are fewer; then nothing is taken back.
    pub fn rewind(&mut self, turns: usize) -> Result<(), Error> {
        let starts = turn_starts(&self.history);
        let left = starts.len().checked_sub(turns).ok_or(Error::NoSuchTurn {
            turn: turns.saturating_sub(1),
            turns: starts.len(),
        })?;
        if let Some(start) = starts.get(left) {
            self.history.truncate(*start);
        }
        Ok(())
    }

    /// Says `text` in the place of what the user said in turn `turn`, and takes back all that came
    /// after: its reply too, which [`Chat::regenerate`] asks for.
    ///
    /// # Errors
    /// [`Error::NoSuchTurn`], and [`Error::EmptyPrompt`] for a text without any; then nothing
    /// changes.
    pub fn edit(&mut self, turn: usize, text: impl Into<String>) -> Result<(), Error> {
        let text = text.into();
        if text.trim().is_empty() {
            return Err(Error::EmptyPrompt);
        }
        let starts = turn_starts(&self.history);
        let no_such = Error::NoSuchTurn {
            turn,
            turns: starts.len(),
        };
        let start = *starts.get(turn).ok_or(no_such)?;
        self.history.truncate(start + 1);
        if let Some(said) = self.history.last_mut() {
            said.content = text;
        }
        Ok(())
    }

    /// Replies to the last turn anew, in the place of all that came after the user's words. With a
    /// seed set it is the same reply, unless another value changed.
    ///
    /// A reply that fails, or is cancelled before it says anything, leaves the one before.
    ///
    /// # Errors
    /// [`Error::EmptyMessages`] where nothing was said yet; those of [`Chat::ask`].
    pub fn regenerate(&mut self) -> Result<Reply, Error> {
        let undo = self.reopen()?;
        self.reply(undo)
    }

    /// As [`Chat::regenerate`], and gives the reply as it comes.
    ///
    /// # Errors
    /// [`Error::EmptyMessages`] where nothing was said yet; those of [`Chat::stream`].
    pub fn regenerate_stream(&mut self) -> Result<ChatStream<'_>, Error> {
        let undo = self.reopen()?;
        self.reply_as_stream(undo)
    }

    fn reopen(&mut self) -> Result<Undo, Error> {
        let last = turn_starts(&self.history).pop();
        let last = last.ok_or(Error::EmptyMessages)?;
        Ok(Undo::from(&mut self.history, Some(last + 1)))
    }
}

/// How to take back what is done to a conversation from here on.
#[derive(Debug)]
pub(super) struct Undo {
    length: usize,
    removed: Vec<Message>,
}

impl Undo {
    /// Removes what comes after the first `length` messages, if there is a length.
    pub(super) fn from(history: &mut Vec<Message>, length: Option<usize>) -> Self {
        let length = length.unwrap_or(history.len()).min(history.len());
        Self {
            length,
            removed: history.split_off(length),
        }
    }

    /// Makes `history` what it was.
    pub(super) fn apply(self, history: &mut Vec<Message>) {
        history.truncate(self.length);
        history.extend(self.removed);
    }
}
