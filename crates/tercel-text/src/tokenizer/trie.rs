//! A set of strings in which all prefixes of a text are found in one walk.

use super::TokenId;
use crate::error::TextError;

/// Nodes in the order of a breadth-first walk; the children of one lie together, sorted by byte.
pub(super) struct Trie {
    bytes: Vec<u8>,
    nodes: Vec<TrieNode>,
}

#[derive(Clone, Copy, Default)]
struct TrieNode {
    /// The first of its children.
    children: u32,
    /// How many children: at most 256.
    count: u16,
    /// The token that ends here plus one; 0 where none does.
    entry: u32,
}

impl Trie {
    /// Of equal texts the one with the lowest id is found. The texts are sorted and not empty.
    pub(super) fn of_sorted(entries: &[(&str, TokenId)]) -> Result<Self, TextError> {
        let mut trie = Self {
            bytes: vec![0],
            nodes: vec![TrieNode::default()],
        };
        // The stretch of entries that each node holds, and how many of their bytes lead to it.
        let mut queue = std::collections::VecDeque::from([(0usize, 0..entries.len(), 0usize)]);
        while let Some((node, mut range, depth)) = queue.pop_front() {
            let text = |at: usize| entries[at].0.as_bytes();
            if depth > 0 {
                while range.start < range.end && text(range.start).len() == depth {
                    if trie.nodes[node].entry == 0 {
                        trie.nodes[node].entry = entries[range.start].1 + 1;
                    }
                    range.start += 1;
                }
            }
            let first = trie.nodes.len();
            let mut at = range.start;
            while at < range.end {
                let byte = text(at)[depth];
                let length =
                    entries[at..range.end].partition_point(|(t, _)| t.as_bytes()[depth] == byte);
                queue.push_back((trie.nodes.len(), at..at + length, depth + 1));
                trie.bytes.push(byte);
                trie.nodes.push(TrieNode::default());
                at += length;
            }
            let too_many = |_| TextError::Vocabulary {
                problem: "more than 4 GiB of text".into(),
            };
            trie.nodes[node].children = u32::try_from(first).map_err(too_many)?;
            trie.nodes[node].count = u16::try_from(trie.nodes.len() - first).unwrap_or(u16::MAX);
        }
        Ok(trie)
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.bytes.capacity() + self.nodes.capacity() * size_of::<TrieNode>()
    }

    /// Calls `found` with the length and id of each entry that `text` begins with, short to long.
    pub(super) fn prefixes(&self, text: &[u8], mut found: impl FnMut(usize, TokenId)) {
        let mut node = self.nodes[0];
        for (depth, byte) in text.iter().enumerate() {
            let first = node.children as usize;
            let children = &self.bytes[first..first + usize::from(node.count)];
            let Ok(at) = children.binary_search(byte) else {
                return;
            };
            node = self.nodes[first + at];
            if let Some(id) = node.entry.checked_sub(1) {
                found(depth + 1, id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_prefix_is_found_short_to_long() {
        let entries = [
            ("a", 5),
            ("ab", 2),
            ("ab", 9),
            ("abcd", 1),
            ("b", 3),
            ("\u{e9}", 4),
        ];
        let trie = Trie::of_sorted(&entries).expect("a small set");
        let cases: &[(&str, &[(usize, TokenId)])] = &[
            ("abcde", &[(1, 5), (2, 2), (4, 1)]),
            ("abc", &[(1, 5), (2, 2)]),
            ("b", &[(1, 3)]),
            ("\u{e9}x", &[(2, 4)]),
            ("\u{e8}", &[]),
            ("", &[]),
        ];
        for (text, expected) in cases {
            let mut found = Vec::new();
            trie.prefixes(text.as_bytes(), |length, id| found.push((length, id)));
            assert_eq!(found, *expected, "{text}");
        }
        Trie::of_sorted(&[])
            .expect("an empty set")
            .prefixes(b"a", |_, _| unreachable!());
    }
}
