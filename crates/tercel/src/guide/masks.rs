//! The thread that computes masks.

use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

use tercel_text::grammar::{Constraint, GrammarError, Mask};

/// Patterns are worked on in as deep calls as they nest.
const STACK_BYTES: usize = 16 << 20;

/// Where masks are computed. The thread ends with the last clone.
#[derive(Clone)]
pub(crate) struct Masks(Option<Sender<Work>>);

struct Work {
    constraint: Box<Constraint>,
    done: SyncSender<Done>,
}

type Done = (Box<Constraint>, Result<Mask, GrammarError>);

/// A mask that is being computed.
pub(crate) struct Pending(Receiver<Done>);

impl Masks {
    /// Where the system gives no thread, masks are computed when they are needed.
    pub(crate) fn start() -> Self {
        let (sender, works) = channel::<Work>();
        let thread = thread::Builder::new()
            .name("tercel-masks".to_owned())
            .stack_size(STACK_BYTES);
        let started = thread.spawn(move || {
            for Work {
                mut constraint,
                done,
            } in works
            {
                let mask = constraint.mask();
                // A reply that has ended needs no mask.
                let _ = done.send((constraint, mask));
            }
        });
        Self(started.is_ok().then_some(sender))
    }

    /// Begins to compute what may come next; gives the constraint back where nobody can.
    pub(super) fn begin(&self, constraint: Box<Constraint>) -> Result<Pending, Box<Constraint>> {
        let Some(sender) = &self.0 else {
            return Err(constraint);
        };
        let (done, pending) = sync_channel(1);
        match sender.send(Work { constraint, done }) {
            Ok(()) => Ok(Pending(pending)),
            Err(refused) => Err(refused.0.constraint),
        }
    }
}

impl Pending {
    /// The constraint and its mask; `None` where the thread has ended.
    pub(super) fn wait(self) -> Option<Done> {
        self.0.recv().ok()
    }
}
