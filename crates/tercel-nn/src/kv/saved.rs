//! What the cache holds of a prefix, as bytes: for sessions that outlive their process.
//!
//! The bytes begin with the sizes that both sides must agree on; then come the pages, each group's
//! after a byte that says whether it is there; then the state after the last token.

use super::KvCache;
use super::index::{Identity, NONE};
use super::prefix::Found;
use crate::NnError;
use tercel_kernels::ops::attention::PAGE;

impl KvCache {
    /// The pages and the state of as many of `tokens` as the cache has; nothing where it has none.
    pub(crate) fn export(&self, tokens: &[u32], identity: Identity) -> Option<Vec<u8>> {
        let Found {
            tokens: len,
            path,
            partial,
            state,
            ..
        } = self.lookup(identity, tokens);
        if len == 0 {
            return None;
        }
        let mut out = self.header();
        out.extend((len as u32).to_le_bytes());
        for node in path.iter().chain(&partial) {
            for (number, _) in self.groups.iter().enumerate() {
                let page = self.index.node(*node).pages[number];
                out.push(u8::from(page != NONE));
                if page != NONE {
                    for (layer, _) in self.layers_of(number) {
                        self.layers[layer].pages.read_page(page, &mut out);
                    }
                }
            }
        }
        if state != NONE {
            self.states.read(state, &mut out);
        }
        Some(out)
    }

    /// Takes back what [`export`](Self::export) gave for the same tokens, as far as there is room.
    /// Gives of how many tokens.
    pub(crate) fn import(
        &mut self,
        tokens: &[u32],
        identity: Identity,
        saved: &[u8],
    ) -> Result<usize, NnError> {
        let wrong = |problem: &'static str| NnError::SavedState { problem };
        let header = self.header();
        let rest = saved
            .strip_prefix(header.as_slice())
            .ok_or(wrong("it was made with other settings"))?;
        let (len, mut rest) = rest
            .split_first_chunk::<4>()
            .ok_or(wrong("it is cut off"))?;
        let len = u32::from_le_bytes(*len) as usize;
        if len == 0 || len > tokens.len() {
            return Err(wrong("it is not of these tokens"));
        }
        // All of it is looked at before any of it is taken.
        let mut pages = Vec::new();
        for _ in 0..len.div_ceil(PAGE) {
            for group in &self.groups {
                let (there, after) = rest.split_first().ok_or(wrong("it is cut off"))?;
                let size = if *there == 0 { 0 } else { group.page_bytes };
                let (page, after) = after.split_at_checked(size).ok_or(wrong("it is cut off"))?;
                pages.push(page);
                rest = after;
            }
        }
        let state_bytes = if self.states.is_empty() {
            0
        } else {
            self.state_bytes
        };
        if rest.len() != state_bytes {
            return Err(wrong("it has another length than it says"));
        }
        if !self.settings.enabled {
            return Ok(0);
        }
        Ok(self.put(&tokens[..len], identity, &pages, rest))
    }

    /// Puts pages, those of each group for each page of tokens, into the index.
    fn put(&mut self, tokens: &[u32], identity: Identity, pages: &[&[u8]], state: &[u8]) -> usize {
        let mut parent = NONE;
        let mut taken = 0;
        for (page_tokens, saved) in tokens.chunks(PAGE).zip(pages.chunks(self.groups.len())) {
            let node = match self.index.find(parent, identity, page_tokens) {
                Some(node) => node,
                None => self.index.add(parent, identity, page_tokens),
            };
            // What is put must not be evicted for what follows.
            self.index.node_mut(node).pins += 1;
            if parent != NONE {
                self.index.node_mut(parent).pins -= 1;
            }
            parent = node;
            let mut is_whole = true;
            for (group, bytes) in saved.iter().enumerate() {
                if bytes.is_empty() || self.index.node(node).pages[group] != NONE {
                    continue;
                }
                let Some(page) = self.take_page(group, node) else {
                    is_whole = false;
                    continue;
                };
                self.index.node_mut(node).pages[group] = page;
                let mut bytes = *bytes;
                let layers: Vec<_> = self.layers_of(group).collect();
                for (layer, size) in layers {
                    let (own, after) = bytes.split_at(size);
                    self.layers[layer].pages.write_page(page, own);
                    bytes = after;
                }
            }
            if !is_whole {
                break;
            }
            taken += page_tokens.len();
        }
        if parent == NONE {
            return 0;
        }
        if taken == tokens.len()
            && !state.is_empty()
            && self.index.node(parent).state == NONE
            && let Some(slot) = self.take_state(NONE)
        {
            self.states.write(slot, state);
            self.index.node_mut(parent).state = slot;
        }
        self.index.node_mut(parent).pins -= 1;
        self.drop_if_empty(parent);
        taken
    }

    /// The layers of a group, with the bytes of a page of each.
    fn layers_of(&self, group: usize) -> impl Iterator<Item = (usize, usize)> + '_ {
        let layers = self.layers.iter().zip(&self.group_of).enumerate();
        layers
            .filter(move |(_, (_, of))| **of == group)
            .map(|(number, (layer, _))| (number, layer.page_bytes()))
    }

    /// What both sides must agree on.
    fn header(&self) -> Vec<u8> {
        let mut header = Vec::new();
        let kind = self.layers.first().map(|layer| layer.pages.kind());
        header.extend(format!("{kind:?};{PAGE};{};", self.state_bytes).bytes());
        for group in &self.groups {
            header.extend(format!("{:?}:{};", group.window, group.page_bytes).bytes());
        }
        header
    }
}
