//! A conversation that remembers itself.

use tercel_text::{Message, Role};

use crate::engine::Engine;
use crate::error::Error;
use crate::pipe::CancelHandle;
use crate::reply::{Event, Reply, StopReason};
use crate::request::Request;
use crate::sampling::{Sampling, sampling_setters};
use crate::stream::Stream;

/// A conversation with an engine: each turn is rendered with those before it.
///
/// The engine keeps the conversation's state between turns, so a turn computes only what is new
/// (as long as no other request comes in between: it then starts afresh, with the same result).
///
/// A turn that fails, or is cancelled before it answered anything, leaves the history as it was. A
/// reply that was cancelled later enters the history as far as it was read. A thought enters it as
/// the `reasoning_content` of the model's turn; templates commonly leave out those of old turns.
#[derive(Clone, Debug)]
pub struct Chat {
    engine: Engine,
    history: Vec<Message>,
    sampling: Sampling,
}

impl Chat {
    pub(crate) fn new(engine: Engine) -> Self {
        Self {
            engine,
            history: Vec::new(),
            sampling: Sampling::default(),
        }
    }

    /// Starts the conversation with instructions to the model.
    #[must_use]
    pub fn system(mut self, text: impl Into<String>) -> Self {
        self.set_system(Some(text.into()));
        self
    }

    /// Starts from a conversation that took place before, replacing everything so far, the system
    /// message included.
    #[must_use]
    pub fn with_history(mut self, messages: Vec<Message>) -> Self {
        self.history = messages;
        self
    }

    sampling_setters!();

    /// Replaces all sampling values, from the next turn on.
    pub fn set_sampling(&mut self, sampling: Sampling) {
        self.sampling = sampling;
    }

    /// The sampling values of the next turn.
    pub fn current_sampling(&self) -> &Sampling {
        &self.sampling
    }

    /// Replaces the instructions, or removes them, from the next turn on.
    pub fn set_system(&mut self, text: Option<String>) {
        let had = usize::from(self.starts_with_system());
        let message = text.map(Message::system);
        self.history.splice(..had, message);
    }

    /// The conversation so far: the system message first, if there is one.
    pub fn history(&self) -> &[Message] {
        &self.history
    }

    /// Forgets every turn; the system message and the sampling values stay.
    pub fn reset(&mut self) {
        let kept = usize::from(self.starts_with_system());
        self.history.truncate(kept);
    }

    /// Says `text` and waits for the whole reply.
    ///
    /// # Errors
    /// Those of [`Engine::generate`].
    pub fn ask(&mut self, text: impl Into<String>) -> Result<Reply, Error> {
        let request = self.begin(text.into());
        match self.engine.generate(request) {
            Ok(reply) => {
                self.end(Said::of(&reply), reply.stop_reason != StopReason::Cancelled);
                Ok(reply)
            }
            Err(error) => {
                self.end(Said::default(), false);
                Err(error)
            }
        }
    }

    /// Says `text` and gives the reply as it comes.
    ///
    /// # Errors
    /// Those of [`Engine::stream`]; errors on the way come out of the stream.
    pub fn stream(&mut self, text: impl Into<String>) -> Result<ChatStream<'_>, Error> {
        let request = self.begin(text.into());
        match self.engine.stream(request) {
            Ok(stream) => Ok(ChatStream {
                chat: self,
                stream,
                said: Said::default(),
                open: true,
            }),
            Err(error) => {
                self.end(Said::default(), false);
                Err(error)
            }
        }
    }

    fn begin(&mut self, content: String) -> Request {
        self.history.push(Message::user(content));
        Request::chat(self.history.clone()).sampling(self.sampling.clone())
    }

    /// Ends the turn that `begin` opened: with what was said, or as if it had not been.
    fn end(&mut self, said: Said, complete: bool) {
        if complete || !said.text.is_empty() {
            let mut message = Message::assistant(said.text);
            message.reasoning_content = said.thought;
            self.history.push(message);
        } else {
            self.history.pop();
        }
    }

    fn starts_with_system(&self) -> bool {
        self.history
            .first()
            .is_some_and(|message| message.role == Role::System)
    }
}

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
    /// Whether the turn has not ended.
    open: bool,
}

impl ChatStream<'_> {
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
        if std::mem::take(&mut self.open) {
            self.chat.end(said, complete);
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

/// What the model said in a turn.
#[derive(Debug, Default)]
struct Said {
    thought: Option<String>,
    text: String,
}

impl Said {
    fn of(reply: &Reply) -> Self {
        Self {
            thought: reply.thinking.clone(),
            text: reply.text.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
