//! The KV cache: fixed pools of pages that all sequences share, and what stays of those that ended.
//!
//! Layers that see the same stretch of a sequence form a group with one pool of pages. A sequence
//! takes a page of each group when its tokens reach it; a group with a window gives back what slid
//! out of it. Whole pages enter the [`index`], where later sequences that begin with the same
//! tokens find them; they stay there until their room is needed, the longest unused first. A page
//! that is shared is never written: a sequence that goes on in the middle of one gets a copy.

mod evict;
mod geometry;
mod index;
mod pool;
mod prefix;
mod saved;
mod states;
#[cfg(test)]
mod tests;

use tercel_kernels::AllocError;
pub use tercel_kernels::ops::attention::CacheType as KvType;
use tercel_kernels::ops::attention::{KvPages, PAGE, Place, Shape};

use crate::NnError;
use crate::loader::Recurrent;
use crate::runner::Options;
pub(crate) use geometry::Geometry;
pub use geometry::KvPart;
use geometry::window_pages;
pub use index::Identity;
use index::{Index, NONE};
use pool::Pool;
use prefix::Found;
pub(crate) use states::States;

/// Groups of layers with pages of their own: full attention, and three windows.
const MAX_GROUPS: usize = 4;
/// Prompt tokens between two states that are kept of a recurrent model.
const STATE_INTERVAL: usize = 256;

/// A sequence of tokens in the cache: the number of its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SequenceId(pub usize);

/// How the cache keeps the beginnings of sequences for later ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixCache {
    /// Whether it does.
    pub enabled: bool,
    /// Bytes beside those of open sequences; as much as one sequence, at most 64 MiB, when `None`.
    pub bytes: Option<usize>,
    /// Shorter beginnings are computed anew.
    pub min_tokens: usize,
    /// Tokens of a sequence beyond these are not kept.
    pub max_tokens: usize,
}

impl Default for PrefixCache {
    fn default() -> Self {
        Self {
            enabled: true,
            bytes: None,
            min_tokens: 1,
            max_tokens: usize::MAX,
        }
    }
}

/// What a new sequence took over from earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// Tokens that need not be computed.
    pub tokens: usize,
    /// Why there are none, or fewer than earlier sequences share with it.
    pub miss: Option<Miss>,
}

/// Why a sequence could not take over what an earlier one computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Miss {
    /// The prefix cache is off.
    Disabled,
    /// No sequence in the cache begins like it.
    NotCached,
    /// One does, but under another [`Identity`].
    OtherIdentity,
    /// Less is shared than the cache is to bother about.
    TooShort,
    /// Layers with a window have given back the pages in front of it.
    WindowGone,
    /// A recurrent layer's state at that point was not kept.
    StateGone,
}

/// How the cache is used, in pages of all kinds of layers together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KvUsage {
    /// Sequences that are open.
    pub sequences: usize,
    /// Pages there are.
    pub pages: usize,
    /// Pages that nobody uses.
    pub free_pages: usize,
    /// Pages that only the prefix cache uses.
    pub cached_pages: usize,
    /// States that only the prefix cache uses.
    pub cached_states: usize,
    /// Bytes of the pages and states in use, cached ones included.
    pub used_bytes: usize,
    /// Sequences that took over tokens of earlier ones, so far.
    pub hits: u64,
    /// Sequences that did not.
    pub misses: u64,
    /// Tokens that were taken over.
    pub reused_tokens: u64,
    /// Pages that were handed out.
    pub allocated_pages: u64,
    /// Pages that became free.
    pub freed_pages: u64,
    /// Pages and states that the prefix cache had to give up.
    pub evictions: u64,
    /// Requests for a page that could not be met.
    pub failures: u64,
}

/// What an open sequence has of the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    /// Pages, of all kinds of layers together.
    pub pages: usize,
    /// Pages that were taken for it alone, so far.
    pub taken_pages: usize,
    /// Bytes of the pages and the state that it has.
    pub bytes: usize,
    /// Bytes that are promised to it.
    pub promised_bytes: usize,
}

/// Keys and values of every layer, and which pages belong to which sequence.
pub(crate) struct KvCache {
    layers: Vec<LayerKv>,
    groups: Vec<Group>,
    group_of: Vec<usize>,
    sequences: Vec<Sequence>,
    index: Index,
    settings: PrefixCache,
    max_context: usize,
    max_batch_tokens: usize,
    max_rollback: usize,
    state_bytes: usize,
    usage: KvUsage,
    /// What recurrent layers know of each sequence.
    pub(crate) states: States,
}

/// One layer's part of the cache.
pub(crate) struct LayerKv {
    pub(crate) shape: Shape,
    pub(crate) pages: KvPages,
}

impl LayerKv {
    fn page_bytes(&self) -> usize {
        KvPages::page_bytes(&self.shape, self.pages.kind())
    }
}

/// Layers that share page numbers.
struct Group {
    window: Option<usize>,
    page_bytes: usize,
    /// Pages that open sequences may have promised to them.
    live: usize,
    promised: usize,
    pool: Pool,
}

/// A place for a sequence; it keeps its buffers.
#[derive(Default)]
struct Sequence {
    is_open: bool,
    tokens: Vec<u32>,
    /// The pages of each group; [`NONE`] where they slid out of the window.
    tables: [Vec<u32>; MAX_GROUPS],
    /// Pages promised to it, of each group.
    promised: [usize; MAX_GROUPS],
    /// Pages that were taken for it, so far.
    taken: usize,
    /// What it shares with others; nothing of one that is to leave no trace.
    identity: Option<Identity>,
    /// The last page in the index, and how many are.
    node: u32,
    indexed: usize,
    state: u32,
    /// Lengths at which a state is to be kept, the next one last.
    stops: Vec<usize>,
}

impl KvCache {
    pub(crate) fn new(
        shapes: &[Shape],
        recurrents: &[Recurrent],
        options: &Options,
    ) -> Result<Self, AllocError> {
        let geometry = Geometry::of(shapes, recurrents, options);
        let layers = shapes.iter().zip(&geometry.group_of).map(|(shape, group)| {
            let size = &geometry.groups[*group];
            Ok(LayerKv {
                shape: *shape,
                pages: KvPages::zeroed(shape, options.kv_type, size.live + size.cached)?,
            })
        });
        let layers = layers.collect::<Result<_, AllocError>>()?;
        let states = States::new(recurrents, geometry.live_states + geometry.cached_states)?;
        let nodes = geometry.nodes();
        let groups = geometry.groups.iter().map(|size| Group {
            window: size.window,
            page_bytes: size.page_bytes,
            live: size.live,
            promised: 0,
            pool: Pool::new(size.live + size.cached),
        });
        let sequence = |_| {
            let pages = options.max_context.div_ceil(PAGE);
            let mut sequence = Sequence {
                tokens: Vec::with_capacity(options.max_context),
                node: NONE,
                state: NONE,
                ..Sequence::default()
            };
            for table in sequence.tables.iter_mut().take(geometry.groups.len()) {
                table.reserve_exact(pages);
            }
            sequence
        };
        Ok(Self {
            layers,
            groups: groups.collect(),
            sequences: (0..options.max_sequences).map(sequence).collect(),
            index: Index::with_capacity(nodes),
            settings: options.prefix_cache.clone(),
            max_context: options.max_context,
            max_batch_tokens: options.max_batch_tokens,
            max_rollback: options.max_rollback,
            state_bytes: States::slot_bytes(recurrents),
            group_of: geometry.group_of,
            usage: KvUsage::default(),
            states,
        })
    }

    /// An empty sequence that shares nothing.
    pub(crate) fn add_sequence(&mut self) -> Result<SequenceId, NnError> {
        let id = self.vacancy(self.max_context)?;
        self.begin(id, None, self.max_context, NONE)?;
        Ok(SequenceId(id))
    }

    /// A sequence for `tokens`, which is to have at most `max_len` in the end, with as much of the
    /// first `reusable` of them as the cache has.
    pub(crate) fn open(
        &mut self,
        tokens: &[u32],
        reusable: usize,
        max_len: usize,
        identity: Identity,
    ) -> Result<(SequenceId, Prefix), NnError> {
        let max_len = max_len.min(self.max_context);
        let id = self.vacancy(max_len)?;
        let tokens = &tokens[..reusable.min(tokens.len())];
        let found = self.lookup(identity, tokens);
        // What it goes on from must not be evicted for what it needs.
        for page in &found.path {
            self.index.node_mut(*page).pins += 1;
        }
        if let Some(node) = found.partial {
            self.index.node_mut(node).pins += 1;
        }
        let begun = self.begin(id, Some(identity), max_len, found.state);
        let attached = begun.and_then(|()| self.attach(id, tokens, &found));
        for page in found.path.iter().chain(&found.partial) {
            self.index.node_mut(*page).pins -= 1;
        }
        if let Err(error) = attached {
            self.close(id, false);
            return Err(error);
        }
        self.plan_stops(id, tokens.len(), &found);
        match found.tokens {
            0 => self.usage.misses += 1,
            _ => self.usage.hits += 1,
        }
        self.usage.reused_tokens += found.tokens as u64;
        let prefix = Prefix {
            tokens: found.tokens,
            miss: found.miss,
        };
        Ok((SequenceId(id), prefix))
    }

    /// Ends a sequence; what can be of use to others stays.
    pub(crate) fn remove_sequence(&mut self, id: SequenceId) {
        self.close(id.0, true);
    }

    /// Tokens of a sequence; 0 for one that does not exist.
    pub(crate) fn len(&self, id: SequenceId) -> usize {
        let open = self.sequences.get(id.0).filter(|sequence| sequence.is_open);
        open.map_or(0, |sequence| sequence.tokens.len())
    }

    /// The most tokens that the next pass may append: up to where a state is to be kept.
    pub(crate) fn until_stop(&self, id: SequenceId) -> usize {
        let sequence = &self.sequences[id.0];
        let stop = sequence.stops.last();
        stop.map_or(usize::MAX, |stop| {
            stop.saturating_sub(sequence.tokens.len()).max(1)
        })
    }

    /// Makes room for `tokens` after those of the sequence.
    pub(crate) fn extend(&mut self, id: SequenceId, tokens: &[u32]) -> Result<(), NnError> {
        let open = self.sequences.get(id.0).filter(|sequence| sequence.is_open);
        let len = open.ok_or(NnError::UnknownSequence)?.tokens.len();
        let needed = len.saturating_add(tokens.len());
        if needed > self.max_context {
            return Err(NnError::KvFull {
                capacity: self.max_context,
                needed,
            });
        }
        // Only now it is certain that what the last pass appended stays.
        self.publish(id.0);
        self.slide(id.0);
        for group in 0..self.groups.len() {
            while self.sequences[id.0].tables[group].len() < needed.div_ceil(PAGE) {
                let Some(page) = self.take_page(group, NONE) else {
                    self.usage.failures += 1;
                    self.shorten(id.0, len);
                    let capacity = self.groups[group].live * PAGE;
                    return Err(NnError::KvFull { capacity, needed });
                };
                let sequence = &mut self.sequences[id.0];
                sequence.tables[group].push(page);
                sequence.taken += 1;
            }
        }
        self.sequences[id.0].tokens.extend_from_slice(tokens);
        Ok(())
    }

    /// Takes back the last `n` tokens of the last [`extend`](Self::extend).
    pub(crate) fn rollback(&mut self, id: SequenceId, n: usize) {
        if let Some(sequence) = self.sequences.get(id.0).filter(|it| it.is_open) {
            let len = sequence.tokens.len().saturating_sub(n);
            self.shorten(id.0, len);
        }
    }

    /// Keeps the state of a sequence where one is wanted; its last tokens have been computed.
    pub(crate) fn settle(&mut self, id: SequenceId) {
        let len = self.len(id);
        let stops = &mut self.sequences[id.0].stops;
        while stops.pop_if(|stop| *stop < len).is_some() {}
        if stops.pop_if(|stop| *stop == len).is_none() {
            return;
        }
        self.publish(id.0);
        let Sequence { node, state, .. } = self.sequences[id.0];
        if node == NONE || self.index.node(node).state != NONE {
            return;
        }
        if let Some(kept) = self.take_state(NONE) {
            self.states.copy(state, kept);
            self.index.node_mut(node).state = kept;
        }
    }

    /// One layer's pages, and where each of `tokens` (sequence, position) lies in them.
    pub(crate) fn layer<'k>(
        &'k mut self,
        layer: usize,
        tokens: &'k [(SequenceId, usize)],
    ) -> (&'k mut LayerKv, impl Fn(usize) -> Place<'k> + Sync) {
        let sequences = &self.sequences;
        let group = self.group_of[layer];
        let place = move |token: usize| {
            let (id, position) = tokens[token];
            let pages = &sequences[id.0].tables[group];
            Place { position, pages }
        };
        (&mut self.layers[layer], place)
    }

    /// Takes the memory of all pages and states from the system.
    pub(crate) fn commit(&mut self) {
        for layer in &mut self.layers {
            layer.pages.touch();
        }
        self.states.touch();
    }

    /// A recurrent layer's state of a sequence.
    pub(crate) fn state(&mut self, layer: usize, id: SequenceId) -> (&mut [f32], &mut [f32]) {
        self.states.of(layer, self.sequences[id.0].state)
    }

    /// Forgets all prefixes that no open sequence uses.
    pub(crate) fn clear_prefixes(&mut self) {
        while let Some(leaf) = self.oldest(|_, node| node.is_leaf() && node.pins == 0) {
            self.forget(leaf);
        }
    }

    /// What an open sequence has; nothing of one that is not.
    pub(crate) fn holding(&self, id: SequenceId) -> Holding {
        let Some(sequence) = self.sequences.get(id.0).filter(|it| it.is_open) else {
            return Holding::default();
        };
        let mut holding = Holding {
            taken_pages: sequence.taken,
            bytes: self.state_bytes,
            promised_bytes: self.state_bytes,
            ..Holding::default()
        };
        let tables = sequence.tables.iter().zip(sequence.promised);
        for (group, (table, promised)) in self.groups.iter().zip(tables) {
            let pages = table.iter().filter(|page| **page != NONE).count();
            holding.pages += pages;
            holding.bytes += pages * group.page_bytes;
            holding.promised_bytes += promised * group.page_bytes;
        }
        holding
    }

    /// How the cache is used.
    pub(crate) fn usage(&self) -> KvUsage {
        let mut usage = KvUsage {
            sequences: self.sequences.iter().filter(|it| it.is_open).count(),
            cached_states: self.index.iter().filter(|(_, it)| it.state != NONE).count(),
            ..self.usage
        };
        let mut used_bytes = (usage.cached_states + usage.sequences) * self.state_bytes;
        for (number, group) in self.groups.iter().enumerate() {
            usage.pages += group.pool.pages();
            usage.free_pages += group.pool.free();
            let only_cached = |page: u32| page != NONE && group.pool.users(page) == 1;
            let mut nodes = self.index.iter();
            let mut cached = 0;
            nodes.by_ref().for_each(|(_, node)| {
                cached += usize::from(only_cached(node.pages[number]));
            });
            usage.cached_pages += cached;
            used_bytes += (group.pool.pages() - group.pool.free()) * group.page_bytes;
        }
        usage.used_bytes = used_bytes;
        usage
    }

    /// A place for a sequence of up to `max_len` tokens.
    fn vacancy(&self, max_len: usize) -> Result<usize, NnError> {
        let capacity = self.sequences.len();
        let id = self.sequences.iter().position(|it| !it.is_open);
        let id = id.ok_or(NnError::TooManySequences { capacity })?;
        for group in &self.groups {
            if group.promised + self.promise(group, max_len) > self.limit(group) {
                return Err(NnError::KvBusy { tokens: max_len });
            }
        }
        Ok(id)
    }

    /// Pages that a sequence of `max_len` tokens needs of a group.
    fn promise(&self, group: &Group, max_len: usize) -> usize {
        let all = max_len.div_ceil(PAGE);
        group.window.map_or(all, |window| {
            all.min(window_pages(window + self.max_rollback))
        })
    }

    /// Pages of a group that may be promised; those that the tokens of a pass need on top stay out.
    fn limit(&self, group: &Group) -> usize {
        let all = self.sequences.len() * self.max_context.div_ceil(PAGE);
        match group.window {
            Some(_) if group.live < all => group.live - self.max_batch_tokens.div_ceil(PAGE),
            _ => group.live,
        }
    }

    fn begin(
        &mut self,
        id: usize,
        identity: Option<Identity>,
        max_len: usize,
        needed: u32,
    ) -> Result<(), NnError> {
        let mut promised = [0; MAX_GROUPS];
        for (promised, group) in promised.iter_mut().zip(&self.groups) {
            *promised = self.promise(group, max_len);
        }
        for (promised, group) in promised.iter().zip(&mut self.groups) {
            group.promised += promised;
        }
        let sequence = &mut self.sequences[id];
        sequence.is_open = true;
        sequence.promised = promised;
        sequence.taken = 0;
        sequence.identity = identity.filter(|_| self.settings.enabled);
        sequence.node = NONE;
        sequence.indexed = 0;
        sequence.state = NONE;
        sequence.stops.clear();
        if !self.states.is_empty() {
            let state = self.take_state(needed).ok_or(NnError::TooManySequences {
                capacity: self.sequences.len(),
            });
            match state {
                Ok(state) => {
                    self.states.clear(state);
                    self.sequences[id].state = state;
                }
                Err(error) => {
                    self.close(id, false);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Gives a sequence what was found for its tokens.
    fn attach(&mut self, id: usize, tokens: &[u32], found: &Found) -> Result<(), NnError> {
        let whole = found.path.len();
        for group in 0..self.groups.len() {
            let seen = self.groups[group]
                .window
                .map_or(0, |window| (found.tokens + 1).saturating_sub(window));
            for (number, node) in found.path.iter().enumerate() {
                let page = self.index.node(*node).pages[group];
                let page = if (number + 1) * PAGE <= seen {
                    NONE
                } else {
                    page
                };
                if page != NONE {
                    self.groups[group].pool.share(page);
                }
                self.sequences[id].tables[group].push(page);
            }
            if let Some(node) = found.partial {
                let own = self.take_page(group, node).ok_or(NnError::KvBusy {
                    tokens: tokens.len(),
                })?;
                self.sequences[id].tables[group].push(own);
                self.sequences[id].taken += 1;
                let from = self.index.node(node).pages[group];
                let layers = self.layers.iter_mut().zip(&self.group_of);
                for (layer, _) in layers.filter(|(_, of)| **of == group) {
                    layer.pages.copy_page(from, own);
                }
            }
        }
        if found.state != NONE {
            let own = self.sequences[id].state;
            self.states.copy(found.state, own);
        }
        // The ancestors of what is used last are used later, so that leaves go first.
        for node in found.partial.iter().chain(found.path.iter().rev()) {
            self.index.touch(*node);
        }
        let sequence = &mut self.sequences[id];
        sequence.tokens.extend_from_slice(&tokens[..found.tokens]);
        sequence.indexed = whole;
        sequence.node = found.path.last().copied().unwrap_or(NONE);
        if sequence.node != NONE {
            let node = sequence.node;
            self.index.node_mut(node).pins += 1;
        }
        Ok(())
    }

    /// Gives back pages that no later token of the sequence sees.
    fn slide(&mut self, id: usize) {
        let sequence = &mut self.sequences[id];
        let len = sequence.tokens.len();
        for (group, table) in self.groups.iter_mut().zip(&mut sequence.tables) {
            let Some(window) = group.window else {
                continue;
            };
            let seen = (len + 1).saturating_sub(window + self.max_rollback);
            let gone = table.iter_mut().take(seen / PAGE).rev();
            for page in gone.take_while(|page| **page != NONE) {
                self.usage.freed_pages += u64::from(group.pool.give_back(*page));
                *page = NONE;
            }
        }
    }

    fn shorten(&mut self, id: usize, len: usize) {
        let sequence = &mut self.sequences[id];
        sequence.tokens.truncate(len);
        for (group, table) in self.groups.iter_mut().zip(&mut sequence.tables) {
            for page in table.drain(len.div_ceil(PAGE).min(table.len())..) {
                self.usage.freed_pages += u64::from(group.pool.give_back(page));
            }
        }
    }

    fn close(&mut self, id: usize, keep: bool) {
        if !self.sequences.get(id).is_some_and(|it| it.is_open) {
            return;
        }
        if keep {
            self.publish(id);
            self.keep_end(id);
        }
        self.shorten(id, 0);
        let sequence = &mut self.sequences[id];
        sequence.is_open = false;
        for (promised, group) in sequence.promised.iter().zip(&mut self.groups) {
            group.promised -= promised;
        }
        let node = std::mem::replace(&mut sequence.node, NONE);
        let state = std::mem::replace(&mut sequence.state, NONE);
        if node != NONE {
            self.index.node_mut(node).pins -= 1;
        }
        if state != NONE {
            self.states.give_back(state);
        }
    }
}
