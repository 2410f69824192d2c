//! Streams that rather lose pieces than wait for their reader (8.2).
//!
//! A bounded queue stands between the reply and the connection. The reply never waits for it; when
//! it is full, its policy says what goes. The reader is told once that something did, how much at
//! the end, and gets the whole text then.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use http_body::Frame;
use tokio::sync::Notify;

use super::lines::{CONTENT_TYPE, Lines};
use crate::app::Shared;
use crate::error::ApiError;
use crate::work::{Piece, Running};

/// Pieces are joined up to so many bytes.
const MAX_CHUNK_BYTES: usize = 1024;

/// What goes when the queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drops {
    /// The piece that has waited longest.
    Oldest,
    /// The piece that comes.
    Newest,
    /// Pieces are joined; only when that makes no room, the one that has waited longest.
    Coalesce,
}

/// A response whose body has what the queue lets through.
pub(super) fn respond(app: &Shared, running: Running, drops: Drops, capacity: usize) -> Response {
    let queue = Arc::new(Queue::new(drops, capacity));
    tokio::spawn(pump(app.clone(), running, Arc::clone(&queue)));
    let mut response = Response::new(Body::new(Reader(queue)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// Reads the reply to its end. Returning early drops it, which cancels.
async fn pump(app: Shared, mut running: Running, queue: Arc<Queue>) {
    let mut last = Vec::new();
    loop {
        let piece = tokio::select! {
            () = queue.gone.notified() => break,
            piece = running.next() => piece,
        };
        match piece {
            Some(Ok(Piece::Text(text))) => queue.push(Kind::Text, text),
            Some(Ok(Piece::Thinking(text))) => queue.push(Kind::Thinking, text),
            Some(Ok(Piece::Call(_) | Piece::Logprobs(_))) => {}
            Some(Ok(Piece::Done(finished))) => {
                Lines::footer(&finished, queue.dropped(), &mut last);
                break;
            }
            Some(Err(error)) => {
                Lines::error(&error, &mut last);
                break;
            }
            None => {
                Lines::error(&ApiError::from(tercel::Error::EngineClosed), &mut last);
                break;
            }
        }
    }
    let dropped = queue.dropped();
    if dropped > 0 {
        app.metrics.dropped(dropped);
    }
    queue.end(last);
}

/// What waits for the reader.
struct Queue {
    drops: Drops,
    capacity: usize,
    state: Mutex<State>,
    /// The reader has gone.
    gone: Notify,
}

#[derive(Default)]
struct State {
    chunks: VecDeque<Chunk>,
    /// Pieces that were dropped.
    dropped: u64,
    /// Whether the reader was told.
    has_warned: bool,
    /// What comes behind the chunks; nothing follows.
    last: Option<Vec<u8>>,
    reader: Option<Waker>,
}

struct Chunk {
    kind: Kind,
    text: String,
    /// Pieces of the reply that it is made of.
    pieces: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Thinking,
}

impl Queue {
    fn new(drops: Drops, capacity: usize) -> Self {
        Self {
            drops,
            capacity: capacity.max(1),
            state: Mutex::default(),
            gone: Notify::new(),
        }
    }

    fn push(&self, kind: Kind, text: String) {
        let mut state = self.lock();
        if state.chunks.len() >= self.capacity && self.drops == Drops::Coalesce {
            state.coalesce();
        }
        if state.chunks.len() >= self.capacity {
            if self.drops == Drops::Newest {
                state.dropped += 1;
                return;
            }
            let oldest = state.chunks.pop_front();
            state.dropped += oldest.map_or(0, |chunk| chunk.pieces);
        }
        state.chunks.push_back(Chunk {
            kind,
            text,
            pieces: 1,
        });
        state.wake();
    }

    /// Puts what ends the stream behind all else.
    fn end(&self, last: Vec<u8>) {
        let mut state = self.lock();
        state.last = Some(last);
        state.wake();
    }

    fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    /// The lines that come next; `None` when there are no more.
    fn poll(&self, context: &Context<'_>) -> Poll<Option<Vec<u8>>> {
        let mut state = self.lock();
        let mut out = Vec::new();
        if state.dropped > 0 && !state.has_warned {
            state.has_warned = true;
            Lines::warning(&mut out);
        }
        if let Some(chunk) = state.chunks.pop_front() {
            match chunk.kind {
                Kind::Text => Lines::delta(&chunk.text, &mut out),
                Kind::Thinking => Lines::thinking(&chunk.text, &mut out),
            }
        } else if let Some(last) = &mut state.last {
            out.append(last);
            if out.is_empty() {
                return Poll::Ready(None);
            }
        }
        if out.is_empty() {
            state.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Some(out))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Joins neighbours as far as they may be.
    fn coalesce(&mut self) {
        let mut joined: VecDeque<Chunk> = VecDeque::with_capacity(self.chunks.len());
        for chunk in self.chunks.drain(..) {
            match joined.back_mut() {
                Some(last)
                    if last.kind == chunk.kind
                        && last.text.len() + chunk.text.len() <= MAX_CHUNK_BYTES =>
                {
                    last.text.push_str(&chunk.text);
                    last.pieces += chunk.pieces;
                }
                _ => joined.push_back(chunk),
            }
        }
        self.chunks = joined;
    }

    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

/// The body. When it is dropped, the client has gone.
struct Reader(Arc<Queue>);

impl http_body::Body for Reader {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let lines = self.0.poll(context);
        lines.map(|lines| lines.map(|lines| Ok(Frame::data(lines.into()))))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.gone.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use serde_json::{Value, json};

    use super::*;

    /// What a reader gets who reads `early` records, then nothing until the reply has ended.
    async fn read_late(drops: Drops, pieces: &[(Kind, String)], early: usize) -> Vec<Value> {
        let queue = Arc::new(Queue::new(drops, 16));
        let mut reader = Reader(Arc::clone(&queue));
        let mut records = Vec::new();
        for (index, (kind, text)) in pieces.iter().enumerate() {
            queue.push(*kind, text.clone());
            if index < early {
                records.extend(next(&mut reader).await);
            }
        }
        let last = format!("{{\"done\":true,\"dropped_count\":{}}}\n", queue.dropped());
        queue.end(last.into_bytes());
        loop {
            let more = next(&mut reader).await;
            if more.is_empty() {
                return records;
            }
            records.extend(more);
        }
    }

    async fn next(reader: &mut Reader) -> Vec<Value> {
        let Some(frame) = reader.frame().await else {
            return Vec::new();
        };
        let bytes = frame.unwrap().into_data().unwrap();
        let lines = std::str::from_utf8(&bytes).unwrap().lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    fn texts(range: std::ops::Range<usize>) -> Vec<(Kind, String)> {
        range.map(|n| (Kind::Text, format!("{n} "))).collect()
    }

    fn joined(records: &[Value], key: &str) -> String {
        records
            .iter()
            .filter_map(|record| record[key].as_str())
            .collect()
    }

    fn numbers(range: std::ops::Range<usize>) -> String {
        range.map(|n| format!("{n} ")).collect()
    }

    const WARNING: &str = r#"{"type":"stream_warning","reason":"dropped_chunks"}"#;

    #[tokio::test]
    async fn a_slow_reader_loses_what_the_policy_says() {
        for (drops, text, dropped) in [
            (
                Drops::Oldest,
                [numbers(0..4), numbers(84..100)].concat(),
                80,
            ),
            (Drops::Newest, numbers(0..20), 80),
            (Drops::Coalesce, numbers(0..100), 0),
        ] {
            let records = read_late(drops, &texts(0..100), 4).await;
            assert_eq!(joined(&records, "delta"), text, "{drops:?}");
            assert_eq!(
                records.last().unwrap(),
                &json!({"done": true, "dropped_count": dropped})
            );
            let warning: Value = serde_json::from_str(WARNING).unwrap();
            let warnings = records.iter().filter(|record| **record == warning).count();
            assert_eq!(warnings, usize::from(dropped > 0), "{drops:?}");
            assert!(records.len() <= 4 + 16 + 2, "{drops:?}: {}", records.len());
        }
    }

    #[tokio::test]
    async fn a_reader_that_keeps_up_loses_nothing() {
        for drops in [Drops::Oldest, Drops::Newest, Drops::Coalesce] {
            let records = read_late(drops, &texts(0..50), 50).await;
            assert_eq!(records.len(), 51, "each piece has a record of its own");
            assert_eq!(joined(&records, "delta"), numbers(0..50));
            assert_eq!(records[50]["dropped_count"], 0);
        }
    }

    #[tokio::test]
    async fn joined_pieces_are_bounded_and_counted_one_by_one() {
        let pieces: Vec<_> = (0..4000).map(|_| (Kind::Text, "x".repeat(20))).collect();
        let records = read_late(Drops::Coalesce, &pieces, 0).await;
        let text = joined(&records, "delta");
        let longest = records.iter().filter_map(|record| record["delta"].as_str());
        assert!(longest.map(str::len).max().unwrap() <= MAX_CHUNK_BYTES);
        let dropped = records.last().unwrap()["dropped_count"].as_u64().unwrap();
        assert!(dropped > 0);
        assert_eq!(u64::try_from(text.len()).unwrap() + dropped * 20, 4000 * 20);
    }

    #[tokio::test]
    async fn thoughts_are_not_joined_with_the_answer() {
        let thought = (0..50).map(|n| (Kind::Thinking, format!("{n} ")));
        let pieces: Vec<_> = thought.chain(texts(0..50)).collect();
        let records = read_late(Drops::Coalesce, &pieces, 0).await;
        assert_eq!(joined(&records, "thinking"), numbers(0..50));
        assert_eq!(joined(&records, "delta"), numbers(0..50));
    }

    #[tokio::test]
    async fn a_waiting_reader_is_woken_and_a_gone_one_noticed() {
        let queue = Arc::new(Queue::new(Drops::Oldest, 16));
        let mut reader = Reader(Arc::clone(&queue));
        let waiting = tokio::spawn(async move {
            let first = next(&mut reader).await;
            (first, next(&mut reader).await, reader)
        });
        tokio::task::yield_now().await;
        queue.push(Kind::Text, "a".to_owned());
        tokio::task::yield_now().await;
        queue.end(b"{\"done\":true}\n".to_vec());
        let (first, second, reader) = waiting.await.unwrap();
        assert_eq!(first, [json!({"delta": "a"})]);
        assert_eq!(second, [json!({"done": true})]);
        drop(reader);
        queue.gone.notified().await;
    }
}
