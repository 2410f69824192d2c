//! The use of a model: as long as there is a lease, the model stays.

use std::fmt;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::shared::Shared;
use crate::engine::Engine;
use crate::error::Error;
use crate::pipe::CancelHandle;
use crate::reply::{Event, Reply};
use crate::request::Request;
use crate::stream::{AsyncStream, Stream};

/// A model that is ready, for as long as this is held: it is neither evicted nor unloaded.
///
/// A lease is an [`Engine`], and its own [`Lease::generate`] and [`Lease::stream`] also tell the
/// host how requests end, from which it learns how long they are and whether the model is healthy.
/// Hold it for the requests at hand, not for ever. Clones of the engine itself are nothing that
/// the host knows of: they keep the memory that it believes to be free.
#[derive(Clone)]
pub struct Lease {
    // Dropped first: the memory is not free before the last engine has gone.
    engine: Engine,
    hold: Hold,
}

impl Lease {
    pub(super) fn new(host: Arc<Shared>, name: Arc<str>, epoch: u64, engine: Engine) -> Self {
        let hold = Hold { host, name, epoch };
        Self { engine, hold }
    }

    /// The model's name in the host.
    pub fn name(&self) -> &str {
        &self.hold.name
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// As [`Engine::generate`].
    ///
    /// # Errors
    /// Those of [`Engine::generate`].
    pub fn generate(&self, request: Request) -> Result<Reply, Error> {
        let result = self.engine.generate(request);
        self.record(result.as_ref());
        result
    }

    /// As [`Engine::stream`]; the stream keeps the model too.
    ///
    /// # Errors
    /// Those of [`Engine::stream`].
    pub fn stream(&self, request: Request) -> Result<LeaseStream, Error> {
        match self.engine.stream(request) {
            Ok(stream) => Ok(LeaseStream {
                stream,
                lease: self.clone(),
            }),
            Err(error) => {
                self.record(Err(&error));
                Err(error)
            }
        }
    }

    /// As [`Engine::stream_async`]; the stream keeps the model too.
    ///
    /// # Errors
    /// Those of [`Engine::stream_async`].
    pub fn stream_async(&self, request: Request) -> Result<LeaseAsyncStream, Error> {
        let LeaseStream { stream, lease } = self.stream(request)?;
        Ok(LeaseAsyncStream {
            stream: stream.into_async(),
            lease,
        })
    }

    /// Tells the host how a request has ended, where the event is its end.
    fn record_event(&self, event: &Result<Event, Error>) {
        match event {
            Ok(Event::Done(reply)) => self.record(Ok(reply)),
            Ok(_) => {}
            Err(error) => self.record(Err(error)),
        }
    }

    fn record(&self, result: Result<&Reply, &Error>) {
        let Hold { host, name, epoch } = &self.hold;
        host.record(name, *epoch, result);
    }
}

impl Deref for Lease {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        &self.engine
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("name", &self.hold.name)
            .finish_non_exhaustive()
    }
}

/// What keeps a model where it is.
struct Hold {
    host: Arc<Shared>,
    name: Arc<str>,
    epoch: u64,
}

impl Clone for Hold {
    fn clone(&self) -> Self {
        self.host.retain(&self.name, self.epoch);
        Self {
            host: Arc::clone(&self.host),
            name: Arc::clone(&self.name),
            epoch: self.epoch,
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.host.release(&self.name, self.epoch);
    }
}

/// The events of one request, as [`Stream`] gives them, with the lease that they need.
pub struct LeaseStream {
    // Dropped first: the request ends before its model may go.
    stream: Stream,
    lease: Lease,
}

impl LeaseStream {
    /// As [`Stream::cancel`].
    pub fn cancel(&self) {
        self.stream.cancel();
    }

    /// As [`Stream::cancel_handle`].
    pub fn cancel_handle(&self) -> CancelHandle {
        self.stream.cancel_handle()
    }

    /// As [`Stream::prompt_tokens`].
    pub fn prompt_tokens(&self) -> usize {
        self.stream.prompt_tokens()
    }

    /// As [`Stream::wait`].
    ///
    /// # Errors
    /// Those of [`Stream::wait`].
    pub fn wait(self) -> Result<Reply, Error> {
        for event in self {
            if let Event::Done(reply) = event? {
                return Ok(reply);
            }
        }
        Err(Error::EngineClosed)
    }
}

impl Iterator for LeaseStream {
    type Item = Result<Event, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let event = self.stream.next()?;
        self.lease.record_event(&event);
        Some(event)
    }
}

impl fmt::Debug for LeaseStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaseStream")
            .field("model", &self.lease.hold.name)
            .finish_non_exhaustive()
    }
}

/// The events of one request, as [`AsyncStream`] gives them, with the lease that they need.
pub struct LeaseAsyncStream {
    // Dropped first: the request ends before its model may go.
    stream: AsyncStream,
    lease: Lease,
}

impl LeaseAsyncStream {
    /// As [`Stream::cancel`].
    pub fn cancel(&self) {
        self.stream.cancel();
    }

    /// As [`Stream::cancel_handle`].
    pub fn cancel_handle(&self) -> CancelHandle {
        self.stream.cancel_handle()
    }

    /// As [`Stream::prompt_tokens`].
    pub fn prompt_tokens(&self) -> usize {
        self.stream.prompt_tokens()
    }

    /// What keeps the model.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// The next event; `None` after the end.
    pub async fn next_event(&mut self) -> Option<Result<Event, Error>> {
        let event = self.stream.next_event().await?;
        self.lease.record_event(&event);
        Some(event)
    }
}

impl futures_core::Stream for LeaseAsyncStream {
    type Item = Result<Event, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let event = ready!(Pin::new(&mut self.stream).poll_next(context));
        if let Some(event) = &event {
            self.lease.record_event(event);
        }
        Poll::Ready(event)
    }
}

impl fmt::Debug for LeaseAsyncStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaseAsyncStream")
            .field("model", &self.lease.hold.name)
            .finish_non_exhaustive()
    }
}
