//! The reader's view of a running request.

use std::pin::Pin;
use std::task::{Context, Poll};

use crate::error::Error;
use crate::pipe::{CancelHandle, Receiver};
use crate::reply::{Event, Reply};

/// The events of one request, in order: any number of [`Event::Thinking`], then of [`Event::Delta`],
/// then one [`Event::Done`] or an error, then nothing. [`Event::ToolCall`] and [`Event::Logprobs`] are
/// among them where the request asked for them.
///
/// `next` blocks until there is an event. A reader that lags makes its request wait, and no other;
/// nothing is lost. Dropping the stream cancels the request.
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

    /// Tokens of the prompt as they are computed: what was cut is not among them.
    pub fn prompt_tokens(&self) -> usize {
        self.events.prompt_tokens()
    }

    /// The same events for asynchronous code, whatever its runtime.
    pub fn into_async(self) -> AsyncStream {
        AsyncStream {
            events: self.events,
        }
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

/// The events of one request as a [`futures_core::Stream`], which needs no runtime: see [`Stream`].
pub struct AsyncStream {
    events: Receiver,
}

impl AsyncStream {
    /// See [`Stream::cancel`].
    pub fn cancel(&self) {
        self.cancel_handle().cancel();
    }

    /// See [`Stream::cancel_handle`].
    pub fn cancel_handle(&self) -> CancelHandle {
        self.events.cancel_handle()
    }

    /// See [`Stream::prompt_tokens`].
    pub fn prompt_tokens(&self) -> usize {
        self.events.prompt_tokens()
    }

    /// The next event; `None` after the end.
    pub async fn next_event(&mut self) -> Option<Result<Event, Error>> {
        std::future::poll_fn(|context| self.events.poll_next(context)).await
    }

    /// Reads to the end and gives the reply.
    ///
    /// # Errors
    /// Those of [`Stream::wait`].
    pub async fn wait(mut self) -> Result<Reply, Error> {
        while let Some(event) = self.next_event().await {
            if let Event::Done(reply) = event? {
                return Ok(reply);
            }
        }
        Err(Error::EngineClosed)
    }
}

impl futures_core::Stream for AsyncStream {
    type Item = Result<Event, Error>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.events.poll_next(context)
    }
}

impl std::fmt::Debug for AsyncStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AsyncStream").finish_non_exhaustive()
    }
}
