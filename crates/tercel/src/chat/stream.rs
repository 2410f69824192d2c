//! A turn as it comes.

use super::turns::Undo;
use super::{Chat, Said};
use crate::error::Error;
use crate::pipe::CancelHandle;
use crate::reply::{Event, Reply, StopReason};
use crate::stream::Stream;

/// The events of one turn, as [`Stream`] gives them.
///
/// On [`Event::Done`] the reply enters the history. Dropped earlier, the stream cancels the turn,
/// and what was read of the reply enters the history.
#[derive(Debug)]
pub struct ChatStream<'a> {
    chat: &'a mut Chat,
    stream: Stream,
    /// What was read so far.
    said: Said,
    /// How to take the turn back, until it has ended.
    undo: Option<Undo>,
}

impl<'a> ChatStream<'a> {
    pub(super) fn new(chat: &'a mut Chat, stream: Stream, undo: Undo) -> Self {
        Self {
            chat,
            stream,
            said: Said::default(),
            undo: Some(undo),
        }
    }

    /// See [`Stream::cancel`].
    pub fn cancel(&self) {
        self.stream.cancel();
    }

    /// See [`Stream::cancel_handle`].
    pub fn cancel_handle(&self) -> CancelHandle {
        self.stream.cancel_handle()
    }

    /// Reads to the end and gives the reply.
    ///
    /// # Errors
    /// The error that ended the turn; [`Error::EngineClosed`] if the end was read before.
    pub fn wait(mut self) -> Result<Reply, Error> {
        for event in &mut self {
            if let Event::Done(reply) = event? {
                return Ok(reply);
            }
        }
        Err(Error::EngineClosed)
    }

    fn end(&mut self, said: Said, complete: bool) {
        if let Some(undo) = self.undo.take() {
            self.chat.end(said, complete, undo);
        }
    }
}

impl Iterator for ChatStream<'_> {
    type Item = Result<Event, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let event = self.stream.next();
        match &event {
            Some(Ok(Event::Thinking { text, .. })) => {
                self.said.thought.get_or_insert_default().push_str(text);
            }
            Some(Ok(Event::Delta { text, .. })) => self.said.text.push_str(text),
            Some(Ok(Event::Done(reply))) => {
                self.end(Said::of(reply), reply.stop_reason != StopReason::Cancelled);
            }
            // A chat asks for none.
            Some(Ok(Event::Logprobs { .. })) => {}
            Some(Err(_)) | None => self.end(Said::default(), false),
        }
        event
    }
}

impl Drop for ChatStream<'_> {
    fn drop(&mut self) {
        let said = std::mem::take(&mut self.said);
        self.end(said, false);
    }
}
