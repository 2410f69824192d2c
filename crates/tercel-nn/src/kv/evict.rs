//! Room for what is computed, taken from the prefix cache where nothing is free: what was not used
//! for the longest time goes first.

use super::KvCache;
use super::index::{self, NONE};

impl KvCache {
    /// A page of a group, taken from the prefix cache where none is free; never that of `needed`.
    pub(super) fn take_page(&mut self, group: usize, needed: u32) -> Option<u32> {
        while self.groups[group].pool.free() == 0 {
            let pool = &self.groups[group].pool;
            let is_whole = self.groups[group].window.is_none();
            let victim = self.oldest(|id, node| {
                let page = node.pages[group];
                let is_ours = page != NONE && pool.users(page) == 1 && id != needed;
                // Without its keys and values of full attention, a node is worth nothing. Those of a
                // window are shared by the sequences that see them, whatever else a node is pinned
                // for.
                is_ours && (!is_whole || (node.pins == 0 && node.is_leaf()))
            })?;
            self.usage.evictions += 1;
            if is_whole {
                self.forget(victim);
            } else {
                let page = std::mem::replace(&mut self.index.node_mut(victim).pages[group], NONE);
                self.usage.freed_pages += u64::from(self.groups[group].pool.give_back(page));
                self.drop_if_empty(victim);
            }
        }
        self.usage.allocated_pages += 1;
        self.groups[group].pool.take()
    }

    /// A state, taken from the prefix cache where none is free; never `needed`.
    pub(super) fn take_state(&mut self, needed: u32) -> Option<u32> {
        if self.states.free() == 0 {
            let victim = self.oldest(|_, node| node.state != NONE && node.state != needed)?;
            let state = std::mem::replace(&mut self.index.node_mut(victim).state, NONE);
            self.states.give_back(state);
            self.usage.evictions += 1;
            self.drop_if_empty(victim);
        }
        self.states.take()
    }

    /// Removes nodes that hold nothing any more, from `node` upwards.
    pub(super) fn drop_if_empty(&mut self, mut node: u32) {
        while node != NONE {
            let it = self.index.node(node);
            let is_empty = it.pages.iter().all(|page| *page == NONE) && it.state == NONE;
            if !is_empty || !it.is_leaf() || it.pins > 0 {
                return;
            }
            let parent = it.parent();
            self.index.remove(node);
            node = parent;
        }
    }

    /// The node that was not used for the longest time, of those that `may` go.
    pub(super) fn oldest(&self, may: impl Fn(u32, &index::Node) -> bool) -> Option<u32> {
        let nodes = self.index.iter().filter(|(id, node)| may(*id, node));
        nodes.min_by_key(|(_, node)| node.used).map(|(id, _)| id)
    }

    /// Removes a leaf with all it holds.
    pub(super) fn forget(&mut self, node: u32) {
        let it = self.index.node_mut(node);
        let state = std::mem::replace(&mut it.state, NONE);
        let pages = it.pages;
        for (group, page) in self.groups.iter_mut().zip(pages) {
            self.usage.freed_pages += u64::from(group.pool.give_back(page));
        }
        if state != NONE {
            self.states.give_back(state);
        }
        self.index.remove(node);
    }
}
