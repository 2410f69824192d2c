//! How many pages and states a cache has, before any of them is there.

use serde::Serialize;
use tercel_kernels::ops::attention::{KvPages, PAGE, Shape};

use super::MAX_GROUPS;
use super::index::Index;
use super::states::States;
use crate::loader::Recurrent;
use crate::runner::Options;

/// What the prefix cache takes where nothing is said: as much as one whole sequence, and at most
/// this many bytes.
const DEFAULT_CACHE: usize = 64 << 20;
/// States of recurrent layers that are kept beside those of open sequences.
const CACHED_STATES: std::ops::RangeInclusive<usize> = 2..=64;

/// The sizes of a cache.
pub(crate) struct Geometry {
    /// Layers of the same kind share page numbers.
    pub(super) groups: Vec<GroupSize>,
    /// The group of each layer.
    pub(super) group_of: Vec<usize>,
    /// States of open sequences, and of the prefix cache.
    pub(super) live_states: usize,
    pub(super) cached_states: usize,
    state_bytes: usize,
}

pub(super) struct GroupSize {
    /// Tokens that the layers see.
    pub(super) window: Option<usize>,
    pub(super) layers: usize,
    /// Bytes of a page in all layers of the group.
    pub(super) page_bytes: usize,
    /// Pages that open sequences need at most.
    pub(super) live: usize,
    /// Pages beside those, which prefixes may stay in.
    pub(super) cached: usize,
}

impl Geometry {
    pub(crate) fn of(shapes: &[Shape], recurrents: &[Recurrent], options: &Options) -> Self {
        let windows = windows(shapes);
        let group_of: Vec<usize> = shapes.iter().map(|shape| group(&windows, shape)).collect();
        let mut groups: Vec<_> = windows
            .iter()
            .map(|window| GroupSize {
                window: *window,
                layers: 0,
                page_bytes: 0,
                live: live_pages(*window, options),
                cached: 0,
            })
            .collect();
        for (shape, group) in shapes.iter().zip(&group_of) {
            groups[*group].layers += 1;
            groups[*group].page_bytes += KvPages::page_bytes(shape, options.kv_type);
        }
        let state_bytes = States::slot_bytes(recurrents);
        let page_bytes: usize = groups.iter().map(|group| group.page_bytes).sum();
        let whole = page_bytes.saturating_mul(options.max_context.div_ceil(PAGE));
        let cache = &options.prefix_cache;
        let budget = match cache.bytes {
            _ if !cache.enabled => 0,
            Some(bytes) => bytes,
            None => DEFAULT_CACHE.min(whole.max(CACHED_STATES.start() * state_bytes)),
        };
        let cached_states = match budget.checked_div(2 * state_bytes) {
            Some(states) if budget > 0 => {
                states.clamp(*CACHED_STATES.start(), *CACHED_STATES.end())
            }
            _ => 0,
        };
        let rest = budget.saturating_sub(cached_states * state_bytes);
        let cached = rest.checked_div(page_bytes).unwrap_or(0);
        for group in &mut groups {
            // A sequence that goes on in the middle of a page needs one more while it copies it.
            group.cached = cached + usize::from(cache.enabled);
        }
        Self {
            groups,
            group_of,
            live_states: if recurrents.is_empty() {
                0
            } else {
                options.max_sequences
            },
            cached_states,
            state_bytes,
        }
    }

    /// What sequences take that are open: for each kind of layer.
    pub(crate) fn parts(&self) -> Vec<KvPart> {
        let part = |group: &GroupSize| KvPart {
            window: group.window,
            layers: group.layers,
            page_bytes: group.page_bytes,
            pages: group.live,
            bytes: group.live.saturating_mul(group.page_bytes),
        };
        self.groups.iter().map(part).collect()
    }

    pub(crate) fn recurrent_bytes(&self) -> usize {
        self.live_states.saturating_mul(self.state_bytes)
    }

    /// What stays of sequences that ended.
    pub(crate) fn prefix_cache_bytes(&self) -> usize {
        let pages = self.groups.iter();
        let pages = pages.map(|group| group.cached.saturating_mul(group.page_bytes));
        pages.fold(
            self.cached_states * self.state_bytes + Index::bytes(self.nodes()),
            usize::saturating_add,
        )
    }

    /// Nodes that the index may get: each has a page of the largest group, or a state.
    pub(super) fn nodes(&self) -> usize {
        let pages = self.groups.iter().map(|group| group.live + group.cached);
        pages.max().unwrap_or(0) + self.cached_states
    }
}

/// The memory of the layers of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct KvPart {
    /// Tokens that the layers see; all where there is no number.
    pub window: Option<usize>,
    /// How many layers there are.
    pub layers: usize,
    /// Bytes of a page, keys and values of all these layers.
    pub page_bytes: usize,
    /// Pages that all sequences need at most.
    pub pages: usize,
    /// The product.
    pub bytes: usize,
}

/// The windows that groups are made for: full attention first. More kinds than there may be
/// groups share the widest window.
fn windows(shapes: &[Shape]) -> Vec<Option<usize>> {
    let mut windows: Vec<Option<usize>> = shapes.iter().map(|shape| shape.window).collect();
    windows.sort_by_key(|window| (window.is_some(), *window));
    windows.dedup();
    if windows.len() > MAX_GROUPS {
        windows.drain(MAX_GROUPS - 1..windows.len() - 1);
    }
    windows
}

fn group(windows: &[Option<usize>], shape: &Shape) -> usize {
    let own = windows.iter().position(|window| *window == shape.window);
    own.unwrap_or(windows.len() - 1)
}

fn live_pages(window: Option<usize>, options: &Options) -> usize {
    let sequences = options.max_sequences;
    let all = sequences.saturating_mul(options.max_context.div_ceil(PAGE));
    match window {
        None => {
            let tokens = options.kv_tokens.unwrap_or(usize::MAX);
            all.min(tokens.div_ceil(PAGE).saturating_add(sequences))
        }
        Some(window) => {
            let own = sequences.saturating_mul(window_pages(window + options.max_rollback));
            all.min(own.saturating_add(options.max_batch_tokens.div_ceil(PAGE)))
        }
    }
}

/// Pages that a sequence needs of a window, beside those of the tokens of a pass. Both ends may lie
/// within a page.
pub(super) fn window_pages(window: usize) -> usize {
    window.div_ceil(PAGE).saturating_add(2)
}
