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
//! depend on who computes which split, nor on how many queries share the call. Queries that follow
//! each other in a sequence walk its pages together, so that a page is read once for all of them.
//! Vectors of all widths add in the same order: AVX2 and AVX-512 give the same bits.
//!
//! # Error
//! Half floats cost what rounding the keys and values costs. 8-bit blocks cost half a scale a
//! number; where vectors multiply their codes as integers, the query and a page's weights are
//! rounded to 16 bits first, a small part of that.

#[cfg(test)]
mod bench;
mod cache;
mod float;
mod q8;
mod scalar;
#[cfg(test)]
mod tests;
mod vector;

use std::ops::Range;

pub use cache::{CacheType, KvPages};

use super::SharedMut;
use crate::dispatch::Kind;
use crate::{Isa, Pool};
use cache::{Encoding, Paged, with_pages};
use vector::Numbers;

/// Tokens in a page of the cache.
pub const PAGE: usize = 32;
/// Tokens in a split of a long sequence.
pub const SPLIT: usize = 512;
/// Up to this many queries in a call, splits are divided among threads; more queries keep all
/// threads busy by themselves.
const MAX_SPLIT_QUERIES: usize = 4;
/// Queries that walk pages together, at most.
const MAX_BLOCK: usize = 16;
/// Blocks that each thread gets, where there are enough queries.
const BLOCKS_PER_THREAD: usize = 4;

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

    /// Queries that walk pages together, at most.
    fn block(&self) -> usize {
        (MAX_GROUP / self.group()).clamp(1, MAX_BLOCK)
    }

    /// Numbers that a thread needs for a block of queries: partial results, the queries side by
    /// side, and their codes.
    fn block_len(&self) -> usize {
        let query = self.partial_len() + self.group() * self.head_dim + self.codes_len();
        self.block() * query
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
    shape.partial_len() * splits + shape.block_len() * threads
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
fn over<'p, E: Numbers>(
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
    assert!(
        shape.group() <= MAX_GROUP,
        "at most {MAX_GROUP} query heads share a key head"
    );
    let job = Attention {
        isa,
        shape,
        q,
        cache,
        place: &place,
        n,
        out: SharedMut::new(out),
    };
    let (threads, scratch) = scratch.split_at_mut(shape.block_len() * pool.threads());
    let threads = SharedMut::new(threads);
    if n > MAX_SPLIT_QUERIES || pool.threads() == 1 {
        job.by_blocks(pool, &threads);
    } else {
        job.by_splits(pool, &threads, scratch);
    }
}

/// The attention of one layer.
struct Attention<'a, E: Encoding, P> {
    isa: Isa,
    shape: &'a Shape,
    q: &'a [f32],
    cache: &'a Paged<E>,
    place: &'a P,
    /// Queries.
    n: usize,
    out: SharedMut<'a, f32>,
}

impl<'p, E: Numbers, P: Fn(usize) -> Place<'p> + Sync> Attention<'_, E, P> {
    /// Gives each thread blocks of queries, one key head at a time.
    fn by_blocks(&self, pool: &mut Pool, scratch: &SharedMut<'_, f32>) {
        let shape = self.shape;
        // Few enough for all threads to have some, and for the last to be waited for a little.
        let share = self.n * shape.n_kv_heads / (pool.threads() * BLOCKS_PER_THREAD);
        let block = share.clamp(1, shape.block());
        let units = self.n.div_ceil(block) * shape.n_kv_heads;
        pool.run(units, 1, |thread, range| {
            let len = shape.block_len();
            // SAFETY: each thread has its own part.
            let scratch = unsafe { scratch.slice(thread * len..(thread + 1) * len) };
            for unit in range {
                let (first, kv_head) = (unit / shape.n_kv_heads * block, unit % shape.n_kv_heads);
                let mut queries = first..self.n.min(first + block);
                while !queries.is_empty() {
                    let run = queries.start..self.end_of_run(&queries);
                    queries.start = run.end;
                    self.run(run, kv_head, scratch);
                }
            }
        });
    }

    /// Where the queries end that follow the first in its sequence.
    fn end_of_run(&self, queries: &Range<usize>) -> usize {
        let first = (self.place)(queries.start);
        let follows = |query: &usize| {
            let place = (self.place)(*query);
            place.pages.as_ptr() == first.pages.as_ptr()
                && place.position == first.position + (query - queries.start)
        };
        queries
            .clone()
            .take_while(follows)
            .last()
            .unwrap_or(queries.start)
            + 1
    }

    /// Queries that follow each other, of one key head, to their end.
    fn run(&self, queries: Range<usize>, kv_head: usize, scratch: &mut [f32]) {
        let shape = self.shape;
        let (group, dim) = (shape.group(), shape.head_dim);
        let (partial, scratch) = scratch.split_at_mut(queries.len() * shape.partial_len());
        let (side_by_side, codes) = scratch.split_at_mut(queries.len() * group * dim);
        let of_query = |query: usize| {
            let at = (query * shape.n_heads + kv_head * group) * dim;
            at..at + group * dim
        };
        for (query, to) in queries
            .clone()
            .zip(side_by_side.chunks_exact_mut(group * dim))
        {
            to.copy_from_slice(&self.q[of_query(query)]);
        }
        let Place { position, pages } = (self.place)(queries.start);
        let last = shape.visible(position + queries.len() - 1);
        let mut combined = Combined::new(dim);
        for query in queries.clone() {
            // SAFETY: each query's part of each key head belongs to one unit.
            unsafe { self.out.slice(of_query(query)) }.fill(0.0);
        }
        for positions in splits(shape.visible(position).start..last.end) {
            let span = Span {
                shape,
                q: side_by_side,
                cache: self.cache,
                pages,
                kv_head,
                first: position,
                positions,
            };
            let partial = attend(self.isa, &span, partial, codes);
            for (i, query) in queries.clone().enumerate() {
                if !span.seen_by(i).is_empty() {
                    // SAFETY: as above.
                    let out = unsafe { self.out.slice(of_query(query)) };
                    combined.add(i * group..(i + 1) * group, &partial, out);
                }
            }
        }
        for (i, query) in queries.enumerate() {
            // SAFETY: as above.
            let out = unsafe { self.out.slice(of_query(query)) };
            combined.finish(i * group..(i + 1) * group, out);
        }
    }

    /// Divides the splits of few queries among the threads, and combines them in the end.
    fn by_splits(&self, pool: &mut Pool, threads: &SharedMut<'_, f32>, scratch: &mut [f32]) {
        let shape = self.shape;
        let (group, n_kv_heads) = (shape.group(), shape.n_kv_heads);
        let (partial_len, group_len) = (shape.partial_len(), group * shape.head_dim);
        let scratch = SharedMut::new(scratch);
        // Unit `u` is key head `u % n_kv_heads` of query `u / n_kv_heads`.
        let of_query = |query: usize| splits(shape.visible((self.place)(query).position));
        let counts: [usize; MAX_SPLIT_QUERIES] = std::array::from_fn(|query| {
            if query < self.n {
                of_query(query).count()
            } else {
                0
            }
        });
        // Work item `w` is split `s` of unit `u`, units of a query side by side.
        let locate = |mut item: usize| {
            for (i, count) in counts.iter().enumerate() {
                let items = count * n_kv_heads;
                if item < items {
                    return (i * n_kv_heads + item / count, item % count);
                }
                item -= items;
            }
            (0, 0)
        };
        let items = counts.iter().sum::<usize>() * n_kv_heads;
        pool.run(items, 1, |thread, range| {
            let len = shape.block_len();
            // SAFETY: each thread has its own part.
            let codes = unsafe { threads.slice(thread * len..(thread + 1) * len) };
            for item in range {
                let (unit, split) = locate(item);
                // SAFETY: each item has its own part of the scratch.
                let partial =
                    unsafe { scratch.slice(item * partial_len..(item + 1) * partial_len) };
                let Place { position, pages } = (self.place)(unit / n_kv_heads);
                if let Some(positions) = of_query(unit / n_kv_heads).nth(split) {
                    let span = Span {
                        shape,
                        q: &self.q[unit * group_len..(unit + 1) * group_len],
                        cache: self.cache,
                        pages,
                        kv_head: unit % n_kv_heads,
                        first: position,
                        positions,
                    };
                    attend(self.isa, &span, partial, codes);
                }
            }
        });
        let mut item = 0;
        for unit in 0..self.n * n_kv_heads {
            // SAFETY: the pool is idle; this thread alone reads the scratch and writes the output.
            let out = unsafe { self.out.slice(unit * group_len..(unit + 1) * group_len) };
            out.fill(0.0);
            let mut combined = Combined::new(shape.head_dim);
            for _ in 0..counts[unit / n_kv_heads] {
                // SAFETY: as above.
                let partial =
                    unsafe { scratch.slice(item * partial_len..(item + 1) * partial_len) };
                combined.add(0..group, &Partial::of(partial, group, shape.head_dim), out);
                item += 1;
            }
            combined.finish(0..group, out);
        }
    }
}

/// The parts of `visible` between multiples of [`SPLIT`].
fn splits(visible: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    (visible.start / SPLIT..visible.end.div_ceil(SPLIT))
        .map(move |split| visible.start.max(split * SPLIT)..visible.end.min((split + 1) * SPLIT))
}

/// What a kernel computes: one split of one key head for the query heads that share it, of queries
/// that follow each other.
struct Span<'a, E: Encoding> {
    shape: &'a Shape,
    /// `(queries, group, head_dim)`
    q: &'a [f32],
    cache: &'a Paged<E>,
    pages: &'a [u32],
    kv_head: usize,
    /// Position of the first query.
    first: usize,
    /// Those of the split that some query sees.
    positions: Range<usize>,
}

impl<E: Encoding> Span<'_, E> {
    /// Rows of `q`.
    fn rows(&self) -> usize {
        self.q.len() / self.shape.head_dim
    }

    fn queries(&self) -> usize {
        self.rows() / self.shape.group()
    }

    /// The positions of the split that a query sees.
    fn seen_by(&self, query: usize) -> Range<usize> {
        let visible = self.shape.visible(self.first + query);
        visible.start.max(self.positions.start)..visible.end.min(self.positions.end)
    }

    /// The tokens of a page that a query sees.
    fn seen_of(&self, page: usize, query: usize) -> Range<usize> {
        let seen = self.seen_by(query);
        let first = page * PAGE;
        let within = |position: usize| position.clamp(first, first + PAGE) - first;
        within(seen.start)..within(seen.end)
    }

    /// The pages of the span, and the key head's part of each.
    fn pages(&self) -> impl Iterator<Item = (usize, &[E::Element])> {
        let Range { start, end } = self.positions;
        (start / PAGE..end.div_ceil(PAGE))
            .map(move |page| (page, self.cache.part(self.pages[page], self.kv_head)))
    }
}

/// Running softmax over the pages of a span, for each row of its queries.
struct Partial<'a> {
    /// Weighted sums of values, `(rows, head_dim)`.
    sums: &'a mut [f32],
    maximums: &'a mut [f32],
    /// Sums of the weights.
    totals: &'a mut [f32],
}

impl<'a> Partial<'a> {
    /// The parts of `numbers`.
    fn of(numbers: &'a mut [f32], rows: usize, head_dim: usize) -> Self {
        let (sums, rest) = numbers.split_at_mut(rows * head_dim);
        let (maximums, rest) = rest.split_at_mut(rows);
        Self {
            sums,
            maximums,
            totals: &mut rest[..rows],
        }
    }
}

/// Computes a span into `partial`; `codes` is room for the queries as a kernel wants them.
fn attend<'a, E: Numbers>(
    isa: Isa,
    span: &Span<'_, E>,
    partial: &'a mut [f32],
    codes: &mut [f32],
) -> Partial<'a> {
    let mut partial = Partial::of(partial, span.rows(), span.shape.head_dim);
    partial.sums.fill(0.0);
    partial.maximums.fill(f32::NEG_INFINITY);
    partial.totals.fill(0.0);
    // Vectors run along the head too: one that is no whole number of them takes narrower ones, and
    // at last the reference.
    let dim = span.shape.head_dim;
    match isa.0 {
        #[cfg(target_arch = "x86_64")]
        Kind::Avx512Vnni if dim.is_multiple_of(16) => {
            // SAFETY: an `Isa` of this kind exists only where its features were detected.
            unsafe { vector::attend_avx512(span, &mut partial, codes) };
        }
        #[cfg(target_arch = "x86_64")]
        Kind::Avx2 | Kind::AvxVnni | Kind::Avx512Vnni if dim.is_multiple_of(8) => {
            // SAFETY: as above.
            unsafe { vector::attend_avx2(span, &mut partial, codes) };
        }
        #[cfg(target_arch = "aarch64")]
        Kind::Neon | Kind::NeonDotprod | Kind::NeonI8mm if dim.is_multiple_of(8) => {
            // SAFETY: every such processor has NEON.
            unsafe { vector::attend_neon(span, &mut partial, codes) };
        }
        _ => scalar::attend(span, &mut partial),
    }
    partial
}

/// Query heads that may share a key head, and rows of queries that a span may have.
pub const MAX_GROUP: usize = 64;

/// Partial results of splits, put together first to last, row by row.
struct Combined {
    head_dim: usize,
    maximums: [f32; MAX_GROUP],
    totals: [f32; MAX_GROUP],
}

impl Combined {
    fn new(head_dim: usize) -> Self {
        Self {
            head_dim,
            maximums: [f32::NEG_INFINITY; MAX_GROUP],
            totals: [0.0; MAX_GROUP],
        }
    }

    /// Adds the rows of a split to `out`, weighted sums of values.
    fn add(&mut self, rows: Range<usize>, partial: &Partial<'_>, out: &mut [f32]) {
        let dim = self.head_dim;
        for (row, mine) in rows.zip(out.chunks_exact_mut(dim)) {
            let others = &partial.sums[row * dim..(row + 1) * dim];
            let maximum = self.maximums[row].max(partial.maximums[row]);
            let keep = (self.maximums[row] - maximum).exp();
            let take = (partial.maximums[row] - maximum).exp();
            for (mine, other) in mine.iter_mut().zip(others) {
                *mine = *mine * keep + other * take;
            }
            self.totals[row] = self.totals[row] * keep + partial.totals[row] * take;
            self.maximums[row] = maximum;
        }
    }

    fn finish(&self, rows: Range<usize>, out: &mut [f32]) {
        for (total, head) in self.totals[rows]
            .iter()
            .zip(out.chunks_exact_mut(self.head_dim))
        {
            let inverse = 1.0 / total;
            for x in head {
                *x *= inverse;
            }
        }
    }
}
