//! What the queue and the channel of a reply are built from: the standard library's, or, under
//! `--cfg loom`, loom's, which runs a test in every order of events. Loom's waits have no time limit.

#[cfg(not(loom))]
pub(crate) use std::sync::{
    Condvar, Mutex, MutexGuard,
    atomic::{AtomicBool, Ordering},
};

#[cfg(loom)]
pub(crate) use loom::sync::{
    Condvar, Mutex, MutexGuard,
    atomic::{AtomicBool, Ordering},
};
