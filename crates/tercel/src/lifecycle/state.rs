//! The states of a model, and which may follow which.

use std::fmt;

use serde::Serialize;

/// Where a model stands. The order of the first eight is the order in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum State {
    /// Nothing is in memory.
    #[default]
    Uninitialized,
    /// The files are there, whole, and belong together; what the model will take is known.
    AssetsVerified,
    /// The threads and buffers of the computation are there, and the weights are packed.
    WeightsLoaded,
    /// Tokenizer, template and defaults are there.
    RuntimeInitialized,
    /// The sequence, the queue and the engine's thread are there.
    BuffersAllocated,
    /// The warm-up gave its tokens.
    WarmupRun,
    /// Requests may come.
    Ready,
    /// Requests run.
    Serving,
    /// The model leaves the memory.
    Unloading,
    /// The load or the model failed; the reason is kept until a reset.
    Failed,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 10] = [
        Self::Uninitialized,
        Self::AssetsVerified,
        Self::WeightsLoaded,
        Self::RuntimeInitialized,
        Self::BuffersAllocated,
        Self::WarmupRun,
        Self::Ready,
        Self::Serving,
        Self::Unloading,
        Self::Failed,
    ];

    /// The name in JSON and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Uninitialized => "uninitialized",
            Self::AssetsVerified => "assets_verified",
            Self::WeightsLoaded => "weights_loaded",
            Self::RuntimeInitialized => "runtime_initialized",
            Self::BuffersAllocated => "buffers_allocated",
            Self::WarmupRun => "warmup_run",
            Self::Ready => "ready",
            Self::Serving => "serving",
            Self::Unloading => "unloading",
            Self::Failed => "failed",
        }
    }

    /// Whether requests are taken.
    pub fn takes_requests(self) -> bool {
        matches!(self, Self::Ready | Self::Serving)
    }

    /// Whether `next` may follow.
    pub fn may_become(self, next: Self) -> bool {
        match (self, next) {
            // A failed model is left by a reset alone, and one that serves waits for what runs.
            (Self::Unloading | Self::Failed, Self::Uninitialized)
            | (Self::Serving, Self::Ready)
            | (Self::Ready, Self::Unloading)
            // A restart that is not worth another try.
            | (Self::Unloading, Self::Failed) => true,
            (from, Self::Unloading | Self::Failed) => from.is_loading(),
            (from, next) => from.after() == Some(next),
        }
    }

    /// The phase of a load that ends with this state.
    pub(super) fn phase(self) -> Option<&'static str> {
        match self {
            Self::AssetsVerified => Some("verify_assets"),
            Self::WeightsLoaded => Some("load_weights"),
            Self::RuntimeInitialized => Some("initialize_runtime"),
            Self::BuffersAllocated => Some("allocate_buffers"),
            Self::WarmupRun => Some("warm_up"),
            _ => None,
        }
    }

    fn is_loading(self) -> bool {
        self < Self::Ready
    }

    /// What follows where all goes well.
    fn after(self) -> Option<Self> {
        match self {
            Self::Uninitialized => Some(Self::AssetsVerified),
            Self::AssetsVerified => Some(Self::WeightsLoaded),
            Self::WeightsLoaded => Some(Self::RuntimeInitialized),
            Self::RuntimeInitialized => Some(Self::BuffersAllocated),
            Self::BuffersAllocated => Some(Self::WarmupRun),
            Self::WarmupRun => Some(Self::Ready),
            Self::Ready => Some(Self::Serving),
            Self::Serving | Self::Unloading | Self::Failed => None,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A model cannot go from one state to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a model that is {from} cannot become {to}")]
pub struct IllegalTransition {
    /// Where it stands.
    pub from: State,
    /// What was asked for.
    pub to: State,
}

/// The state of one model, which moves along legal transitions alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lifecycle {
    state: State,
}

impl Lifecycle {
    /// A model of which nothing is in memory.
    pub fn new() -> Self {
        Self::default()
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// Goes one step.
    ///
    /// # Errors
    /// [`IllegalTransition`], and the state stays, where `next` may not follow.
    pub fn advance(&mut self, next: State) -> Result<(), IllegalTransition> {
        if !self.state.may_become(next) {
            let (from, to) = (self.state, next);
            return Err(IllegalTransition { from, to });
        }
        self.state = next;
        Ok(())
    }

    /// Goes forward to `goal`, through every state before it. Does nothing where the model is
    /// there already, or past it.
    ///
    /// # Errors
    /// [`IllegalTransition`], and the state stays, where no way forward leads there.
    pub fn reach(&mut self, goal: State) -> Result<(), IllegalTransition> {
        let mut at = self.state;
        while at < goal {
            at = at.after().ok_or(IllegalTransition {
                from: self.state,
                to: goal,
            })?;
        }
        self.state = at;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every legal step, written out; all others are not.
    const LEGAL: [(State, &[State]); 10] = {
        use State::*;
        [
            (Uninitialized, &[AssetsVerified, Unloading, Failed]),
            (AssetsVerified, &[WeightsLoaded, Unloading, Failed]),
            (WeightsLoaded, &[RuntimeInitialized, Unloading, Failed]),
            (RuntimeInitialized, &[BuffersAllocated, Unloading, Failed]),
            (BuffersAllocated, &[WarmupRun, Unloading, Failed]),
            (WarmupRun, &[Ready, Unloading, Failed]),
            (Ready, &[Serving, Unloading]),
            (Serving, &[Ready]),
            (Unloading, &[Uninitialized, Failed]),
            (Failed, &[Uninitialized]),
        ]
    };

    #[test]
    fn only_the_legal_steps_can_be_taken() {
        for (from, legal) in LEGAL {
            for to in State::ALL {
                let mut model = Lifecycle { state: from };
                let result = model.advance(to);
                if legal.contains(&to) {
                    assert_eq!((result, model.state()), (Ok(()), to));
                } else {
                    let error = IllegalTransition { from, to };
                    assert_eq!((result, model.state()), (Err(error), from));
                }
            }
        }
        let error = Lifecycle::new().advance(State::Serving);
        assert_eq!(
            error.expect_err("illegal").to_string(),
            "a model that is uninitialized cannot become serving"
        );
    }

    #[test]
    fn a_goal_is_reached_step_by_step_and_never_backwards() {
        let mut model = Lifecycle::new();
        model.reach(State::BuffersAllocated).expect("forward");
        assert_eq!(model.state(), State::BuffersAllocated);
        model.reach(State::AssetsVerified).expect("it is past it");
        assert_eq!(model.state(), State::BuffersAllocated);
        let error = model.reach(State::Failed).expect_err("no way forward");
        assert_eq!(
            (error.from, error.to),
            (State::BuffersAllocated, State::Failed)
        );
        assert_eq!(model.state(), State::BuffersAllocated);
    }

    #[test]
    fn names_in_json_are_the_names() {
        for state in State::ALL {
            let json = serde_json::to_value(state).expect("serializes");
            assert_eq!(json, state.name());
            assert_eq!(state.to_string(), state.name());
        }
    }
}
