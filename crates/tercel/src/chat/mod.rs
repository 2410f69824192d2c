//! A conversation that remembers itself.

mod repair;
mod session;
mod stream;
mod tools;
mod turns;

use tercel_text::{Message, Role};

pub use session::{SavedSession, SessionError};
pub use stream::ChatStream;

use crate::engine::Engine;
use crate::error::Error;
use crate::reply::Reply;
use crate::sampling::{Sampling, sampling_setters};
use crate::tools::{ToolChoice, Toolbox};
use turns::Undo;

/// A conversation with an engine: each turn is rendered with those before it.
///
/// The engine keeps the conversation's state between turns, so a turn computes only what is new
/// (as long as no other request comes in between: it then starts afresh, with the same result).
///
/// A turn that fails, or is cancelled before it answered anything, leaves the history as it was. A
/// reply that was cancelled later enters the history as far as it was read. A thought enters it as
/// the `reasoning_content` of the model's turn; templates commonly leave out those of old turns.
///
/// A conversation that outgrows the context is an error, or cut as [`Chat::context_overflow`] says.
/// The history stays whole either way; what a reply did not see is in its
/// [`context`](Reply::context).
///
/// With [`Chat::tools`], a turn goes on until the model has answered: what it calls is run, and what
/// comes of it enters the history before the answer.
#[derive(Clone, Debug)]
pub struct Chat {
    engine: Engine,
    history: Vec<Message>,
    sampling: Sampling,
    tools: Toolbox,
    tool_choice: ToolChoice,
    parallel_tool_calls: bool,
    max_tool_rounds: usize,
}

impl Chat {
    pub(crate) fn new(engine: Engine) -> Self {
        Self {
            engine,
            history: Vec::new(),
            sampling: Sampling::default(),
            tools: Toolbox::default(),
            tool_choice: ToolChoice::Auto,
            parallel_tool_calls: false,
            max_tool_rounds: tools::ROUNDS,
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
        let undo = self.say(text.into());
        self.reply(undo)
    }

    /// Says `text` and gives the reply as it comes.
    ///
    /// # Errors
    /// Those of [`Engine::stream`]; errors on the way come out of the stream.
    pub fn stream(&mut self, text: impl Into<String>) -> Result<ChatStream<'_>, Error> {
        let undo = self.say(text.into());
        self.reply_as_stream(undo)
    }

    fn say(&mut self, content: String) -> Undo {
        let undo = Undo::from(&mut self.history, None);
        self.history.push(Message::user(content));
        undo
    }

    /// Has the conversation continued by the model, or taken back by `undo`.
    fn reply(&mut self, undo: Undo) -> Result<Reply, Error> {
        let mut rounds = 0;
        loop {
            match self.engine.generate(self.request(rounds)) {
                Ok(reply) if self.is_to_go_on(&reply) => {
                    self.run_tools(&reply, || false);
                    rounds += 1;
                }
                Ok(reply) => {
                    self.end(Said::of(&reply), Self::is_complete(&reply), undo);
                    return Ok(reply);
                }
                Err(error) => {
                    self.end(Said::default(), false, undo);
                    return Err(error);
                }
            }
        }
    }

    /// As [`Chat::reply`], as it comes.
    fn reply_as_stream(&mut self, undo: Undo) -> Result<ChatStream<'_>, Error> {
        match self.engine.stream(self.request(0)) {
            Ok(stream) => Ok(ChatStream::new(self, stream, undo)),
            Err(error) => {
                self.end(Said::default(), false, undo);
                Err(error)
            }
        }
    }

    /// Ends a turn: with what was said, or as if it had not been.
    fn end(&mut self, said: Said, complete: bool, undo: Undo) {
        if complete || !said.text.is_empty() {
            let mut message = Message::assistant(said.text);
            message.reasoning_content = said.thought;
            self.history.push(message);
        } else {
            undo.apply(&mut self.history);
        }
    }

    fn starts_with_system(&self) -> bool {
        self.history
            .first()
            .is_some_and(|message| message.role == Role::System)
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
