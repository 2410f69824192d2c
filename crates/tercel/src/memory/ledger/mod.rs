//! Who holds how much memory: the engines of a process share a ledger, and what does not fit waits
//! or is refused before anything is allocated.
//!
//! A [`Ticket`] says how much its holder is about to take; a [`Policy`] says which tickets fit
//! together and what limit follows from them. Tickets of one group start in the order they came.

mod cancellation;
mod events;
mod policy;
mod state;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use serde::Serialize;

pub use cancellation::Cancellation;
pub use events::{Event, EventKind, Events};
pub use policy::Policy;

use super::breakdown::{Breakdown, mebibytes};
use events::Subscriber;
use state::{Entry, Standing, State};

/// A ledger. Clones share it; it may be used from any thread.
#[derive(Clone)]
pub struct Ledger(Arc<Shared>);

/// How a [`Ledger`] is made.
#[non_exhaustive]
pub struct LedgerOptions {
    /// What the process holds besides tickets, in bytes; by default measured when the first ticket
    /// comes, and 0 where the system does not tell.
    pub baseline_bytes: Option<u64>,
    /// What the machine lends the process, the baseline included: the cap of policies without one.
    /// By default measured when the first ticket comes; without a figure such policies admit all.
    pub lent_bytes: Option<u64>,
    /// The share of the limit by which a lower one must be lower to come into force while tickets
    /// are active: 0 to 1, by default 0.25.
    pub shrink_threshold_ratio: f64,
    /// The least time between a change of the limit and a lower one while tickets are active, by
    /// default 1 s.
    pub shrink_cooldown: Duration,
    /// Puts a limit into force, or says why not. Called while the ledger is locked: it must not use
    /// the ledger. Without one, limits are only computed.
    pub on_limit: Option<OnLimit>,
}

/// See [`LedgerOptions::on_limit`].
pub type OnLimit = Box<dyn FnMut(u64) -> Result<(), String> + Send>;

impl Default for LedgerOptions {
    fn default() -> Self {
        Self {
            baseline_bytes: None,
            lent_bytes: None,
            shrink_threshold_ratio: 0.25,
            shrink_cooldown: Duration::from_secs(1),
            on_limit: None,
        }
    }
}

impl fmt::Debug for LedgerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LedgerOptions")
            .field("baseline_bytes", &self.baseline_bytes)
            .field("lent_bytes", &self.lent_bytes)
            .field("shrink_threshold_ratio", &self.shrink_threshold_ratio)
            .field("shrink_cooldown", &self.shrink_cooldown)
            .finish_non_exhaustive()
    }
}

/// What a ticket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Work: the limit follows it.
    Active,
    /// Memory that is kept, such as weights: it counts for admission, but the limit is raised for
    /// it only while a ticket of the same ledger is active.
    Reservation,
}

/// The number of a ticket in its ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct TicketId(pub u64);

/// A ticket that has started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Holder {
    /// Its number.
    pub ticket: TicketId,
    /// The name it was given, such as that of a model; may be empty.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// What it is for.
    pub kind: Kind,
    /// The name of its policy.
    pub policy: String,
}

/// A ledger at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Snapshot {
    /// What the process held before the first ticket; `None` without tickets.
    pub baseline_bytes: Option<u64>,
    /// The limit that holds; `None` where no ticket has raised it.
    pub limit_bytes: Option<u64>,
    /// Who holds what, the oldest first.
    pub holders: Vec<Holder>,
    /// How many tickets wait.
    pub waiting: usize,
}

/// Why a ticket does not fit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Refusal {
    /// What it asked for.
    pub needed_bytes: u64,
    /// What the process holds besides tickets.
    pub baseline_bytes: u64,
    /// The most that the policy allows in all.
    pub cap_bytes: Option<u64>,
    /// Whether it would fit if nobody else of its group held anything.
    pub could_ever_fit: bool,
    /// Who holds what, the oldest first.
    pub holders: Vec<Holder>,
    /// How many tickets wait.
    pub waiting: usize,
}

impl Refusal {
    /// What the policy leaves to others than the holders; 0 where that is not known.
    pub fn left_bytes(&self) -> u64 {
        let held: u64 = self.holders.iter().map(|holder| holder.bytes).sum();
        let cap = self.cap_bytes.unwrap_or(0);
        cap.saturating_sub(self.baseline_bytes).saturating_sub(held)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let needed = mebibytes(self.needed_bytes);
        write!(f, "{needed} MB are needed")?;
        if let Some(cap) = self.cap_bytes {
            let baseline = mebibytes(self.baseline_bytes);
            write!(f, ", {} MB are allowed in all, {baseline} MB", cap >> 20)?;
            f.write_str(" are held by the process itself")?;
        }
        for holder in &self.holders {
            let name = match holder.name.as_str() {
                "" => "an engine",
                name => name,
            };
            write!(f, ", {} MB by {name}", mebibytes(holder.bytes))?;
        }
        match self.waiting {
            0 => Ok(()),
            waiting => write!(f, "; {waiting} wait already"),
        }
    }
}

/// Why a ticket has not started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdmissionError {
    /// It does not fit, and nobody wanted to wait or waiting would not help.
    #[error("too little memory: {refusal}")]
    Refused {
        /// What stands in its way.
        refusal: Box<Refusal>,
        /// What it was for, part by part; empty where that was not said.
        needed: Breakdown,
    },
    /// Whoever waited wants it no more.
    #[error("cancelled while waiting for memory")]
    Cancelled,
}

impl AdmissionError {
    /// A stable code in snake case.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "insufficient_memory",
            Self::Cancelled => "cancelled",
        }
    }

    /// What was needed as a table, and who holds the rest; empty for a cancelled ticket.
    pub fn table(&self) -> String {
        let Self::Refused { refusal, needed } = self else {
            return String::new();
        };
        let mut held = Breakdown::new().with("the process itself", refusal.baseline_bytes);
        for holder in &refusal.holders {
            held = held.with(holder.name.clone(), holder.bytes);
        }
        format!("needed\n{needed}\nheld\n{held}")
    }
}

impl Ledger {
    /// A ledger of its own.
    pub fn new(options: LedgerOptions) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::new(State::new(options)),
        }))
    }

    /// The ledger that the engines of this process share unless they are given another.
    pub fn process() -> &'static Self {
        static PROCESS: OnceLock<Ledger> = OnceLock::new();
        PROCESS.get_or_init(|| Self::new(LedgerOptions::default()))
    }

    /// A ticket for `bytes`. It counts from its start on.
    pub fn ticket(&self, policy: Policy, bytes: u64, kind: Kind) -> Ticket {
        let id = self.0.lock().next_id();
        Ticket {
            ledger: self.clone(),
            id,
            entry: Entry {
                policy,
                bytes,
                kind,
                name: String::new(),
            },
            needed: Breakdown::new(),
        }
    }

    /// A ticket for what an engine is about to allocate, started at once.
    ///
    /// # Errors
    /// [`AdmissionError::Refused`] with the parts of `needed` and the holders of the rest.
    pub fn try_admit(
        &self,
        policy: Policy,
        needed: Breakdown,
        name: impl Into<String>,
    ) -> Result<Ticket, AdmissionError> {
        let mut ticket = self.of_breakdown(policy, needed, name);
        ticket.try_start()?;
        Ok(ticket)
    }

    /// As [`try_admit`](Self::try_admit), but waits until there is room.
    ///
    /// # Errors
    /// [`AdmissionError::Refused`] when it could never fit, [`AdmissionError::Cancelled`].
    pub fn admit(
        &self,
        policy: Policy,
        needed: Breakdown,
        name: impl Into<String>,
        cancel: &Cancellation,
    ) -> Result<Ticket, AdmissionError> {
        let mut ticket = self.of_breakdown(policy, needed, name);
        ticket.start(cancel)?;
        Ok(ticket)
    }

    /// Who holds what now.
    pub fn snapshot(&self) -> Snapshot {
        let state = self.0.lock();
        Snapshot {
            baseline_bytes: state.baseline_bytes(),
            limit_bytes: state.limit(),
            holders: state.holders(),
            waiting: state.waiting(),
        }
    }

    /// The events from now on. At most `capacity` (at least 1) are kept for who takes them late.
    pub fn events(&self, capacity: usize) -> Events {
        let (subscriber, events) = Subscriber::pair(capacity);
        self.0.lock().subscribe(subscriber);
        events
    }

    fn of_breakdown(&self, policy: Policy, needed: Breakdown, name: impl Into<String>) -> Ticket {
        let ticket = self.ticket(policy, needed.total_bytes(), Kind::Active);
        let mut ticket = ticket.named(name);
        ticket.needed = needed;
        ticket
    }
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new(LedgerOptions::default())
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ledger").field(&self.snapshot()).finish()
    }
}

/// A promise of memory. It counts between its start and its end; dropping it ends it.
///
/// Drop it after the memory it stands for: whoever waits for it starts at once.
#[must_use = "a ticket counts only while it is kept"]
pub struct Ticket {
    ledger: Ledger,
    id: TicketId,
    entry: Entry,
    needed: Breakdown,
}

impl Ticket {
    /// With a name for messages, such as that of a model.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.entry.name = name.into();
        self
    }

    /// Starts, after all tickets of its group that wait already; waits until there is room. Gives
    /// the limit that holds then. A ticket that has started is left as it is.
    ///
    /// # Errors
    /// [`AdmissionError::Refused`] when it would not fit even alone, [`AdmissionError::Cancelled`].
    pub fn start(&mut self, cancel: &Cancellation) -> Result<u64, AdmissionError> {
        let shared = Arc::clone(&self.ledger.0);
        let mut state = shared.lock();
        'again: loop {
            match state.try_start(self.id, &self.entry) {
                Ok(()) => return Ok(self.limit(&state)),
                Err(refusal) if !refusal.could_ever_fit => {
                    return Err(self.refused(&mut state, refusal));
                }
                Err(_) => {}
            }
            let wake = state.wait(self.id, &self.entry);
            cancel.wakes(&shared, &wake);
            loop {
                match state.standing(self.id) {
                    Standing::Held => return Ok(self.limit(&state)),
                    // Alone now, and still too large for what the machine lends.
                    Standing::Neither => continue 'again,
                    Standing::Waiting if cancel.is_cancelled() => {
                        state.cancel(self.id, &self.entry);
                        return Err(AdmissionError::Cancelled);
                    }
                    Standing::Waiting => {}
                }
                state = match cancel.poll_interval() {
                    None => wake.0.wait(state).unwrap_or_else(PoisonError::into_inner),
                    Some(interval) => {
                        let waited = wake.0.wait_timeout(state, interval);
                        waited.unwrap_or_else(PoisonError::into_inner).0
                    }
                };
            }
        }
    }

    /// Starts if there is room and nobody of its group waits; gives the limit that holds then.
    ///
    /// # Errors
    /// [`AdmissionError::Refused`].
    pub fn try_start(&mut self) -> Result<u64, AdmissionError> {
        let shared = Arc::clone(&self.ledger.0);
        let mut state = shared.lock();
        match state.try_start(self.id, &self.entry) {
            Ok(()) => Ok(self.limit(&state)),
            Err(refusal) => Err(self.refused(&mut state, refusal)),
        }
    }

    /// Counts no more; tickets that wait may start. A ticket that has not started is left as it is,
    /// and one that has ended may start again.
    pub fn end(&mut self) {
        self.ledger.0.lock().end(self.id, &self.entry);
    }

    /// Whether it counts now.
    pub fn is_started(&self) -> bool {
        let state = self.ledger.0.lock();
        matches!(state.standing(self.id), Standing::Held)
    }

    /// Its number.
    pub fn id(&self) -> TicketId {
        self.id
    }

    /// Its size.
    pub fn bytes(&self) -> u64 {
        self.entry.bytes
    }

    /// What it is for, part by part; empty where that was not said.
    pub fn needed(&self) -> &Breakdown {
        &self.needed
    }

    fn limit(&self, state: &MutexGuard<'_, State>) -> u64 {
        let baseline = state.baseline_bytes().unwrap_or(0);
        state.limit().unwrap_or(baseline)
    }

    fn refused(&self, state: &mut MutexGuard<'_, State>, refusal: Refusal) -> AdmissionError {
        state.refuse(self.id, &self.entry);
        AdmissionError::Refused {
            refusal: Box::new(refusal),
            needed: self.needed.clone(),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.ledger.0.lock();
        match state.standing(self.id) {
            Standing::Held => state.end(self.id, &self.entry),
            // A question of the caller's panicked while the ticket waited.
            Standing::Waiting => state.cancel(self.id, &self.entry),
            Standing::Neither => {}
        }
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("id", &self.id)
            .field("name", &self.entry.name)
            .field("bytes", &self.entry.bytes)
            .field("kind", &self.entry.kind)
            .field("policy", &self.entry.policy)
            .finish_non_exhaustive()
    }
}

struct Shared {
    state: Mutex<State>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Only a hook of the caller's may panic in there, and the books are whole whenever it is
        // called.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
