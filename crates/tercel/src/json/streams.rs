//! Streams of replies that run, by their ids.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use super::error::JsonError;
use super::shapes::{StreamChunk, to_value};
use crate::host::LeaseStream;
use crate::pipe::CancelHandle;
use crate::reply::Event;

/// The chunks of one reply, in order: text, then one with `is_final`, then nothing. An error ends
/// it too.
///
/// `next` blocks until there is a chunk. Dropping it cancels the request.
pub struct JsonStream {
    id: String,
    running: Arc<Running>,
    streams: Arc<Streams>,
}

impl JsonStream {
    /// The id by which `stop_stream` knows it.
    pub fn stream_id(&self) -> &str {
        &self.id
    }
}

impl Iterator for JsonStream {
    type Item = Result<Value, Value>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.running.next();
        if item.is_none() || self.running.is_over() {
            self.streams.forget(&self.id, &self.running);
        }
        item
    }
}

impl Drop for JsonStream {
    fn drop(&mut self) {
        self.running.cancel.cancel();
        self.streams.forget(&self.id, &self.running);
    }
}

impl fmt::Debug for JsonStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JsonStream")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// The streams that run.
#[derive(Default)]
pub(super) struct Streams {
    state: Mutex<Registry>,
}

#[derive(Default)]
struct Registry {
    running: HashMap<String, Arc<Running>>,
    /// Streams that were given an id here.
    named: u64,
}

impl Streams {
    /// Takes a stream up, under its id or a new one.
    pub(super) fn add(
        self: &Arc<Self>,
        id: Option<String>,
        model: &str,
        events: LeaseStream,
    ) -> Result<JsonStream, JsonError> {
        let mut state = self.lock();
        let id = match id {
            Some(id) if state.running.contains_key(&id) => {
                return Err(JsonError::parameter(
                    "stream_id",
                    "is that of a running stream",
                ));
            }
            Some(id) => id,
            None => loop {
                state.named += 1;
                let id = format!("stream-{}", state.named);
                if !state.running.contains_key(&id) {
                    break id;
                }
            },
        };
        let running = Arc::new(Running {
            model: model.to_owned(),
            cancel: events.cancel_handle(),
            chunks: Mutex::new(Chunks {
                events: Some(events),
                ready: VecDeque::new(),
                index: 0,
            }),
        });
        state.running.insert(id.clone(), Arc::clone(&running));
        drop(state);
        Ok(JsonStream {
            id,
            running,
            streams: Arc::clone(self),
        })
    }

    /// Ends a stream: its reader gets a chunk that says so. Whether there is one of this id.
    pub(super) fn stop(&self, id: &str) -> bool {
        let state = self.lock();
        let running = state.running.get(id);
        running.is_some_and(|running| {
            running.cancel.cancel();
            true
        })
    }

    /// Ends all streams of a model, and lets go of the model. Readers still get what there is.
    pub(super) fn stop_all(&self, model: &str) {
        let state = self.lock();
        let all = state.running.values();
        let of_model: Vec<_> = all.filter(|it| it.model == model).cloned().collect();
        drop(state);
        of_model.iter().for_each(|running| running.cancel.cancel());
        of_model.iter().for_each(|running| running.drain());
    }

    /// Forgets a stream, unless its id is another's by now.
    fn forget(&self, id: &str, running: &Arc<Running>) {
        let mut state = self.lock();
        if state
            .running
            .get(id)
            .is_some_and(|it| Arc::ptr_eq(it, running))
        {
            state.running.remove(id);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One stream. Its reader and `stop_all` take events out of it, one at a time.
struct Running {
    model: String,
    cancel: CancelHandle,
    chunks: Mutex<Chunks>,
}

struct Chunks {
    /// There until the end was read; they hold the model.
    events: Option<LeaseStream>,
    /// What was read and not yet given out.
    ready: VecDeque<Result<Value, Value>>,
    index: i64,
}

impl Running {
    fn next(&self) -> Option<Result<Value, Value>> {
        let mut chunks = self.lock();
        while chunks.ready.is_empty() && chunks.read() {}
        chunks.ready.pop_front()
    }

    fn drain(&self) {
        let mut chunks = self.lock();
        while chunks.read() {}
    }

    fn is_over(&self) -> bool {
        let chunks = self.lock();
        chunks.events.is_none() && chunks.ready.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Chunks> {
        self.chunks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Chunks {
    /// Reads one event; whether there may be more.
    fn read(&mut self) -> bool {
        let event = self.events.as_mut().and_then(Iterator::next);
        let (chunk, is_end) = match event {
            Some(Ok(Event::Delta { text, .. })) => {
                let chunk = to_value(&StreamChunk::text(self.index, &text));
                self.index += 1;
                (Some(Ok(chunk)), false)
            }
            Some(Ok(Event::Done(reply))) => (
                Some(Ok(to_value(&StreamChunk::last(self.index, &reply)))),
                true,
            ),
            // Nothing of a thought, and a runner has no tools.
            Some(Ok(_)) => (None, false),
            Some(Err(error)) => (Some(Err(JsonError::from(error).into_value())), true),
            None => (None, true),
        };
        self.ready.extend(chunk);
        if is_end {
            self.events = None;
        }
        !is_end
    }
}
