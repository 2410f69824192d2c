//! A body that must be there within a time, so that a client that sends a byte now and then holds
//! nothing for long.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::Sleep;

/// The body was not there in time.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the body did not arrive in time")]
pub(crate) struct Late;

impl Late {
    /// Whether this is why a body could not be read.
    pub(crate) fn caused(error: &(dyn Error + 'static)) -> bool {
        let mut next = Some(error);
        while let Some(error) = next {
            if error.is::<Self>() {
                return true;
            }
            next = error.source();
        }
        false
    }
}

/// A body that fails with [`Late`] unless it ends in time.
struct Timed {
    body: Body,
    end: Pin<Box<Sleep>>,
    is_left: Arc<AtomicBool>,
}

/// Whether a part of a body was left unread.
pub(super) struct Rest(Arc<AtomicBool>);

impl Rest {
    pub(super) fn is_left(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// The body, which fails with [`Late`] unless it ends in time, and what is left of it.
pub(super) fn timed(body: Body, within: Duration) -> (Body, Rest) {
    let is_left = Arc::new(AtomicBool::new(!body.is_end_stream()));
    let rest = Rest(is_left.clone());
    if body.is_end_stream() {
        return (body, rest);
    }
    let end = Box::pin(tokio::time::sleep(within));
    (Body::new(Timed { body, end, is_left }), rest)
}

impl http_body::Body for Timed {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            if frame.is_none() || self.body.is_end_stream() {
                self.is_left.store(false, Ordering::Release);
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        self.end
            .as_mut()
            .poll(context)
            .map(|()| Some(Err(Late.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
