//! What happens in a ledger, for whoever watches.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::TicketId;

/// Something that happened in a [`Ledger`](super::Ledger).
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Event {
    /// The number of the event in its ledger, from 1; a gap means that some were dropped.
    pub sequence: u64,
    /// What happened.
    pub kind: EventKind,
    /// The ticket it happened to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ticket: Option<TicketId>,
    /// The size of that ticket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// The name of its policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// The baseline, while there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline_bytes: Option<u64>,
    /// The limit that was computed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desired_limit_bytes: Option<u64>,
    /// The limit that holds now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_bytes: Option<u64>,
    /// Tickets that have started, reservations included.
    pub tickets: usize,
    /// Tickets that wait.
    pub waiting: usize,
    /// When.
    #[serde(skip)]
    pub at: SystemTime,
}

/// The kinds of [`Event`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EventKind {
    /// The first ticket came: what the process held before it is noted.
    BaselineCaptured,
    /// A ticket does not fit yet.
    AdmissionWait,
    /// A ticket fits.
    AdmissionGranted,
    /// A ticket that waited does no more.
    AdmissionCancelled,
    /// A ticket could never fit, or nobody wanted to wait for it.
    AdmissionRefused,
    /// A ticket counts from now on.
    TicketStarted,
    /// A ticket that had started was started again.
    TicketStartIgnored,
    /// A ticket counts no more.
    TicketEnded,
    /// A ticket that had not started was ended.
    TicketEndIgnored,
    /// The policies gave a limit.
    LimitComputed,
    /// The limit holds.
    LimitApplied,
    /// The limit is lower than the one that holds, but not by enough, or too soon after the last
    /// change.
    LimitHeld,
    /// Whoever puts limits into force said no; the old one holds.
    LimitApplyFailed,
    /// No active ticket is left: the baseline holds again.
    BaselineRestored,
}

/// A subscription to the events of a ledger: those from its start on, the oldest first.
///
/// It holds a bounded number of events. When nobody takes them, later ones are dropped and counted:
/// the ledger never waits.
#[derive(Debug)]
pub struct Events {
    receiver: Receiver<Event>,
    dropped: Arc<AtomicU64>,
}

impl Events {
    /// The next event, if there is one now.
    pub fn try_next(&self) -> Option<Event> {
        self.receiver.try_recv().ok()
    }

    /// Waits for the next event, at most so long. `None` also when the ledger is gone.
    pub fn next_within(&self, most: Duration) -> Option<Event> {
        self.receiver.recv_timeout(most).ok()
    }

    /// How many events were dropped because nobody took the ones before them.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// Waits for each event, until the ledger is gone.
impl Iterator for Events {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        self.receiver.recv().ok()
    }
}

/// The ledger's end of a subscription.
pub(super) struct Subscriber {
    sender: SyncSender<Event>,
    dropped: Arc<AtomicU64>,
}

impl Subscriber {
    pub(super) fn pair(capacity: usize) -> (Self, Events) {
        let (sender, receiver) = sync_channel(capacity.max(1));
        let dropped = Arc::<AtomicU64>::default();
        let events = Events {
            receiver,
            dropped: Arc::clone(&dropped),
        };
        (Self { sender, dropped }, events)
    }

    /// Passes an event on; false when nobody listens any more.
    pub(super) fn tell(&self, event: &Event) -> bool {
        match self.sender.try_send(event.clone()) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                true
            }
            Err(TrySendError::Disconnected(_)) => false,
        }
    }
}
