//! Numbers that look random and are the same for the same seed.

/// Splitmix64 (Steele, Lea, Flood 2014).
pub(crate) struct Random(u64);

impl Random {
    /// A sequence for `seed`, and another for each `stream` of it.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ stream.wrapping_mul(0xD1B5_4A32_D192_ED03))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// One of `from..to`; `from` where that is empty.
    pub(crate) fn between(&mut self, from: usize, to: usize) -> usize {
        let n = to.saturating_sub(from).max(1) as u64;
        from + (self.next() % n) as usize
    }

    /// True in `percent` of 100 cases.
    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.between(0, 100) < percent
    }

    /// One of `items`, of which there are some.
    pub(crate) fn pick<T: Clone>(&mut self, items: &[T]) -> T {
        items[self.between(0, items.len())].clone()
    }

    /// `n` token ids below `vocab`.
    pub(crate) fn tokens(&mut self, n: usize, vocab: u32) -> Vec<u32> {
        (0..n)
            .map(|_| self.between(0, vocab as usize) as u32)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_sequence_and_each_stream_its_own() {
        let draw = |seed, stream| Random::new(seed, stream).tokens(8, 1000);
        assert_eq!(draw(1, 2), draw(1, 2));
        assert_ne!(draw(1, 2), draw(1, 3));
        assert_ne!(draw(1, 2), draw(2, 2));
        let mut random = Random::new(3, 0);
        let mut seen = [false; 5];
        for _ in 0..200 {
            seen[random.between(2, 7) - 2] = true;
        }
        assert_eq!(seen, [true; 5]);
        assert_eq!(random.between(4, 4), 4);
    }
}
