//! How far a fetch is, told in lines.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use futures_core::Stream;
use serde::Serialize;
use tercel::Progress;
use tercel::source::Phase;
use tokio::sync::{mpsc, watch};
use utoipa::ToSchema;

use super::error::OllamaError;
use super::fetches::State;
use super::record::{NDJSON, line};
use crate::error::ApiError;

/// How far a fetch is.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = ollama::PullStatus)]
pub(super) struct PullStatus {
    /// In words; `success` at the end.
    status: String,
    /// What is fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    /// Bytes of it, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<u64>,
    /// Bytes that are there.
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<u64>,
}

/// The lines of a fetch, as they come. What fails at once fails with its status.
pub(super) async fn stream(
    mut receiver: watch::Receiver<State>,
    digest: String,
) -> Result<Response, ApiError> {
    let has_news = |state: &State| state.at.is_some() || state.ended.is_some();
    let failed = match receiver.wait_for(has_news).await {
        Ok(state) => state.ended.clone().and_then(Result::err),
        Err(_) => Some(vanished()),
    };
    if let Some(error) = failed {
        return Err(error);
    }
    let (sender, lines) = mpsc::channel(LINES_AHEAD);
    tokio::spawn(pump(receiver, Lines::new(digest), sender));
    let mut response = Response::new(Body::from_stream(Chunks(lines)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(NDJSON));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

const LINES_AHEAD: usize = 4;

/// Sends what changes, until the end or until nobody reads it. A slow reader misses steps, since
/// only the last state is kept for it, but no note and no end.
async fn pump(mut receiver: watch::Receiver<State>, mut lines: Lines, sender: mpsc::Sender<Bytes>) {
    loop {
        let state = receiver.borrow_and_update().clone();
        let mut out = Vec::new();
        lines.of(&state, &mut out);
        // A progress without news has no lines.
        if !out.is_empty() && sender.send(out.into()).await.is_err() {
            return;
        }
        if state.ended.is_some() {
            return;
        }
        let changed = tokio::select! {
            () = sender.closed() => return,
            changed = receiver.changed() => changed,
        };
        if changed.is_err() {
            let mut out = Vec::new();
            line(&OllamaError::from(&vanished()), &mut out);
            // Whether or not somebody reads it, this is the end.
            let _ = sender.send(out.into()).await;
            return;
        }
    }
}

/// Makes lines of the states of one fetch.
struct Lines {
    digest: String,
    has_begun: bool,
    /// Notes that were told.
    notes: usize,
    last: Option<PullStatus>,
}

impl Lines {
    fn new(digest: String) -> Self {
        Self {
            digest,
            has_begun: false,
            notes: 0,
            last: None,
        }
    }

    fn of(&mut self, state: &State, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.has_begun, true) {
            line(&PullStatus::new("pulling manifest"), out);
        }
        for note in state.notes.iter().skip(self.notes) {
            line(&PullStatus::new(note.clone()), out);
        }
        self.notes = state.notes.len();
        if let Some(progress) = &state.at {
            let status = self.status(progress);
            if self.last.as_ref() != Some(&status) {
                line(&status, out);
                self.last = Some(status);
            }
        }
        match &state.ended {
            None => {}
            Some(Ok(())) => line(&PullStatus::new("success"), out),
            Some(Err(error)) => line(&OllamaError::from(error), out),
        }
    }

    fn status(&self, progress: &Progress) -> PullStatus {
        let what = match progress.phase {
            Phase::Downloading => "pulling",
            _ => "verifying",
        };
        PullStatus {
            status: format!("{what} {}", progress.model),
            digest: Some(self.digest.clone()),
            total: progress.total_bytes,
            completed: Some(progress.done_bytes),
        }
    }
}

impl PullStatus {
    pub(super) fn new(status: impl Into<String>) -> Self {
        Self {
            status: status.into(),
            digest: None,
            total: None,
            completed: None,
        }
    }
}

/// The body: what comes through the channel.
struct Chunks(mpsc::Receiver<Bytes>);

impl Stream for Chunks {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|bytes| bytes.map(Ok))
    }
}

/// A fetch that ended without a word.
pub(super) fn vanished() -> ApiError {
    ApiError::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "internal",
        "the fetch stopped",
    )
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn progress(phase: Phase, done_bytes: u64, total_bytes: Option<u64>) -> Progress {
        Progress {
            phase,
            fraction: 0.1,
            model: "smollm2:135m".to_owned(),
            done_bytes,
            total_bytes,
            note: None,
        }
    }

    #[test]
    fn states_become_lines_that_end_in_success() {
        let mut lines = Lines::new("sha256:aa".to_owned());
        let mut state = State::default();
        let mut out = Vec::new();
        lines.of(&state, &mut out);
        state.notes.push("slow".to_owned());
        state.at = Some(progress(Phase::Downloading, 5, Some(10)));
        lines.of(&state, &mut out);
        lines.of(&state, &mut out);
        state.at = Some(progress(Phase::Extracting, 1, None));
        state.ended = Some(Ok(()));
        lines.of(&state, &mut out);
        let text = String::from_utf8(out).expect("text");
        let told: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        let expected = [
            json!({"status": "pulling manifest"}),
            json!({"status": "slow"}),
            json!({
                "status": "pulling smollm2:135m",
                "digest": "sha256:aa",
                "total": 10,
                "completed": 5,
            }),
            json!({"status": "verifying smollm2:135m", "digest": "sha256:aa", "completed": 1}),
            json!({"status": "success"}),
        ];
        assert_eq!(told, expected);
    }
}
