//! The KV cache: a fixed pool of pages shared by all sequences.

use tercel_kernels::AllocError;
use tercel_kernels::ops::attention::{CacheType, KvPages, PAGE, Place, Shape};

use crate::NnError;
use crate::runner::Options;
use crate::states::States;

/// A sequence of tokens in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SequenceId(pub(crate) usize);

/// Keys and values of every layer, and which pages belong to which sequence.
pub(crate) struct KvCache {
    layers: Vec<LayerKv>,
    free: Vec<u32>,
    sequences: Vec<Option<Sequence>>,
    max_context: usize,
    /// What recurrent layers know of each sequence.
    pub(crate) states: States,
}

/// How the numbers of the KV cache are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum KvType {
    /// Half floats.
    #[default]
    F16,
    /// Single floats: twice the memory, for proving numerics.
    F32,
}

impl KvType {
    fn cache_type(self) -> CacheType {
        match self {
            Self::F16 => CacheType::F16,
            Self::F32 => CacheType::F32,
        }
    }
}

/// One layer's part of the cache.
pub(crate) struct LayerKv {
    pub(crate) shape: Shape,
    pub(crate) pages: KvPages,
}

struct Sequence {
    len: usize,
    pages: Vec<u32>,
}

impl KvCache {
    /// Bytes that [`new`](Self::new) takes.
    pub(crate) fn bytes(shapes: &[Shape], options: &Options) -> usize {
        let page: usize = shapes
            .iter()
            .map(|shape| KvPages::page_bytes(shape, options.kv_type.cache_type()))
            .sum();
        n_pages(options) * page
    }

    /// A cache for `max_sequences` sequences of up to `max_context` tokens.
    pub(crate) fn new(
        shapes: &[Shape],
        states: States,
        options: &Options,
    ) -> Result<Self, AllocError> {
        let n_pages = n_pages(options);
        let layer = |shape: &Shape| {
            let pages = KvPages::zeroed(shape, options.kv_type.cache_type(), n_pages)?;
            Ok(LayerKv {
                shape: *shape,
                pages,
            })
        };
        Ok(Self {
            layers: shapes.iter().map(layer).collect::<Result<_, _>>()?,
            free: (0..n_pages as u32).rev().collect(),
            sequences: (0..options.max_sequences).map(|_| None).collect(),
            max_context: options.max_context,
            states,
        })
    }

    pub(crate) fn add_sequence(&mut self) -> Result<SequenceId, NnError> {
        let capacity = self.sequences.len();
        let id = self.sequences.iter().position(Option::is_none);
        let id = id.ok_or(NnError::TooManySequences { capacity })?;
        let pages = Vec::with_capacity(self.max_context.div_ceil(PAGE));
        self.sequences[id] = Some(Sequence { len: 0, pages });
        self.states.reset(id);
        Ok(SequenceId(id))
    }

    pub(crate) fn remove_sequence(&mut self, id: SequenceId) {
        if let Some(sequence) = self.sequences.get_mut(id.0).and_then(Option::take) {
            self.free.extend(sequence.pages);
        }
    }

    /// Tokens of a sequence; 0 for one that does not exist.
    pub(crate) fn len(&self, id: SequenceId) -> usize {
        self.sequences
            .get(id.0)
            .and_then(Option::as_ref)
            .map_or(0, |sequence| sequence.len)
    }

    /// Forgets everything from position `len` on, and gives how many tokens are left: fewer, where
    /// a state cannot be taken back to `len`.
    pub(crate) fn truncate(&mut self, id: SequenceId, len: usize) -> usize {
        let held = self.len(id);
        if len >= held {
            return held;
        }
        let len = if self.states.is_empty() { len } else { 0 };
        if len == 0 {
            self.states.reset(id.0);
        }
        self.shorten(id, len);
        len
    }

    /// Takes back the last `n` tokens of [`extend`](Self::extend), which nothing was computed for.
    pub(crate) fn undo_extend(&mut self, id: SequenceId, n: usize) {
        self.shorten(id, self.len(id).saturating_sub(n));
    }

    fn shorten(&mut self, id: SequenceId, len: usize) {
        if let Some(sequence) = self.sequences.get_mut(id.0).and_then(Option::as_mut) {
            sequence.len = len;
            self.free.extend(sequence.pages.drain(len.div_ceil(PAGE)..));
        }
    }

    /// Makes room for `n` more tokens.
    pub(crate) fn extend(&mut self, id: SequenceId, n: usize) -> Result<(), NnError> {
        let sequence = self.sequences.get_mut(id.0).and_then(Option::as_mut);
        let sequence = sequence.ok_or(NnError::UnknownSequence)?;
        let needed = sequence.len.saturating_add(n);
        if needed > self.max_context {
            return Err(NnError::KvFull {
                capacity: self.max_context,
                needed,
            });
        }
        // The pool has a page for every token of every sequence, so there is always one.
        while sequence.pages.len() < needed.div_ceil(PAGE) {
            let page = self.free.pop();
            sequence.pages.push(page.ok_or(NnError::KvFull {
                capacity: 0,
                needed,
            })?);
        }
        sequence.len = needed;
        Ok(())
    }

    /// One layer's pages, and where each of `tokens` (sequence, position) lies in them.
    pub(crate) fn layer<'k>(
        &'k mut self,
        layer: usize,
        tokens: &'k [(SequenceId, usize)],
    ) -> (&'k mut LayerKv, impl Fn(usize) -> Place<'k> + Sync) {
        let sequences = &self.sequences;
        let place = move |token: usize| {
            let (id, position) = tokens[token];
            let pages = sequences[id.0]
                .as_ref()
                .map_or(&[][..], |sequence| &sequence.pages);
            Place { position, pages }
        };
        (&mut self.layers[layer], place)
    }
}

fn n_pages(options: &Options) -> usize {
    options.max_context.div_ceil(PAGE) * options.max_sequences
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape {
        n_heads: 2,
        n_kv_heads: 1,
        head_dim: 8,
        scale: 1.0,
        window: None,
    };

    fn options(max_context: usize, max_sequences: usize) -> Options {
        Options {
            max_context,
            max_sequences,
            ..Options::default()
        }
    }

    #[test]
    fn pages_are_handed_out_lazily_and_come_back() {
        let mut kv = KvCache::new(&[SHAPE; 3], States::default(), &options(100, 2)).unwrap();
        let all = kv.free.len();
        assert_eq!(all, 2 * 100usize.div_ceil(PAGE));
        let a = kv.add_sequence().unwrap();
        assert_eq!(kv.free.len(), all);
        kv.extend(a, 33).unwrap();
        assert_eq!((kv.len(a), kv.free.len()), (33, all - 2));
        assert_eq!(kv.truncate(a, 32), 32);
        assert_eq!((kv.len(a), kv.free.len()), (32, all - 1));
        assert_eq!(kv.truncate(a, 64), 32, "truncation never grows");
        assert_eq!(kv.len(a), 32);
        let b = kv.add_sequence().unwrap();
        assert!(matches!(
            kv.add_sequence(),
            Err(NnError::TooManySequences { capacity: 2 })
        ));
        kv.extend(b, 100).unwrap();
        assert!(matches!(
            kv.extend(b, 1),
            Err(NnError::KvFull {
                capacity: 100,
                needed: 101
            })
        ));
        kv.remove_sequence(a);
        kv.remove_sequence(b);
        assert_eq!(kv.free.len(), all);
        assert!(matches!(kv.extend(a, 1), Err(NnError::UnknownSequence)));
    }

    #[test]
    fn the_worked_numbers_of_the_kv_formula() {
        // 2 * layers * kv_heads * head_dim * tokens * 2 bytes: 256 MiB for 32 layers of 8 heads
        // of 128 at 2048 tokens, 131,072 bytes a token.
        let shape = Shape {
            n_heads: 32,
            n_kv_heads: 8,
            head_dim: 128,
            scale: 1.0,
            window: None,
        };
        let shapes = [shape; 32];
        assert_eq!(KvCache::bytes(&shapes, &options(2048, 1)), 268_435_456);
        assert_eq!(KvCache::bytes(&shapes, &options(1024, 1)), 128 << 20);
        assert_eq!(KvCache::bytes(&shapes, &options(2048, 2)), 512 << 20);
        assert_eq!(KvCache::bytes(&shapes, &options(32, 1)), 32 * 131_072);
        let single = Options {
            kv_type: KvType::F32,
            ..options(2048, 1)
        };
        assert_eq!(KvCache::bytes(&shapes, &single), 512 << 20);
    }
}
