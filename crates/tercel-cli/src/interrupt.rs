//! Ctrl-C.

use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tercel::CancelHandle;

use crate::output::stderr_line;

/// What Ctrl-C does: the first time it cancels the reply or asks the command to end, the second
/// time it ends the process. In a chat it only ever ends the reply.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt(Arc<State>);

#[derive(Debug, Default)]
struct State {
    reply: Mutex<Option<CancelHandle>>,
    hit: AtomicBool,
    chat: AtomicBool,
}

impl Interrupt {
    /// Takes Ctrl-C over for the whole process.
    pub(crate) fn install() -> Self {
        let state = Arc::new(State::default());
        let of_handler = Arc::clone(&state);
        if let Err(error) = ctrlc::set_handler(move || of_handler.on_signal()) {
            // Ctrl-C then ends the process at once, which is still safe.
            stderr_line(&format!("note: Ctrl-C cannot be handled: {error}"));
        }
        Self(state)
    }

    /// Whether Ctrl-C was pressed since the last [`Interrupt::clear`].
    pub(crate) fn is_hit(&self) -> bool {
        self.0.hit.load(Ordering::Acquire)
    }

    /// Forgets an earlier Ctrl-C.
    pub(crate) fn clear(&self) {
        self.0.hit.store(false, Ordering::Release);
    }

    /// From now on Ctrl-C ends a reply, never the process.
    pub(crate) fn keep_process(&self) {
        self.0.chat.store(true, Ordering::Release);
    }

    /// Lets Ctrl-C cancel a reply for as long as the guard lives.
    pub(crate) fn cancels(&self, reply: CancelHandle) -> ReplyGuard<'_> {
        self.0.set_reply(Some(reply));
        // After, so that a signal in between is not lost.
        if self.is_hit() {
            self.0.cancel_reply();
        }
        ReplyGuard(&self.0)
    }
}

/// See [`Interrupt::cancels`].
#[must_use]
pub(crate) struct ReplyGuard<'a>(&'a State);

impl Drop for ReplyGuard<'_> {
    fn drop(&mut self) {
        self.0.set_reply(None);
    }
}

impl State {
    fn on_signal(&self) {
        if self.hit.swap(true, Ordering::AcqRel) && !self.chat.load(Ordering::Acquire) {
            process::exit(130);
        }
        self.cancel_reply();
    }

    fn cancel_reply(&self) {
        let reply = self.reply.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reply) = &*reply {
            reply.cancel();
        }
    }

    fn set_reply(&self, reply: Option<CancelHandle>) {
        *self.reply.lock().unwrap_or_else(PoisonError::into_inner) = reply;
    }
}
