//! Memory, promised before it is used: what a model takes, who holds what, and what to do when it
//! runs short.
//!
//! - [`KvSize`] is the arithmetic of a KV cache, term by term.
//! - [`Ledger`] holds a [`Ticket`] for every engine of the process; what does not fit waits or is
//!   refused before anything is allocated.
//! - [`Monitor`] watches a running request and says when to log, to do less, or to stop.
//! - [`Ladder`] and [`normalize`] lead from a request that fails to one that does not, and tell
//!   every step.

mod allocator;
mod breakdown;
mod fit;
mod kv_config;
mod kv_size;
mod ledger;
mod measure;
mod monitor;
mod normalize;
mod recovery;

pub(crate) use allocator::give_back;
pub use breakdown::{Breakdown, Entry};
pub use fit::{Blueprint, Described, Fit, FitOptions, MOST_SEQUENCES};
pub use kv_config::{
    Assumption, BatchMode, CacheKey, CachePart, ConfigFormat, EvictionPart, EvictionPolicy,
    Finding, KvConfig, KvConfigError, KvConfigReport, KvConfigSubject, LogLevel, ModelPart, Pages,
    PagingPart, PrefixPart, RuntimePart, Severity,
};
pub use kv_size::{KvDtype, KvShape, KvSize, KvSizeError, Term};
pub use ledger::{
    AdmissionError, Cancellation, Event, EventKind, Events, Holder, Kind, Ledger, LedgerOptions,
    OnLimit, Policy, Refusal, Snapshot, Ticket, TicketId,
};
pub use measure::{ProcessMemory, available_bytes, measure};
pub use monitor::{
    Action, Alert, Diagnosis, Level, Monitor, MonitorOptions, Observation, Record, Sample, Stage,
    Thresholds, Verdict, crosses_multiple, decide, diagnose,
};
pub use normalize::{Adjustment, Counts, Normalized, normalize};
pub use recovery::{Asked, Attempt, Ladder, Outcome, Status, is_out_of_memory};
