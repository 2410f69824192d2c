//! What a host tells of its models.

use serde::Serialize;

use crate::lifecycle::{LoadReport, State};

/// A model of a host, as [`Host::list`](super::Host::list) shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ModelStatus {
    /// Its name in the host.
    pub name: String,
    /// Where it stands.
    pub state: State,
    /// Whether a load is under way, be it that nothing is reached yet.
    pub is_loading: bool,
    /// Leases that are out: requests that run, and callers that hold the model.
    pub running: usize,
    /// What it takes of the memory, 0 when it is not loaded.
    pub footprint_bytes: u64,
    /// How often it was loaded.
    pub loads: u64,
    /// How many of these loads were restarts of an unhealthy model.
    pub restarts: u64,
    /// Requests that failed by a fault of the model since one succeeded.
    pub faults: u32,
    /// Why it left the memory the last time: `idle`, `evicted`, `asked`, `cancelled`, or the
    /// fault that made a restart necessary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unloaded_by: Option<&'static str>,
    /// Why it cannot be used, until it is reset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What each phase of its last load took.
    pub load_report: LoadReport,
}

/// What models take of the memory.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct MemoryFootprint {
    /// Weights, caches and buffers of the models, in bytes; 0 when nothing is loaded.
    #[serde(skip)]
    pub footprint_bytes: u64,
    /// The same in units of 2^20 bytes.
    pub footprint_mb: f64,
    /// What the whole process has in memory, in units of 2^20 bytes, where the system tells.
    pub resident_mb: Option<f64>,
}

impl MemoryFootprint {
    pub(super) fn new(footprint_bytes: u64, resident_bytes: Option<u64>) -> Self {
        let megabytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        Self {
            footprint_bytes,
            footprint_mb: megabytes(footprint_bytes),
            resident_mb: resident_bytes.map(megabytes),
        }
    }
}

/// Why a model that is loaded must be loaded again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum HealthFault {
    /// Requests failed one after the other.
    GenerationFailures,
    /// Memory could not be had, again and again.
    OutOfMemory,
    /// The engine stopped.
    RuntimeFault,
    /// A check found that the model does not compute what it should.
    VerificationMismatch,
}

impl HealthFault {
    /// The name in JSON and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::GenerationFailures => "generation_failures",
            Self::OutOfMemory => "out_of_memory",
            Self::RuntimeFault => "runtime_fault",
            Self::VerificationMismatch => "verification_mismatch",
        }
    }
}
