//! SentencePiece's `precompiled_charsmap`: replacements of characters, found by a double-array
//! trie (Darts-clone) that lies ready in the file.

use unicode_segmentation::UnicodeSegmentation;

/// Longest replacement, in bytes. The longest of the published tables has 33.
const MAX_REPLACEMENT_BYTES: usize = 256;

/// Longest entry that is looked for, in bytes; those of the published tables have under 30.
const MAX_KEY_BYTES: usize = 256;

/// A trie and the texts that its values point to.
pub(super) struct Charsmap {
    units: Vec<u32>,
    texts: Vec<u8>,
    longest: usize,
}

impl Charsmap {
    /// Reads the size of the trie, the trie, and the texts, each ended by a zero byte.
    ///
    /// # Errors
    /// Says what is wrong with the table.
    pub(super) fn parse(blob: &[u8]) -> Result<Self, String> {
        let (size, rest) = blob.split_first_chunk().ok_or("a table without a size")?;
        let size = usize::try_from(u32::from_le_bytes(*size)).map_err(|e| e.to_string())?;
        if size % 4 != 0 || size > rest.len() || size == 0 {
            return Err(format!("a trie of {size} bytes in {}", rest.len()));
        }
        let (trie, texts) = rest.split_at(size);
        let words = trie.chunks_exact(4);
        let units =
            words.filter_map(|word| word.first_chunk().map(|word| u32::from_le_bytes(*word)));
        let longest = texts.split(|byte| *byte == 0).map(<[u8]>::len).max();
        let longest = longest.unwrap_or(0);
        if longest > MAX_REPLACEMENT_BYTES {
            return Err(format!("a replacement of {longest} bytes, at most 256"));
        }
        if std::str::from_utf8(texts).is_err() {
            return Err("replacements that are not UTF-8".into());
        }
        Ok(Self {
            units: units.collect(),
            texts: texts.to_vec(),
            longest,
        })
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.units.capacity() * size_of::<u32>() + self.texts.capacity()
    }

    /// How many times as long a text may become.
    pub(super) fn growth(&self) -> usize {
        self.longest.max(1)
    }

    /// Replaces the longest entry at each place.
    pub(super) fn replace_longest(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let mut best = None;
            self.prefixes(rest.as_bytes(), |length, value| {
                best = Some((length, value));
            });
            let found = best.filter(|(length, _)| rest.is_char_boundary(*length));
            match found.and_then(|(length, value)| Some((length, self.text(value)?))) {
                Some((length, replacement)) => {
                    out.push_str(replacement);
                    rest = &rest[length..];
                }
                None => {
                    out.push(c);
                    rest = &rest[c.len_utf8()..];
                }
            }
        }
        out
    }

    /// Replaces short clusters as a whole where the table has an entry for how they begin, other
    /// characters one by one.
    pub(super) fn replace_clusters(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        for cluster in text.graphemes(true) {
            if cluster.len() < 6
                && let Some(replacement) = self.shortest(cluster)
            {
                out.push_str(replacement);
                continue;
            }
            for (at, c) in cluster.char_indices() {
                let text = &cluster[at..at + c.len_utf8()];
                out.push_str(self.shortest(text).unwrap_or(text));
            }
        }
        out
    }

    /// The replacement of the shortest entry that `text` begins with.
    fn shortest(&self, text: &str) -> Option<&str> {
        let mut first = None;
        self.prefixes(text.as_bytes(), |_, value| {
            first.get_or_insert(value);
        });
        self.text(first?)
    }

    fn text(&self, start: usize) -> Option<&str> {
        let text = self.texts.get(start..)?.split(|byte| *byte == 0).next()?;
        std::str::from_utf8(text).ok()
    }

    /// Calls `found` with the length and value of each entry that `text` begins with, short to
    /// long. Offsets that lead out of the trie end the walk.
    fn prefixes(&self, text: &[u8], mut found: impl FnMut(usize, usize)) {
        let unit = |at: usize| self.units.get(at).copied();
        let offset = |unit: u32| ((unit >> 10) << ((unit & (1 << 9)) >> 6)) as usize;
        let Some(root) = unit(0) else { return };
        let mut at = offset(root);
        for (depth, byte) in text.iter().take(MAX_KEY_BYTES).enumerate() {
            at ^= usize::from(*byte);
            let Some(here) = unit(at) else { return };
            // The label, with the bit that marks a value.
            if here & (1 << 31 | 0xff) != u32::from(*byte) {
                return;
            }
            at ^= offset(here);
            if here >> 8 & 1 == 1
                && let Some(leaf) = unit(at)
            {
                found(depth + 1, (leaf & !(1 << 31)) as usize);
            }
        }
    }
}
