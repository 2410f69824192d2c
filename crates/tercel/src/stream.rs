//! The reader's view of a running request.

use crate::error::Error;
use crate::pipe::{CancelHandle, Receiver};
use crate::reply::{Event, Reply};

/// The events of one request, in order: any number of [`Event::Thinking`], then of [`Event::Delta`],
/// then one [`Event::Done`] or an error, then nothing.
///
/// `next` blocks until there is an event. A reader that lags makes the engine wait; nothing is
/// lost. Dropping the stream cancels the request.
pub struct Stream {
    events: Receiver,
}

impl Stream {
    pub(crate) fn new(events: Receiver) -> Self {
        Self { events }
    }

    /// Asks the request to end within one token, or one prefill chunk. The stream goes on to
    /// [`Event::Done`], with what was generated until then.
    pub fn cancel(&self) {
        self.cancel_handle().cancel();
    }

    /// A handle that cancels this request from elsewhere, such as a Ctrl-C handler.
    pub fn cancel_handle(&self) -> CancelHandle {
        self.events.cancel_handle()
    }

    /// Reads to the end and gives the reply.
    ///
    /// # Errors
    /// The error that ended the request; [`Error::EngineClosed`] if the end was read before.
    pub fn wait(self) -> Result<Reply, Error> {
        for event in self {
            if let Event::Done(reply) = event? {
                return Ok(reply);
            }
        }
        Err(Error::EngineClosed)
    }
}

impl Iterator for Stream {
    type Item = Result<Event, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.events.next()
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").finish_non_exhaustive()
    }
}
