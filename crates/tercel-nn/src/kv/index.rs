//! The index of cached pages: a tree whose nodes are the tokens of a page after those of another.
//!
//! Nodes are found by their tokens, compared one by one: there is no hash that could collide. The
//! nodes that begin a sequence also carry its [`Identity`], so what was computed for one template
//! is never taken for another.

use tercel_kernels::ops::attention::PAGE;

use super::MAX_GROUPS;

/// What token ids alone do not say of a prompt, such as its template: prefixes are shared between
/// sequences of the same identity only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Identity(pub u64);

/// No node, no page, no state.
pub(super) const NONE: u32 = u32::MAX;

/// The cached pages.
pub(super) struct Index {
    nodes: Vec<Node>,
    /// Places in `nodes` that can be used again.
    vacant: Vec<u32>,
    /// First of the nodes without a parent.
    first: u32,
    clock: u64,
}

/// The tokens of one page, after those of its ancestors.
pub(super) struct Node {
    parent: u32,
    child: u32,
    sibling: u32,
    identity: Identity,
    /// Fewer than a page at the end of a sequence; such a node has no children.
    len: u8,
    tokens: [u32; PAGE],
    /// The page of each group of layers.
    pub(super) pages: [u32; MAX_GROUPS],
    /// The recurrent state after the last of the tokens.
    pub(super) state: u32,
    /// Open sequences whose pages go on from here.
    pub(super) pins: u32,
    /// When it was last of use.
    pub(super) used: u64,
}

impl Node {
    pub(super) fn tokens(&self) -> &[u32] {
        &self.tokens[..usize::from(self.len)]
    }

    pub(super) fn parent(&self) -> u32 {
        self.parent
    }

    pub(super) fn is_leaf(&self) -> bool {
        self.child == NONE
    }
}

/// The longest beginning that the index has of some tokens.
pub(super) struct Walk {
    /// Whole pages, first to last.
    pub(super) path: Vec<u32>,
    /// The node that has the most of the tokens after those, and how many.
    pub(super) partial: Option<(u32, usize)>,
}

impl Index {
    /// An index with room for `nodes` before it has to allocate.
    pub(super) fn with_capacity(nodes: usize) -> Self {
        Self {
            nodes: Vec::with_capacity(nodes),
            vacant: Vec::with_capacity(nodes),
            first: NONE,
            clock: 0,
        }
    }

    /// Bytes that [`with_capacity`](Self::with_capacity) takes.
    pub(super) fn bytes(nodes: usize) -> usize {
        nodes * (size_of::<Node>() + size_of::<u32>())
    }

    pub(super) fn node(&self, id: u32) -> &Node {
        &self.nodes[id as usize]
    }

    pub(super) fn node_mut(&mut self, id: u32) -> &mut Node {
        &mut self.nodes[id as usize]
    }

    /// The nodes that are there.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Node)> {
        let nodes = self.nodes.iter().enumerate();
        nodes
            .filter(|(_, node)| node.len > 0)
            .map(|(id, node)| (id as u32, node))
    }

    /// Follows `tokens` as far as there are nodes.
    pub(super) fn walk(&self, identity: Identity, tokens: &[u32]) -> Walk {
        let mut path = Vec::new();
        let mut parent = NONE;
        let mut rest = tokens;
        while rest.len() >= PAGE {
            let (page, after) = rest.split_at(PAGE);
            let Some(node) = self.find(parent, identity, page) else {
                break;
            };
            path.push(node);
            (parent, rest) = (node, after);
        }
        let partial = self
            .children(parent, identity)
            .map(|id| (id, common(self.node(id).tokens(), rest)))
            .filter(|(_, shared)| *shared > 0)
            .max_by_key(|(_, shared)| *shared);
        Walk { path, partial }
    }

    /// The child of `parent` with exactly these tokens.
    pub(super) fn find(&self, parent: u32, identity: Identity, tokens: &[u32]) -> Option<u32> {
        self.children(parent, identity)
            .find(|id| self.node(*id).tokens() == tokens)
    }

    /// The children of `parent` that end a sequence and whose tokens `tokens` begins with.
    pub(super) fn find_beginning(
        &self,
        parent: u32,
        identity: Identity,
        tokens: &[u32],
    ) -> Option<u32> {
        self.children(parent, identity).find(|id| {
            let own = self.node(*id).tokens();
            own.len() < tokens.len() && tokens.starts_with(own)
        })
    }

    /// Whether sequences of any other identity begin with a page of `tokens`.
    pub(super) fn is_known_otherwise(&self, identity: Identity, tokens: &[u32]) -> bool {
        self.siblings(self.first).any(|id| {
            self.node(id).identity != identity && tokens.starts_with(self.node(id).tokens())
        })
    }

    /// Adds a node without pages.
    pub(super) fn add(&mut self, parent: u32, identity: Identity, tokens: &[u32]) -> u32 {
        let mut own = [0; PAGE];
        own[..tokens.len()].copy_from_slice(tokens);
        let sibling = match parent {
            NONE => self.first,
            parent => self.node(parent).child,
        };
        let node = Node {
            parent,
            child: NONE,
            sibling,
            identity,
            len: tokens.len() as u8,
            tokens: own,
            pages: [NONE; MAX_GROUPS],
            state: NONE,
            pins: 0,
            used: self.tick(),
        };
        let id = match self.vacant.pop() {
            Some(id) => {
                *self.node_mut(id) = node;
                id
            }
            None => {
                self.nodes.push(node);
                (self.nodes.len() - 1) as u32
            }
        };
        match parent {
            NONE => self.first = id,
            parent => self.node_mut(parent).child = id,
        }
        id
    }

    /// Removes a leaf.
    pub(super) fn remove(&mut self, id: u32) {
        debug_assert!(self.node(id).is_leaf(), "a node with children stays");
        let (parent, sibling) = (self.node(id).parent, self.node(id).sibling);
        let first = match parent {
            NONE => self.first,
            parent => self.node(parent).child,
        };
        if first == id {
            match parent {
                NONE => self.first = sibling,
                parent => self.node_mut(parent).child = sibling,
            }
        } else {
            let before = self
                .siblings(first)
                .find(|other| self.node(*other).sibling == id);
            if let Some(before) = before {
                self.node_mut(before).sibling = sibling;
            }
        }
        self.node_mut(id).len = 0;
        self.vacant.push(id);
    }

    /// Notes that a node is of use now.
    pub(super) fn touch(&mut self, id: u32) {
        let now = self.tick();
        self.node_mut(id).used = now;
    }

    /// Places for nodes, vacant ones included.
    #[cfg(test)]
    pub(super) fn nodes(&self) -> usize {
        self.nodes.len()
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn children(&self, parent: u32, identity: Identity) -> impl Iterator<Item = u32> + '_ {
        let first = match parent {
            NONE => self.first,
            parent => self.node(parent).child,
        };
        self.siblings(first)
            .filter(move |id| self.node(*id).identity == identity)
    }

    fn siblings(&self, first: u32) -> impl Iterator<Item = u32> + '_ {
        let there = |id: u32| (id != NONE).then_some(id);
        std::iter::successors(there(first), move |id| there(self.node(*id).sibling))
    }
}

/// How many tokens both begin with.
fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
