//! Replies that are sent while they are made.
//!
//! A task reads the pieces, an encoder of the protocol makes frames of them, and a bounded channel
//! takes these to the connection. When the connection is slow, the task waits, and with it the
//! engine; when the client has gone, the task ends, and with it the request.

mod sse;

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use http_body::Frame;
use tokio::sync::mpsc;

pub(crate) use sse::{Sse, json};

use crate::error::ApiError;
use crate::work::{Finished, Piece, Running};

/// Frames that may wait for a connection. With what the kernel takes, and frames of some 200 bytes,
/// a reader that lags holds far below the 256 KiB that it may.
const FRAMES_AHEAD: usize = 64;

/// Makes frames of a protocol of the pieces of one or more replies (`n`); `index` says which.
/// Each method puts what is to be sent at the end of `out`.
pub(crate) trait Encoder: Send + 'static {
    /// Comes first, once the requests were admitted.
    fn start(&mut self, out: &mut Vec<u8>);
    /// A piece of one reply, never [`Piece::Done`].
    fn piece(&mut self, index: usize, piece: Piece, out: &mut Vec<u8>);
    /// One reply has ended.
    fn done(&mut self, index: usize, finished: &Finished, out: &mut Vec<u8>);
    /// All have ended.
    fn end(&mut self, finished: &[Finished], out: &mut Vec<u8>);
    /// Something failed after the start; nothing follows.
    fn fail(&mut self, error: &ApiError, out: &mut Vec<u8>);
}

/// A response whose body is made by `encoder` of what `running` give.
pub(crate) fn respond(
    content_type: &'static str,
    running: Vec<Running>,
    encoder: impl Encoder,
) -> Response {
    let (sender, receiver) = mpsc::channel(FRAMES_AHEAD);
    tokio::spawn(pump(running, encoder, sender));
    let mut response = Response::new(Body::new(Frames(receiver)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Proxies that hold back what they pass on are asked not to.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// Reads the replies to their ends. Returning early drops them, which cancels.
async fn pump(mut running: Vec<Running>, mut encoder: impl Encoder, sender: mpsc::Sender<Bytes>) {
    let mut out = Vec::new();
    encoder.start(&mut out);
    if !send(&sender, &mut out).await {
        return;
    }
    let mut finished: Vec<Option<Finished>> = running.iter().map(|_| None).collect();
    while finished.iter().any(Option::is_none) {
        let (index, piece) = tokio::select! {
            () = sender.closed() => return,
            next = any(&mut running, &finished) => next,
        };
        match piece {
            Ok(Piece::Done(done)) => {
                encoder.done(index, &done, &mut out);
                finished[index] = Some(*done);
            }
            Ok(piece) => encoder.piece(index, piece, &mut out),
            Err(error) => {
                encoder.fail(&error, &mut out);
                send(&sender, &mut out).await;
                return;
            }
        }
        if !send(&sender, &mut out).await {
            return;
        }
    }
    let finished: Vec<Finished> = finished.into_iter().flatten().collect();
    encoder.end(&finished, &mut out);
    send(&sender, &mut out).await;
}

/// The next piece of any reply that has not ended.
async fn any(
    running: &mut [Running],
    finished: &[Option<Finished>],
) -> (usize, Result<Piece, ApiError>) {
    let mut next: Vec<_> = running
        .iter_mut()
        .zip(finished)
        .enumerate()
        .filter(|(_, (_, finished))| finished.is_none())
        .map(|(index, (running, _))| (index, Box::pin(running.next())))
        .collect();
    std::future::poll_fn(|context| {
        for (index, next) in &mut next {
            if let Poll::Ready(piece) = next.as_mut().poll(context) {
                let ended = || Err(ApiError::from(tercel::Error::EngineClosed));
                return Poll::Ready((*index, piece.unwrap_or_else(ended)));
            }
        }
        Poll::Pending
    })
    .await
}

/// Sends what there is; false when nobody is there to read it.
async fn send(sender: &mpsc::Sender<Bytes>, out: &mut Vec<u8>) -> bool {
    out.is_empty() || sender.send(std::mem::take(out).into()).await.is_ok()
}

/// The body: what comes through the channel.
struct Frames(mpsc::Receiver<Bytes>);

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let bytes = self.0.poll_recv(context);
        bytes.map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}
