//! Causal attention over a paged key-value cache, with grouped heads and an optional sliding window.
//!
//! # Layout
//! A page holds [`PAGE`] tokens of one layer. Keys are transposed inside a page, so that a kernel
//! scores many tokens per instruction; values are not, so that it sums many elements. What a number
//! is made of, [`KvPages`] hides: half floats, single floats or 8-bit blocks.
//!
//! # Order
//! A query walks its pages in order by online softmax (Milakov and Gimelshein, 2018). Positions
//! are cut into splits at multiples of [`SPLIT`]; each split is computed from nothing and they
//! are combined first to last. The boundaries depend on positions alone, so the result does not
//! depend on who computes which split, nor on how many queries share the call.
//!
//! # Error
//! Half floats cost what rounding the keys and values costs. 8-bit blocks cost half a scale a
//! number; where vectors multiply their codes as integers, the query and a page's weights are
//! rounded to 16 bits first, a small part of that.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(test)]
mod bench;
mod cache;
mod float;
mod q8;
mod scalar;
#[cfg(test)]
mod tests;

use std::ops::Range;

pub use cache::{CacheType, KvPages};

use super::SharedMut;
use crate::dispatch::{Kind, dispatch};
use crate::{Isa, Pool};
#[cfg(target_arch = "x86_64")]
use avx2::Vectors;
use cache::{Encoding, Paged, with_pages};

/// Tokens in a page of the cache.
pub const PAGE: usize = 32;
/// Tokens in a split of a long sequence.
pub const SPLIT: usize = 512;
/// Up to this many queries in a call, splits are divided among threads; more queries keep all
/// threads busy by themselves.
const MAX_SPLIT_QUERIES: usize = 4;

/// Sizes of one layer's attention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Factor on the scores.
    pub scale: f32,
    /// A query sees the last `window` positions, its own counted; all when `None`.
    pub window: Option<usize>,
}

/// Where a query stands.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Position of the query in its sequence.
    pub position: usize,
    /// Pages of the sequence, in order, up to the query's at least. Those wholly before the window
    /// are never looked at, so they may be any numbers.
    pub pages: &'a [u32],
}

impl Shape {
    /// Query heads that share a key head.
    fn group(&self) -> usize {
        self.n_heads / self.n_kv_heads
    }

    /// Numbers in the partial result of one key head: sums, maximums, weights' sums.
    fn partial_len(&self) -> usize {
        self.group() * (self.head_dim + 2)
    }

    /// Room for the queries of one key head in 16 bits, each with its scale.
    fn codes_len(&self) -> usize {
        self.group() * (self.head_dim.div_ceil(2) + 1)
    }

    /// Positions that a query at `position` sees.
    fn visible(&self, position: usize) -> Range<usize> {
        let first = self
            .window
            .map_or(0, |window| (position + 1).saturating_sub(window));
        first..position + 1
    }
}

/// Numbers of scratch that [`attention`] needs for sequences of up to `context` tokens.
pub fn scratch_len(shape: &Shape, context: usize, threads: usize) -> usize {
    let splits = context.div_ceil(SPLIT) * MAX_SPLIT_QUERIES * shape.n_kv_heads;
    shape.partial_len() * splits.max(threads) + shape.codes_len() * threads
}

/// Attends from each query to its sequence. `q` and `out` are `(n, n_heads, head_dim)`;
/// `scratch` has [`scratch_len`] numbers.
///
/// # Panics
/// When a length does not fit the shapes, the pages are of another shape, or a place lacks pages.
#[expect(
    clippy::too_many_arguments,
    reason = "an operation names all it touches"
)]
pub fn attention<'p>(
    pool: &mut Pool,
    isa: Isa,
    shape: &Shape,
    q: &[f32],
    cache: &KvPages,
    place: impl Fn(usize) -> Place<'p> + Sync,
    scratch: &mut [f32],
    out: &mut [f32],
) {
    with_pages!(&cache.0, cache => over(pool, isa, shape, q, cache, place, scratch, out));
}

#[expect(
    clippy::too_many_arguments,
    reason = "as the operation, for one type of cache"
)]
fn over<'p, E: Encoding + Vectors>(
    pool: &mut Pool,
    isa: Isa,
    shape: &Shape,
    q: &[f32],
    cache: &Paged<E>,
    place: impl Fn(usize) -> Place<'p> + Sync,
    scratch: &mut [f32],
    out: &mut [f32],
) {
    let query_len = shape.n_heads * shape.head_dim;
    let n = q.len() / query_len;
    assert!(
        q.len() == out.len() && q.len() == n * query_len && cache.fits(shape),
        "shapes of attention"
    );
    // Vectors run along the head; a head that is no whole number of them takes the reference.
    let isa = if shape.head_dim.is_multiple_of(8) {
        isa
    } else {
        Isa(Kind::Scalar)
    };
    let partial_len = shape.partial_len();
    let group_len = shape.group() * shape.head_dim;
    let codes_len = shape.codes_len();
    let (codes, scratch) = scratch.split_at_mut(codes_len * pool.threads());
    let codes = SharedMut::new(codes);
    let out = SharedMut::new(out);
    let scratch = SharedMut::new(scratch);
    // Unit `u` is key head `u % n_kv_heads` of query `u / n_kv_heads`.
    let units = n * shape.n_kv_heads;
    let splits = |unit: usize| splits(shape.visible(place(unit / shape.n_kv_heads).position));
    let span = |unit: usize, positions: Range<usize>| Span {
        shape,
        q: &q[unit * group_len..(unit + 1) * group_len],
        cache,
        pages: place(unit / shape.n_kv_heads).pages,
        kv_head: unit % shape.n_kv_heads,
        positions,
    };

    if n > MAX_SPLIT_QUERIES || pool.threads() == 1 {
        pool.run(units, 1, |thread, range| {
            // SAFETY: each thread has its own part of the scratch, each unit its own output.
            let (partial, codes) = unsafe {
                (
                    scratch.slice(thread * partial_len..(thread + 1) * partial_len),
                    codes.slice(thread * codes_len..(thread + 1) * codes_len),
                )
            };
            for unit in range {
                // SAFETY: as above.
                let out = unsafe { out.slice(unit * group_len..(unit + 1) * group_len) };
                let mut combined = Combined::new(shape, out);
                for positions in splits(unit) {
                    attend(isa, &span(unit, positions), partial, codes);
                    combined.add(partial);
                }
                combined.finish();
            }
        });
        return;
    }

    let counts: [usize; MAX_SPLIT_QUERIES] = std::array::from_fn(|i| {
        if i < n {
            splits(i * shape.n_kv_heads).count()
        } else {
            0
        }
    });
    // Work item `w` is split `s` of unit `u`, units of a query side by side.
    let locate = |mut item: usize| {
        for (i, count) in counts.iter().enumerate() {
            let items = count * shape.n_kv_heads;
            if item < items {
                return (i * shape.n_kv_heads + item / count, item % count);
            }
            item -= items;
        }
        (0, 0)
    };
    let items = counts.iter().sum::<usize>() * shape.n_kv_heads;
    pool.run(items, 1, |thread, range| {
        // SAFETY: each thread has its own part.
        let codes = unsafe { codes.slice(thread * codes_len..(thread + 1) * codes_len) };
        for item in range {
            let (unit, split) = locate(item);
            // SAFETY: each item has its own part of the scratch.
            let partial = unsafe { scratch.slice(item * partial_len..(item + 1) * partial_len) };
            if let Some(positions) = splits(unit).nth(split) {
                attend(isa, &span(unit, positions), partial, codes);
            }
        }
    });
    let mut item = 0;
    for unit in 0..units {
        // SAFETY: the pool is idle; this thread alone reads the scratch and writes the output.
        let out = unsafe { out.slice(unit * group_len..(unit + 1) * group_len) };
        let mut combined = Combined::new(shape, out);
        for _ in 0..counts[unit / shape.n_kv_heads] {
            // SAFETY: as above.
            combined.add(unsafe { scratch.slice(item * partial_len..(item + 1) * partial_len) });
            item += 1;
        }
        combined.finish();
    }
}

/// The parts of `visible` between multiples of [`SPLIT`].
fn splits(visible: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    (visible.start / SPLIT..visible.end.div_ceil(SPLIT))
        .map(move |split| visible.start.max(split * SPLIT)..visible.end.min((split + 1) * SPLIT))
}

/// What a kernel computes: one split of one key head for the query heads that share it.
struct Span<'a, E: Encoding> {
    shape: &'a Shape,
    /// `(group, head_dim)`
    q: &'a [f32],
    cache: &'a Paged<E>,
    pages: &'a [u32],
    kv_head: usize,
    positions: Range<usize>,
}

impl<E: Encoding> Span<'_, E> {
    /// The key head's part of each page of the span, and which of its tokens are visible.
    fn pages(&self) -> impl Iterator<Item = (&[E::Element], Range<usize>)> {
        let Range { start, end } = self.positions;
        (start / PAGE..end.div_ceil(PAGE)).map(move |page| {
            let part = self.cache.part(self.pages[page], self.kv_head);
            let first = page * PAGE;
            (
                part,
                start.max(first) - first..end.min(first + PAGE) - first,
            )
        })
    }
}

/// Running softmax over the pages of a span, for each query head.
struct Partial<'a> {
    /// Weighted sums of values, `(group, head_dim)`.
    sums: &'a mut [f32],
    maximums: &'a mut [f32],
    /// Sums of the weights.
    totals: &'a mut [f32],
}

/// Computes a span into `partial`; `codes` is room for the queries as a kernel wants them.
fn attend<E: Encoding + Vectors>(
    isa: Isa,
    span: &Span<'_, E>,
    partial: &mut [f32],
    codes: &mut [f32],
) {
    let (sums, rest) = partial.split_at_mut(span.q.len());
    let (maximums, totals) = rest.split_at_mut(span.shape.group());
    sums.fill(0.0);
    maximums.fill(f32::NEG_INFINITY);
    totals.fill(0.0);
    let partial = Partial {
        sums,
        maximums,
        totals,
    };
    dispatch!(isa, attend(span, partial, codes));
}

/// What vectors need of an encoding: nothing where there are none.
#[cfg(not(target_arch = "x86_64"))]
trait Vectors {}
#[cfg(not(target_arch = "x86_64"))]
impl<E: Encoding> Vectors for E {}

/// Partial results of splits, put together first to last.
struct Combined<'a> {
    head_dim: usize,
    /// `(group, head_dim)`, weighted sums of values.
    sums: &'a mut [f32],
    maximums: [f32; MAX_GROUP],
    totals: [f32; MAX_GROUP],
}

/// Query heads that may share a key head.
pub const MAX_GROUP: usize = 64;

impl<'a> Combined<'a> {
    fn new(shape: &Shape, sums: &'a mut [f32]) -> Self {
        assert!(
            shape.group() <= MAX_GROUP,
            "at most {MAX_GROUP} query heads share a key head"
        );
        sums.fill(0.0);
        Self {
            head_dim: shape.head_dim,
            sums,
            maximums: [f32::NEG_INFINITY; MAX_GROUP],
            totals: [0.0; MAX_GROUP],
        }
    }

    fn add(&mut self, partial: &[f32]) {
        let (sums, rest) = partial.split_at(self.sums.len());
        let (maximums, totals) = rest.split_at(sums.len() / self.head_dim);
        let heads = self
            .sums
            .chunks_exact_mut(self.head_dim)
            .zip(sums.chunks_exact(self.head_dim));
        for (head, (mine, other)) in heads.enumerate() {
            let maximum = self.maximums[head].max(maximums[head]);
            let keep = (self.maximums[head] - maximum).exp();
            let take = (maximums[head] - maximum).exp();
            for (mine, other) in mine.iter_mut().zip(other) {
                *mine = *mine * keep + other * take;
            }
            self.totals[head] = self.totals[head] * keep + totals[head] * take;
            self.maximums[head] = maximum;
        }
    }

    fn finish(self) {
        for (head, total) in self.sums.chunks_exact_mut(self.head_dim).zip(self.totals) {
            let inverse = 1.0 / total;
            for x in head {
                *x *= inverse;
            }
        }
    }
}
