//! What is logged of the memory that requests take, and what the engine's budget says to it.

use tercel_nn::{Holding, PAGE, Prefix};
use tracing::{info, warn};

use crate::error::Error;
use crate::memory::{Action, Monitor, MonitorOptions, Sample, Stage};

/// Watches the requests of a scheduler.
pub(super) struct Watch {
    /// Nothing is measured without a budget.
    budget: Option<(u64, Monitor)>,
    /// Requests so far.
    requests: u64,
}

/// A request that is watched.
#[derive(Debug)]
pub(super) struct Watched {
    id: u64,
    prompt: usize,
    /// Whether the log has its pages.
    is_prompt_logged: bool,
}

/// What a sample says of a request.
struct Seen {
    stage: Stage,
    max_new_tokens: usize,
    tokens: usize,
    holding: Holding,
}

impl Watch {
    /// With what the process may hold, in bytes.
    pub(super) fn new(budget: Option<u64>) -> Self {
        let monitor = |bytes: u64| {
            let options = MonitorOptions {
                budget_mb: Some(bytes as f64 / f64::from(1 << 20)),
                ..MonitorOptions::default()
            };
            (bytes, Monitor::new(options))
        };
        Self {
            budget: budget.map(monitor),
            requests: 0,
        }
    }

    /// How many requests may be at work, where `most` are allowed.
    pub(super) fn concurrency(&self, most: usize) -> usize {
        let budget = self.budget.as_ref();
        budget.map_or(most, |(_, monitor)| monitor.concurrency(most))
    }

    /// A request begins, with a prompt of so many tokens, and may generate so many.
    pub(super) fn begin(
        &mut self,
        prompt: usize,
        max_new_tokens: usize,
        prefix: &Prefix,
        holding: Holding,
    ) -> Result<Watched, Error> {
        let watched = Watched {
            id: self.requests,
            prompt,
            is_prompt_logged: false,
        };
        self.requests += 1;
        info!(
            target: "tercel::kv",
            request_id = watched.id,
            miss = prefix.miss.map(tracing::field::debug),
            "prefix_cache: hit={} reused_tokens={}",
            prefix.tokens > 0,
            prefix.tokens
        );
        let seen = Seen {
            stage: Stage::Start,
            max_new_tokens,
            tokens: 0,
            holding,
        };
        self.observe(&watched, &seen);
        self.check_plan(&watched, holding)?;
        if let Some((_, monitor)) = &mut self.budget {
            monitor.started();
        }
        Ok(watched)
    }

    /// A request that had `before` tokens of its reply has `after` now.
    pub(super) fn tokens(
        &mut self,
        watched: &mut Watched,
        before: usize,
        after: usize,
        max_new_tokens: usize,
        holding: impl Fn() -> Holding,
    ) -> Action {
        if !watched.is_prompt_logged && after > 0 {
            watched.is_prompt_logged = true;
            let pages = holding().taken_pages;
            info!(
                target: "tercel::kv",
                request_id = watched.id,
                "kv_paging: allocated_pages={pages} page_size={PAGE}"
            );
        }
        let is_due = |(_, monitor): &(u64, Monitor)| monitor.is_due(before, after);
        if !self.budget.as_ref().is_some_and(is_due) {
            return Action::Ok;
        }
        let seen = Seen {
            stage: Stage::Running,
            max_new_tokens,
            tokens: after,
            holding: holding(),
        };
        self.observe(watched, &seen)
    }

    /// A request has ended, and gives back what it held.
    pub(super) fn end(&mut self, watched: &Watched, tokens: usize, holding: Holding) {
        let seen = Seen {
            stage: Stage::End,
            max_new_tokens: tokens,
            tokens,
            holding,
        };
        self.observe(watched, &seen);
        info!(
            target: "tercel::kv",
            request_id = watched.id,
            "kv_paging: freed_pages={} sequence_done=true",
            holding.pages
        );
    }

    fn observe(&mut self, watched: &Watched, seen: &Seen) -> Action {
        let Some((_, monitor)) = &mut self.budget else {
            return Action::Ok;
        };
        let observation = monitor.observe(&Sample {
            request_id: watched.id.to_string(),
            stage: seen.stage,
            prompt_tokens: watched.prompt,
            max_new_tokens: seen.max_new_tokens,
            actual_new_tokens: seen.tokens,
            context_tokens_used: watched.prompt + seen.tokens,
            kv_cache_est_bytes: seen.holding.bytes as u64,
            kv_cache_plan_bytes: seen.holding.promised_bytes as u64,
        });
        if let Some(alert) = observation.alert {
            warn!(target: "tercel::memory", "{alert} action={}", observation.action);
        }
        observation.action
    }

    /// Refuses a request whose plan does not fit the budget.
    fn check_plan(&mut self, watched: &Watched, holding: Holding) -> Result<(), Error> {
        let Some((budget_bytes, monitor)) = &mut self.budget else {
            return Ok(());
        };
        let Some(now) = monitor.held_bytes() else {
            return Ok(());
        };
        let planned = holding.promised_bytes.saturating_sub(holding.bytes) as u64;
        let needed_bytes = now.saturating_add(planned);
        let stop = monitor.options().thresholds.rss_stop;
        if needed_bytes as f64 <= stop * *budget_bytes as f64 {
            return Ok(());
        }
        monitor.forget(&watched.id.to_string());
        Err(Error::MemoryBudget {
            needed_bytes,
            budget_bytes: *budget_bytes,
        })
    }
}
