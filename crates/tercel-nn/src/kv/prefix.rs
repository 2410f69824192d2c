//! How sequences take over what earlier ones computed, and leave what they did.

use tercel_kernels::ops::attention::PAGE;

use super::index::{Identity, NONE, Walk};
use super::{KvCache, Miss, STATE_INTERVAL, Sequence};

/// What of the cache a new sequence can go on from.
pub(super) struct Found {
    pub(super) tokens: usize,
    /// Nodes of whole pages.
    pub(super) path: Vec<u32>,
    /// A page to copy.
    pub(super) partial: Option<u32>,
    pub(super) state: u32,
    /// Tokens that some sequence shares, whether or not they are of use.
    pub(super) matched: usize,
    pub(super) miss: Option<Miss>,
}

impl KvCache {
    /// The most of `tokens` that a sequence can go on from.
    pub(super) fn lookup(&self, identity: Identity, tokens: &[u32]) -> Found {
        let mut found = Found {
            tokens: 0,
            path: Vec::new(),
            partial: None,
            state: NONE,
            matched: 0,
            miss: None,
        };
        if !self.settings.enabled {
            found.miss = Some(Miss::Disabled);
            return found;
        }
        let Walk { path, partial } = self.index.walk(identity, tokens);
        let whole = path.len() * PAGE;
        found.matched = whole + partial.map_or(0, |(_, shared)| shared);
        if found.matched == 0 {
            let otherwise = self.index.is_known_otherwise(identity, tokens);
            found.miss = Some(if otherwise {
                Miss::OtherIdentity
            } else {
                Miss::NotCached
            });
            return found;
        }
        let partial = self.usable_partial(identity, path.last().copied(), tokens, whole, partial);
        let mut lacks = None;
        let with_partial = partial.map(|(node, shared)| (whole + shared, Some(node)));
        let wholes = (1..=path.len()).rev().map(|pages| (pages * PAGE, None));
        for (len, partial) in with_partial.into_iter().chain(wholes) {
            let path = &path[..len / PAGE];
            if !self.has_windows(path, partial, len) {
                lacks.get_or_insert(Miss::WindowGone);
                continue;
            }
            let last = partial.or(path.last().copied());
            let state = last.map_or(NONE, |node| self.index.node(node).state);
            if !self.states.is_empty() && state == NONE {
                lacks.get_or_insert(Miss::StateGone);
                continue;
            }
            (found.tokens, found.partial, found.state) = (len, partial, state);
            found.path.extend_from_slice(path);
            break;
        }
        if found.tokens < self.settings.min_tokens && found.tokens > 0 {
            let matched = found.matched;
            let none = Found {
                tokens: 0,
                path: Vec::new(),
                partial: None,
                state: NONE,
                matched,
                miss: Some(Miss::TooShort),
            };
            return none;
        }
        found.miss = lacks;
        if found.tokens == 0 && found.miss.is_none() {
            found.miss = Some(Miss::StateGone);
        }
        found
    }

    /// A page whose first tokens go on from `path`: for a recurrent model one whose state is just
    /// after them.
    pub(super) fn usable_partial(
        &self,
        identity: Identity,
        parent: Option<u32>,
        tokens: &[u32],
        whole: usize,
        longest: Option<(u32, usize)>,
    ) -> Option<(u32, usize)> {
        if self.states.is_empty() {
            return longest;
        }
        let rest = &tokens[whole..];
        (1..=rest.len().min(PAGE - 1)).rev().find_map(|shared| {
            let node = self
                .index
                .find(parent.unwrap_or(NONE), identity, &rest[..shared])?;
            (self.index.node(node).state != NONE).then_some((node, shared))
        })
    }

    /// Whether every page that a token at position `len` sees is there.
    pub(super) fn has_windows(&self, path: &[u32], partial: Option<u32>, len: usize) -> bool {
        let groups = self.groups.iter().enumerate();
        groups
            .filter_map(|(number, group)| Some((number, group.window?)))
            .all(|(number, window)| {
                let first = (len + 1).saturating_sub(window) / PAGE;
                let seen = path.iter().skip(first).chain(&partial);
                seen.into_iter()
                    .all(|node| self.index.node(*node).pages[number] != NONE)
            })
    }

    /// Lengths at which the state of a new sequence is worth keeping: at intervals, where it parts
    /// from others, and before the end of its prompt.
    pub(super) fn plan_stops(&mut self, id: usize, reusable: usize, found: &Found) {
        let Sequence {
            stops, identity, ..
        } = &mut self.sequences[id];
        if self.states.is_empty() || identity.is_none() {
            return;
        }
        let page = |len: usize| len / PAGE * PAGE;
        let last = reusable.min(self.settings.max_tokens);
        stops.extend((1..=last / STATE_INTERVAL).map(|interval| interval * STATE_INTERVAL));
        stops.extend([page(found.matched.min(last)), page(last)]);
        stops.retain(|stop| *stop > found.tokens);
        stops.sort_unstable_by(|a, b| b.cmp(a));
        stops.dedup();
    }

    /// Puts the whole pages of a sequence into the index.
    pub(super) fn publish(&mut self, id: usize) {
        let Some(identity) = self.sequences[id].identity else {
            return;
        };
        loop {
            let Sequence {
                tokens,
                node: parent,
                indexed,
                ..
            } = &self.sequences[id];
            let (parent, indexed) = (*parent, *indexed);
            let end = (indexed + 1) * PAGE;
            if end > tokens.len().min(self.settings.max_tokens) {
                return;
            }
            let page = &tokens[end - PAGE..end];
            let node = match self.index.find(parent, identity, page) {
                Some(node) => node,
                None => {
                    let shorter = self.index.find_beginning(parent, identity, page);
                    let node = self.index.add(parent, identity, page);
                    // What ended here before is part of the new page now.
                    if let Some(shorter) = shorter.filter(|it| self.is_superseded(*it)) {
                        self.forget(shorter);
                    }
                    node
                }
            };
            self.merge(id, indexed, node);
            if parent != NONE {
                self.index.node_mut(parent).pins -= 1;
            }
            self.index.node_mut(node).pins += 1;
            let sequence = &mut self.sequences[id];
            sequence.node = node;
            sequence.indexed += 1;
        }
    }

    pub(super) fn is_superseded(&self, node: u32) -> bool {
        let node = self.index.node(node);
        node.pins == 0 && node.state == NONE && node.is_leaf()
    }

    /// Makes a page of a sequence and a node with the same tokens one: each takes from the other
    /// what it lacks, and what both have is kept once.
    pub(super) fn merge(&mut self, id: usize, number: usize, node: u32) {
        for (group, table) in self.sequences[id].tables.iter_mut().enumerate() {
            let Some(own) = table.get_mut(number) else {
                continue;
            };
            let pool = &mut self.groups[group].pool;
            let kept = &mut self.index.node_mut(node).pages[group];
            match (*own, *kept) {
                (NONE, _) => {}
                (page, NONE) => {
                    pool.share(page);
                    *kept = page;
                }
                (page, same) if page == same => {}
                (page, other) => {
                    pool.share(other);
                    self.usage.freed_pages += u64::from(pool.give_back(page));
                    *own = other;
                }
            }
        }
    }

    /// Puts what follows the last whole page into the index, and the state after it.
    pub(super) fn keep_end(&mut self, id: usize) {
        let Sequence {
            tokens,
            identity,
            node: parent,
            indexed,
            state,
            ..
        } = &self.sequences[id];
        let (&Some(identity), parent, indexed, state) = (identity, *parent, *indexed, *state)
        else {
            return;
        };
        let rest = &tokens[indexed * PAGE..];
        if tokens.len() > self.settings.max_tokens {
            return;
        }
        let last = if rest.is_empty() {
            parent
        } else {
            let node = match self.index.find(parent, identity, rest) {
                Some(node) => node,
                None => {
                    let shorter = self.index.find_beginning(parent, identity, rest);
                    let node = self.index.add(parent, identity, rest);
                    if let Some(shorter) = shorter.filter(|it| self.is_superseded(*it)) {
                        self.forget(shorter);
                    }
                    node
                }
            };
            self.merge(id, indexed, node);
            node
        };
        if last != NONE && state != NONE && self.index.node(last).state == NONE {
            self.index.node_mut(last).state = state;
            self.sequences[id].state = NONE;
        }
        if last != NONE {
            self.index.touch(last);
        }
    }
}
