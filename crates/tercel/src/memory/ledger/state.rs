//! The books: who holds what, who waits, and the limit that follows.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Condvar};
use std::time::{Instant, SystemTime};

use super::events::Subscriber;
use super::policy::Group;
use super::{Event, EventKind, Holder, Kind, LedgerOptions, Policy, Refusal, TicketId};
use crate::machine;
use crate::memory::measure::measure;

/// Everything behind the lock of a ledger.
pub(super) struct State {
    options: LedgerOptions,
    baseline: Option<Baseline>,
    /// By number, so by age.
    held: BTreeMap<TicketId, Entry>,
    waiting: VecDeque<Waiter>,
    /// The limit that holds, from the first active ticket until the last of all has ended.
    limit: Option<u64>,
    /// When it last changed.
    changed: Option<Instant>,
    last_id: u64,
    sequence: u64,
    subscribers: Vec<Subscriber>,
}

/// What there was before the first ticket.
#[derive(Clone, Copy)]
struct Baseline {
    bytes: u64,
    /// What the machine lends the process, those bytes included.
    lent: Option<u64>,
}

/// What a ticket asks for.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) policy: Policy,
    pub(super) bytes: u64,
    pub(super) kind: Kind,
    pub(super) name: String,
}

struct Waiter {
    ticket: TicketId,
    entry: Entry,
    wake: Arc<Wake>,
}

/// Wakes the one thread that waits with a ticket.
#[derive(Default)]
pub(super) struct Wake(pub(super) Condvar);

/// How a ticket stands.
pub(super) enum Standing {
    Held,
    Waiting,
    Neither,
}

impl State {
    pub(super) fn new(options: LedgerOptions) -> Self {
        Self {
            options,
            baseline: None,
            held: BTreeMap::new(),
            waiting: VecDeque::new(),
            limit: None,
            changed: None,
            last_id: 0,
            sequence: 0,
            subscribers: Vec::new(),
        }
    }

    pub(super) fn next_id(&mut self) -> TicketId {
        self.last_id += 1;
        TicketId(self.last_id)
    }

    pub(super) fn subscribe(&mut self, subscriber: Subscriber) {
        self.subscribers.push(subscriber);
    }

    pub(super) fn standing(&self, ticket: TicketId) -> Standing {
        if self.held.contains_key(&ticket) {
            Standing::Held
        } else if self.waiting.iter().any(|waiter| waiter.ticket == ticket) {
            Standing::Waiting
        } else {
            Standing::Neither
        }
    }

    pub(super) fn limit(&self) -> Option<u64> {
        self.limit
    }

    pub(super) fn baseline_bytes(&self) -> Option<u64> {
        self.baseline.map(|baseline| baseline.bytes)
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Who holds what, the oldest first.
    pub(super) fn holders(&self) -> Vec<Holder> {
        let holder = |(ticket, entry): (&TicketId, &Entry)| Holder {
            ticket: *ticket,
            name: entry.name.clone(),
            bytes: entry.bytes,
            kind: entry.kind,
            policy: entry.policy.to_string(),
        };
        self.held.iter().map(holder).collect()
    }

    /// Starts a ticket that fits, before all others of its group that wait.
    ///
    /// # Errors
    /// What stands in its way; nothing has changed then.
    pub(super) fn try_start(&mut self, ticket: TicketId, entry: &Entry) -> Result<(), Refusal> {
        if self.held.contains_key(&ticket) {
            self.tell(EventKind::TicketStartIgnored, Some((ticket, entry)));
            return Ok(());
        }
        let baseline = self.capture_baseline();
        let group = entry.policy.group();
        let queued = self
            .waiting
            .iter()
            .any(|waiter| waiter.entry.policy.group() == group);
        let fits = |sizes: &[u64]| {
            entry
                .policy
                .admits(baseline.bytes, baseline.lent, sizes, entry.bytes)
        };
        if !queued && fits(&self.sizes(&group)) {
            self.start(ticket, entry);
            return Ok(());
        }
        let refusal = Refusal {
            needed_bytes: entry.bytes,
            baseline_bytes: baseline.bytes,
            cap_bytes: entry.policy.cap(baseline.lent),
            could_ever_fit: fits(&[]),
            holders: self.holders(),
            waiting: self.waiting.len(),
        };
        self.give_up_idle_baseline();
        Err(refusal)
    }

    /// Notes that nobody waits for a ticket that did not fit.
    pub(super) fn refuse(&mut self, ticket: TicketId, entry: &Entry) {
        self.tell(EventKind::AdmissionRefused, Some((ticket, entry)));
    }

    /// Puts a ticket at the end of the queue.
    pub(super) fn wait(&mut self, ticket: TicketId, entry: &Entry) -> Arc<Wake> {
        let wake = Arc::<Wake>::default();
        self.waiting.push_back(Waiter {
            ticket,
            entry: entry.clone(),
            wake: Arc::clone(&wake),
        });
        self.tell(EventKind::AdmissionWait, Some((ticket, entry)));
        wake
    }

    /// Takes a ticket out of the queue; those behind it may have waited for it alone.
    pub(super) fn cancel(&mut self, ticket: TicketId, entry: &Entry) {
        self.waiting.retain(|waiter| waiter.ticket != ticket);
        self.tell(EventKind::AdmissionCancelled, Some((ticket, entry)));
        self.admit_waiting();
        self.give_up_idle_baseline();
    }

    /// Ends a ticket, and lets those start that fit now.
    pub(super) fn end(&mut self, ticket: TicketId, entry: &Entry) {
        let Some(ended) = self.held.remove(&ticket) else {
            self.tell(EventKind::TicketEndIgnored, Some((ticket, entry)));
            return;
        };
        self.tell(EventKind::TicketEnded, Some((ticket, &ended)));
        self.apply_limit();
        self.admit_waiting();
        self.give_up_idle_baseline();
    }

    /// Lets tickets start in the order they came. One that does not fit holds up those of its own
    /// group behind it, so that small ones cannot keep a large one waiting for ever.
    fn admit_waiting(&mut self) {
        let mut blocked = BTreeSet::<Group>::new();
        let mut at = 0;
        while let Some(waiter) = self.waiting.get(at) {
            let group = waiter.entry.policy.group();
            if blocked.contains(&group) {
                at += 1;
                continue;
            }
            let (policy, bytes) = (waiter.entry.policy.clone(), waiter.entry.bytes);
            let baseline = self.capture_baseline();
            let sizes = self.sizes(&group);
            let fits = policy.admits(baseline.bytes, baseline.lent, &sizes, bytes);
            // With none of its group left, waiting longer helps nothing: let it find out.
            if !fits && !sizes.is_empty() {
                blocked.insert(group);
                at += 1;
                continue;
            }
            if let Some(waiter) = self.waiting.remove(at) {
                if fits {
                    self.start(waiter.ticket, &waiter.entry);
                }
                waiter.wake.0.notify_all();
            }
        }
    }

    fn start(&mut self, ticket: TicketId, entry: &Entry) {
        self.tell(EventKind::AdmissionGranted, Some((ticket, entry)));
        self.held.insert(ticket, entry.clone());
        self.tell(EventKind::TicketStarted, Some((ticket, entry)));
        self.apply_limit();
    }

    /// What there was before the first ticket. Measured again once none is left.
    fn capture_baseline(&mut self) -> Baseline {
        if let Some(baseline) = self.baseline {
            return baseline;
        }
        let own = || measure().map_or(0, |process| process.own_bytes);
        let bytes = self.options.baseline_bytes.unwrap_or_else(own);
        let lent = self.options.lent_bytes.or_else(|| {
            let free = machine::available_bytes()?;
            Some(bytes.saturating_add(free))
        });
        let baseline = Baseline { bytes, lent };
        self.baseline = Some(baseline);
        self.tell(EventKind::BaselineCaptured, None);
        baseline
    }

    /// Forgets the baseline when there is no ticket that it is the baseline of.
    fn give_up_idle_baseline(&mut self) {
        if self.held.is_empty() && self.waiting.is_empty() {
            self.baseline = None;
            self.limit = None;
            self.changed = None;
        }
    }

    /// Sizes of the tickets of a group that have started.
    fn sizes(&self, group: &Group) -> Vec<u64> {
        let of_group = self.held.values();
        let of_group = of_group.filter(|entry| entry.policy.group() == *group);
        of_group.map(|entry| entry.bytes).collect()
    }

    /// The largest limit of all groups.
    fn desired_limit(&self, baseline: Baseline) -> u64 {
        let mut groups = BTreeMap::<Group, (&Policy, Vec<u64>)>::new();
        for entry in self.held.values() {
            let of_group = groups
                .entry(entry.policy.group())
                .or_insert((&entry.policy, Vec::new()));
            // Tickets are in the order they came: the latest policy decides.
            of_group.0 = &entry.policy;
            of_group.1.push(entry.bytes);
        }
        let limits = groups
            .values()
            .map(|(policy, sizes)| policy.limit(baseline.bytes, baseline.lent, sizes));
        limits.max().unwrap_or(baseline.bytes)
    }

    fn apply_limit(&mut self) {
        let Some(baseline) = self.baseline else {
            return;
        };
        let is_active = |entry: &Entry| entry.kind == Kind::Active;
        if !self.held.values().any(is_active) {
            // Reservations alone do not raise the limit, and nothing holds it up.
            let raised = self.limit.is_some_and(|limit| limit != baseline.bytes);
            if raised {
                self.set_limit(baseline.bytes);
            }
            let holds = self.limit.is_none_or(|limit| limit == baseline.bytes);
            if holds && (raised || self.held.is_empty()) {
                self.tell_limit(EventKind::BaselineRestored, baseline.bytes);
            }
            return;
        }
        let desired = self.desired_limit(baseline);
        self.tell_limit(EventKind::LimitComputed, desired);
        if self.limit == Some(desired) {
            return;
        }
        if self
            .limit
            .is_some_and(|limit| !self.may_shrink(limit, desired))
        {
            self.tell_limit(EventKind::LimitHeld, desired);
            return;
        }
        self.set_limit(desired);
    }

    /// Growing is always right; shrinking only by much, and not too often.
    fn may_shrink(&self, limit: u64, desired: u64) -> bool {
        if desired >= limit {
            return true;
        }
        let drop = (limit - desired) as f64 / limit as f64;
        let cooldown = self.options.shrink_cooldown;
        let rested = self.changed.is_none_or(|at| at.elapsed() >= cooldown);
        drop >= self.options.shrink_threshold_ratio && rested
    }

    fn set_limit(&mut self, limit: u64) {
        if let Some(apply) = &mut self.options.on_limit
            && apply(limit).is_err()
        {
            self.tell_limit(EventKind::LimitApplyFailed, limit);
            return;
        }
        self.limit = Some(limit);
        self.changed = Some(Instant::now());
        self.tell_limit(EventKind::LimitApplied, limit);
    }

    fn tell(&mut self, kind: EventKind, ticket: Option<(TicketId, &Entry)>) {
        self.tell_all(kind, ticket, None);
    }

    fn tell_limit(&mut self, kind: EventKind, desired: u64) {
        self.tell_all(kind, None, Some(desired));
    }

    fn tell_all(
        &mut self,
        kind: EventKind,
        ticket: Option<(TicketId, &Entry)>,
        desired_limit_bytes: Option<u64>,
    ) {
        self.sequence += 1;
        if self.subscribers.is_empty() {
            return;
        }
        let event = Event {
            sequence: self.sequence,
            kind,
            ticket: ticket.map(|(id, _)| id),
            bytes: ticket.map(|(_, entry)| entry.bytes),
            policy: ticket.map(|(_, entry)| entry.policy.to_string()),
            baseline_bytes: self.baseline_bytes(),
            desired_limit_bytes,
            limit_bytes: self.limit,
            tickets: self.held.len(),
            waiting: self.waiting.len(),
            at: SystemTime::now(),
        };
        self.subscribers
            .retain(|subscriber| subscriber.tell(&event));
    }
}
