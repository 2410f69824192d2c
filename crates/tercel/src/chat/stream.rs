//! A turn as it comes.

use std::collections::VecDeque;
use std::sync::Arc;

use super::turns::Undo;
use super::{Chat, Said};
use crate::error::Error;
use crate::pipe::{CancelHandle, Series};
use crate::reply::{Event, Reply, StopReason};
use crate::stream::Stream;

/// The events of one turn, as [`Stream`] gives them.
///
/// On [`Event::Done`] the reply enters the history. Dropped earlier, the stream cancels the turn,
/// and what was read of the reply enters the history.
///
/// Where the chat has tools, what is called is run by the thread that reads, and comes as
/// [`Event::ToolResult`] between the replies, of which only the last one is told by
/// [`Event::Done`].
#[derive(Debug)]
pub struct ChatStream<'a> {
    chat: &'a mut Chat,
    stream: Stream,
    /// The replies of the turn, which are cancelled as one.
    series: Arc<Series>,
    /// How many of them called tools.
    rounds: usize,
    /// What tools returned and was not told yet.
    results: VecDeque<Event>,
    /// What was read so far.
    said: Said,
    /// How to take the turn back, until it has ended.
    undo: Option<Undo>,
}

impl<'a> ChatStream<'a> {
    pub(super) fn new(chat: &'a mut Chat, stream: Stream, undo: Undo) -> Self {
        Self {
            chat,
            series: Series::new(stream.cancel_handle()),
            stream,
            rounds: 0,
            results: VecDeque::new(),
            said: Said::default(),
            undo: Some(undo),
        }
    }

    /// See [`Stream::cancel`].
    pub fn cancel(&self) {
        self.cancel_handle().cancel();
    }

    /// See [`Stream::cancel_handle`]. It holds for the whole turn; a tool that runs is not stopped.
    pub fn cancel_handle(&self) -> CancelHandle {
        self.series.cancel_handle()
    }

    /// Reads to the end and gives the reply.
    ///
    /// # Errors
    /// The error that ended the turn; [`Error::EngineClosed`] if the end was read before.
    pub fn wait(mut self) -> Result<Reply, Error> {
        for event in &mut self {
            if let Event::Done(reply) = event? {
                return Ok(reply);
            }
        }
        Err(Error::EngineClosed)
    }

    fn end(&mut self, said: Said, complete: bool) {
        if let Some(undo) = self.undo.take() {
            self.chat.end(said, complete, undo);
        }
    }

    /// Runs what a reply calls, and has the model go on. Gives the reply back where the turn was
    /// cancelled.
    fn go_on(&mut self, mut reply: Reply) -> Result<Option<Reply>, Error> {
        self.said = Said::default();
        let series = Arc::clone(&self.series);
        let Some(results) = self.chat.run_tools(&reply, || series.is_cancelled()) else {
            reply.stop_reason = StopReason::Cancelled;
            return Ok(Some(reply));
        };
        self.rounds += 1;
        self.stream = self.chat.engine.stream(self.chat.request(self.rounds))?;
        self.series.go_on(self.stream.cancel_handle());
        self.results = results.into();
        Ok(None)
    }
}

impl Iterator for ChatStream<'_> {
    type Item = Result<Event, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(result) = self.results.pop_front() {
            return Some(Ok(result));
        }
        let event = match self.stream.next() {
            Some(Ok(Event::Done(reply))) if self.chat.is_to_go_on(&reply) => {
                match self.go_on(reply) {
                    Ok(None) => return self.next(),
                    Ok(Some(reply)) => Some(Ok(Event::Done(reply))),
                    Err(error) => Some(Err(error)),
                }
            }
            event => event,
        };
        match &event {
            Some(Ok(Event::Thinking { text, .. })) => {
                self.said.thought.get_or_insert_default().push_str(text);
            }
            Some(Ok(Event::Delta { text, .. })) => self.said.text.push_str(text),
            Some(Ok(Event::Done(reply))) => {
                self.end(Said::of(reply), Chat::is_complete(reply));
            }
            // Calls are told whole at the end, and a chat asks for nothing else.
            Some(Ok(_)) => {}
            Some(Err(_)) | None => self.end(Said::default(), false),
        }
        event
    }
}

impl Drop for ChatStream<'_> {
    fn drop(&mut self) {
        let said = std::mem::take(&mut self.said);
        self.end(said, false);
    }
}
