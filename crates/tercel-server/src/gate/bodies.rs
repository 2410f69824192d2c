//! Bodies that must be there within a time, and that together hold only so much memory: a client
//! that sends a byte now and then holds nothing for long, and a crowd of large ones is sent away.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::{Buf, Bytes};
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::Sleep;

/// Bytes of a body that always have room: connections are few enough.
const SMALL: usize = 64 << 10;

/// The body was not there in time.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the body did not arrive in time")]
pub(crate) struct Late;

/// There is no room for the body at present.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("too many large requests at once; try again")]
pub(crate) struct Crowded;

impl Late {
    /// Whether this is why a body could not be read.
    pub(crate) fn caused(error: &(dyn Error + 'static)) -> bool {
        is_caused_by::<Self>(error)
    }
}

impl Crowded {
    /// Whether this is why a body could not be read.
    pub(crate) fn caused(error: &(dyn Error + 'static)) -> bool {
        is_caused_by::<Self>(error)
    }
}

fn is_caused_by<E: Error + 'static>(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<E>() {
            return true;
        }
        next = error.source();
    }
    false
}

/// What bodies hold of the memory, all together.
pub(super) struct Bodies {
    held: Arc<AtomicUsize>,
    most: usize,
}

impl Bodies {
    pub(super) fn new(most: usize) -> Self {
        Self {
            held: Arc::default(),
            most,
        }
    }

    /// The body, which fails with [`Late`] unless it ends within the time, and with [`Crowded`]
    /// where there is no room for it.
    pub(super) fn admit(&self, body: Body, within: Duration) -> (Body, Admitted) {
        let part = Arc::new(Part {
            bytes: AtomicUsize::new(0),
            held: self.held.clone(),
            is_left: AtomicBool::new(!body.is_end_stream()),
        });
        let admitted = Admitted(part.clone());
        if body.is_end_stream() {
            return (body, admitted);
        }
        let bounded = Bounded {
            body,
            end: Box::pin(tokio::time::sleep(within)),
            part,
            most: self.most,
        };
        (Body::new(bounded), admitted)
    }
}

/// A body's part of the memory, as long as its request is worked on.
pub(super) struct Admitted(Arc<Part>);

impl Admitted {
    /// Whether a part of the body was left unread.
    pub(super) fn is_left(&self) -> bool {
        self.0.is_left.load(Ordering::Acquire)
    }
}

struct Part {
    bytes: AtomicUsize,
    held: Arc<AtomicUsize>,
    is_left: AtomicBool,
}

impl Part {
    fn take(&self, bytes: usize, most: usize) -> Result<(), Crowded> {
        let all = self.held.fetch_add(bytes, Ordering::AcqRel) + bytes;
        let of_this = self.bytes.fetch_add(bytes, Ordering::AcqRel) + bytes;
        if all > most && of_this > SMALL {
            return Err(Crowded);
        }
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let bytes = *self.bytes.get_mut();
        self.held.fetch_sub(bytes, Ordering::AcqRel);
    }
}

struct Bounded {
    body: Body,
    end: Pin<Box<Sleep>>,
    part: Arc<Part>,
    most: usize,
}

impl http_body::Body for Bounded {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
            let late = |()| Some(Err(Late.into()));
            return self.end.as_mut().poll(context).map(late);
        };
        let data = frame
            .as_ref()
            .and_then(|frame| frame.as_ref().ok()?.data_ref());
        if let Err(crowded) = self.part.take(data.map_or(0, Buf::remaining), self.most) {
            return Poll::Ready(Some(Err(crowded.into())));
        }
        if frame.is_none() || self.body.is_end_stream() {
            self.part.is_left.store(false, Ordering::Release);
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    const TIME: Duration = Duration::from_secs(1);

    async fn read(body: Body) -> Result<usize, String> {
        let read = body.collect().await;
        read.map(|body| body.to_bytes().len())
            .map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn large_bodies_share_the_room_and_small_ones_always_have_some() {
        let bodies = Bodies::new(300 << 10);
        let of = |bytes: usize| bodies.admit(Body::from(vec![b'a'; bytes]), TIME);
        let (first, part) = of(200 << 10);
        assert_eq!(read(first).await, Ok(200 << 10));
        assert!(!part.is_left());
        let (second, refused) = of(200 << 10);
        let error = read(second).await.unwrap_err();
        assert!(error.contains("too many large requests"), "{error}");
        assert!(refused.is_left());
        drop(refused);
        for _ in 0..3 {
            let (small, _part) = of(SMALL);
            assert_eq!(read(small).await, Ok(SMALL));
        }
        drop(part);
        assert_eq!(bodies.held.load(Ordering::Relaxed), 0);
        let (third, _part) = of(200 << 10);
        assert_eq!(read(third).await, Ok(200 << 10));
    }
}
