//! How long each phase of a load took.

use std::time::Instant;

use crate::files::MemoryUse;
use serde::Serialize;

use super::State;
use crate::error::Error;

/// The phases of a load, in order: `verify_assets` (fetch included), `load_weights`,
/// `initialize_runtime`, `allocate_buffers`, and `warm_up` where a host ran one.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LoadReport {
    /// The phases that ended.
    pub phases: Vec<PhaseTime>,
}

/// One phase of a load.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PhaseTime {
    /// Its name.
    pub name: &'static str,
    /// When it began, in milliseconds from the start of the load.
    pub started_at_ms: f64,
    /// How long it took, in milliseconds.
    pub elapsed_ms: f64,
}

impl LoadReport {
    /// The phase with this name.
    pub fn phase(&self, name: &str) -> Option<&PhaseTime> {
        self.phases.iter().find(|phase| phase.name == name)
    }

    /// From the start of the load to the end of its last phase, in milliseconds.
    pub fn total_ms(&self) -> f64 {
        self.phases
            .last()
            .map_or(0.0, |last| last.started_at_ms + last.elapsed_ms)
    }

    /// Adds the phase that `reached` ends, `now_ms` after the start of the load.
    pub(crate) fn end_phase(&mut self, reached: State, now_ms: f64) {
        if let Some(name) = reached.phase() {
            let started_at_ms = self.total_ms();
            self.phases.push(PhaseTime {
                name,
                started_at_ms,
                elapsed_ms: (now_ms - started_at_ms).max(0.0),
            });
        }
    }
}

/// Asked for room for what a model needs.
pub(crate) type AskForRoom = Box<dyn FnMut(&MemoryUse) -> Result<(), Error> + Send>;

/// What a host wants to know of a load, and to decide in it.
pub(crate) struct LoadHooks {
    /// Told of each state as it is reached.
    pub(crate) on_state: Box<dyn FnMut(State) + Send>,
    /// Asked for room for the model before anything is allocated.
    pub(crate) room: AskForRoom,
}

impl Default for LoadHooks {
    fn default() -> Self {
        Self {
            on_state: Box::new(|_| {}),
            room: Box::new(|_| Ok(())),
        }
    }
}

/// Times the phases of a load, and tells of the states between them.
pub(crate) struct LoadTimer {
    started: Instant,
    state: State,
    report: LoadReport,
    hooks: LoadHooks,
}

impl LoadTimer {
    pub(crate) fn start(hooks: LoadHooks) -> Self {
        Self {
            started: Instant::now(),
            state: State::Uninitialized,
            report: LoadReport::default(),
            hooks,
        }
    }

    /// Ends the phase before `state`, once.
    pub(crate) fn reached(&mut self, state: State) {
        if state > self.state {
            self.state = state;
            let now_ms = self.started.elapsed().as_secs_f64() * 1e3;
            self.report.end_phase(state, now_ms);
            (self.hooks.on_state)(state);
        }
    }

    /// Asks for room for what the model needs.
    pub(crate) fn make_room(&mut self, needed: &MemoryUse) -> Result<(), Error> {
        (self.hooks.room)(needed)
    }

    pub(crate) fn into_report(self) -> LoadReport {
        self.report
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn phases_follow_one_another_without_a_gap_and_are_told_once() {
        let told: Arc<Mutex<Vec<State>>> = Arc::default();
        let sink = Arc::clone(&told);
        let mut timer = LoadTimer::start(LoadHooks {
            on_state: Box::new(move |state| sink.lock().expect("no panic").push(state)),
            ..LoadHooks::default()
        });
        let states = [State::AssetsVerified, State::WeightsLoaded];
        states.iter().for_each(|&state| timer.reached(state));
        timer.reached(State::WeightsLoaded);
        let report = timer.into_report();
        assert_eq!(*told.lock().expect("no panic"), states);
        let names: Vec<&str> = report.phases.iter().map(|phase| phase.name).collect();
        assert_eq!(names, ["verify_assets", "load_weights"]);
        let [first, second] = &report.phases[..] else {
            panic!("two phases");
        };
        assert_eq!(first.started_at_ms, 0.0);
        assert_eq!(second.started_at_ms, first.elapsed_ms);
        assert_eq!(report.total_ms(), second.started_at_ms + second.elapsed_ms);
        assert!(report.phase("warm_up").is_none());
    }
}
