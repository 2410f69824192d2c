//! From nothing to an engine that answers: the states a model goes through, what each step took,
//! and the warm-up that stands before the first request.
//!
//! ```text
//! uninitialized -> assets_verified -> weights_loaded -> runtime_initialized
//!      ^               -> buffers_allocated -> warmup_run -> ready <-> serving
//!      |                                                       |         |
//!      +-------------------- unloading <-----------------------+---------+
//! ```
//!
//! Any step of a load may end in `failed`; only a reset leaves it. A restart is an unload and a
//! whole load, its checks and its warm-up included: nothing of the old model is kept.

mod lengths;
mod report;
mod state;
mod warm_up;

pub use lengths::RequestLengths;
pub(crate) use report::{AskForRoom, LoadHooks, LoadTimer};
pub use report::{LoadReport, PhaseTime};
pub use state::{IllegalTransition, Lifecycle, State};
pub use warm_up::{WarmUp, WarmUpError, WarmUpReport};
