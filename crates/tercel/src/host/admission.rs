//! Who decides whether a model may take memory, before it takes any.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::files::MemoryUse;
use crate::memory::{AdmissionError, Ledger, Policy};

/// Decides whether a model may be loaded. A host asks before anything is allocated; where it is
/// denied, the host unloads the idle model that was used least recently and asks again.
pub trait Admission: Send + Sync {
    /// Sets `needed` aside for `model` until the grant is dropped, which is when the model has
    /// left the memory. Must not wait.
    ///
    /// # Errors
    /// [`Denied`], with what there is.
    fn admit(&self, model: &str, needed: &MemoryUse) -> Result<Grant, Denied>;
}

/// Memory that was set aside. Dropping it gives the memory back.
pub struct Grant(#[expect(dead_code, reason = "it is held for its drop")] Box<dyn Send>);

impl Grant {
    /// A grant that drops `ticket` when it ends.
    pub fn new(ticket: impl Send + 'static) -> Self {
        Self(Box::new(ticket))
    }
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Grant")
    }
}

/// There is not enough memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denied {
    /// What there is, in bytes.
    pub available_bytes: u64,
}

/// The sum of all models is at most so many bytes.
pub(super) struct Budget {
    max_bytes: u64,
    taken: Arc<Mutex<u64>>,
}

impl Budget {
    pub(super) fn new(max_bytes: u64) -> Self {
        let taken = Arc::default();
        Self { max_bytes, taken }
    }
}

impl Admission for Budget {
    fn admit(&self, _: &str, needed: &MemoryUse) -> Result<Grant, Denied> {
        let bytes = needed.total_bytes as u64;
        let mut taken = lock(&self.taken);
        let available_bytes = self.max_bytes.saturating_sub(*taken);
        if bytes > available_bytes {
            return Err(Denied { available_bytes });
        }
        *taken += bytes;
        let taken = Arc::clone(&self.taken);
        Ok(Grant::new(Share { bytes, taken }))
    }
}

/// All that engines of the process hold together fits what the machine has.
impl Admission for Ledger {
    fn admit(&self, model: &str, needed: &MemoryUse) -> Result<Grant, Denied> {
        let ticket = self.try_admit(Policy::sum(None), needed.breakdown(), model);
        ticket.map(Grant::new).map_err(|error| {
            let available_bytes = match error {
                AdmissionError::Refused { refusal, .. } => refusal.left_bytes(),
                AdmissionError::Cancelled => 0,
            };
            Denied { available_bytes }
        })
    }
}

/// A part of the budget.
struct Share {
    bytes: u64,
    taken: Arc<Mutex<u64>>,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        *taken = taken.saturating_sub(self.bytes);
    }
}

fn lock(taken: &Mutex<u64>) -> MutexGuard<'_, u64> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tercel_nn::Memory;

    use super::*;

    #[test]
    fn a_budget_is_whole_again_when_its_grants_are_gone() {
        let needed = |weights_bytes| {
            let memory = Memory {
                weights_bytes,
                ..Memory::default()
            };
            MemoryUse::of(&memory, 0)
        };
        let budget = Budget::new(100);
        let first = budget.admit("a", &needed(60)).expect("room");
        let denied = budget.admit("b", &needed(41)).expect_err("no room");
        assert_eq!(denied.available_bytes, 40);
        let second = budget.admit("b", &needed(40)).expect("to the last byte");
        drop(first);
        assert_eq!(
            budget
                .admit("c", &needed(61))
                .expect_err("no room")
                .available_bytes,
            60
        );
        drop(second);
        budget.admit("c", &needed(100)).expect("all of it");
    }
}
