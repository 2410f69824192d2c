//! Sixteen tokens (scores) or sixteen elements (sums) of up to four heads at a time: the numbers of
//! a page are widened once for all query heads that share it.

mod float;
mod q8;

use std::arch::x86_64::*;
use std::ops::Range;

use super::super::avx2_math::{exp, max, sum};
use super::cache::Encoding;
use super::{PAGE, Partial, Span};

/// Query heads computed side by side.
const MAX_HEADS: usize = 4;
/// Bytes that the processor fetches at once.
const LINE: usize = 64;

/// The vector side of an encoding. All functions need AVX2, FMA and F16C.
pub(super) trait Vectors: Encoding {
    /// Floats of one query as [`scores`](Self::scores) reads it.
    fn query_len(head_dim: usize) -> usize;

    /// The queries `q`, `(heads, head_dim)`, as [`scores`](Self::scores) reads them; `codes` is room
    /// for another form.
    ///
    /// # Safety
    /// Needs the features.
    unsafe fn queries<'q>(q: &'q [f32], head_dim: usize, codes: &'q mut [f32]) -> &'q [f32];

    /// `scores[head][token]` of all tokens that are seen, and of others.
    ///
    /// # Safety
    /// Needs the features.
    unsafe fn scores<const H: usize>(
        page: &Page<'_, Self>,
        queries: &[f32],
        scores: &mut [[f32; PAGE]; H],
    );

    /// `sums[head] = sums[head] * keep[head] + sum over seen tokens of weight * value`. The weights
    /// of other tokens are 0.
    ///
    /// # Safety
    /// Needs the features.
    unsafe fn sum_values<const H: usize>(
        page: &Page<'_, Self>,
        weights: &[[f32; PAGE]; H],
        keep: &[f32; H],
        sums: &mut [f32],
    );
}

/// One key head's part of a page.
pub(super) struct Page<'a, E: Encoding + ?Sized> {
    part: &'a [E::Element],
    /// The part that comes next, which is fetched on the way.
    next: &'a [E::Element],
    seen: Range<usize>,
    dim: usize,
    scale: f32,
}

/// # Safety
/// Needs the named processor features; the head dimension must be a multiple of 8.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn attend<E: Vectors>(
    span: &Span<'_, E>,
    partial: &mut Partial<'_>,
    codes: &mut [f32],
) {
    let Partial {
        sums,
        maximums,
        totals,
    } = partial;
    let dim = span.shape.head_dim;
    assert!(
        dim.is_multiple_of(8) && sums.len() == span.q.len(),
        "the reference takes other heads"
    );
    let (queries, group) = (span.queries(), span.shape.group());
    // SAFETY: the features are those of this function.
    let rows = unsafe { E::queries(span.q, dim, codes) };
    let row_len = E::query_len(dim);
    let mut pages = span.pages().peekable();
    while let Some((number, part)) = pages.next() {
        let next = pages.peek().map_or(&[][..], |(_, next)| next);
        let (first, last) = (span.seen_of(number, 0), span.seen_of(number, queries - 1));
        // Most pages all queries see alike; at both ends each sees another part.
        let step = if first == last { queries } else { 1 };
        let mut is_next_fetched = false;
        for query in (0..queries).step_by(step) {
            let seen = span.seen_of(number, query);
            if seen.is_empty() {
                continue;
            }
            let end = (query + step) * group;
            let mut row = query * group;
            while row < end {
                let n = MAX_HEADS.min(end - row);
                let page = Page::<E> {
                    part,
                    // Once is enough.
                    next: if is_next_fetched { &[] } else { next },
                    seen: seen.clone(),
                    dim,
                    scale: span.shape.scale,
                };
                is_next_fetched = true;
                let queries = &rows[row * row_len..(row + n) * row_len];
                let partial = &mut Partial {
                    sums: &mut sums[row * dim..(row + n) * dim],
                    maximums: &mut maximums[row..row + n],
                    totals: &mut totals[row..row + n],
                };
                match n {
                    1 => page.add::<1>(queries, partial),
                    2 => page.add::<2>(queries, partial),
                    3 => page.add::<3>(queries, partial),
                    _ => page.add::<MAX_HEADS>(queries, partial),
                }
                row += n;
            }
        }
    }
}

impl<E: Vectors> Page<'_, E> {
    /// Adds the page to the running softmax of `H` heads.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn add<const H: usize>(&self, queries: &[f32], partial: &mut Partial<'_>) {
        let mut weights = [[0.0f32; PAGE]; H];
        // SAFETY: the features are those of this function.
        unsafe { E::scores(self, queries, &mut weights) };
        let mut keep = [0.0f32; H];
        for (head, weights) in weights.iter_mut().enumerate() {
            let (maximum, total) = (&mut partial.maximums[head], &mut partial.totals[head]);
            keep[head] = softmax(weights, &self.seen, maximum, total);
        }
        // SAFETY: as above.
        unsafe { E::sum_values(self, &weights, &keep, partial.sums) };
    }

    /// Starts loading elements of the next part, a few at a time while this one is computed: pages
    /// lie apart, so the processor cannot guess where it is, and fetches only so many lines at once.
    /// What the next part lacks is skipped.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn fetch_next(&self, elements: Range<usize>) {
        let Some(elements) = self.next.get(elements) else {
            return;
        };
        for line in elements.chunks(LINE / size_of::<E::Element>()) {
            _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast());
        }
    }
}

/// Turns the scores of a page into weights relative to the new maximum, and gives back the factor
/// for what was summed before.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn softmax(
    scores: &mut [f32; PAGE],
    seen: &Range<usize>,
    maximum: &mut f32,
    total: &mut f32,
) -> f32 {
    if seen.len() < PAGE {
        scores[..seen.start].fill(f32::NEG_INFINITY);
        scores[seen.end..].fill(f32::NEG_INFINITY);
    }
    let mut largest = _mm256_set1_ps(*maximum);
    for chunk in scores.chunks_exact(8) {
        // SAFETY: the chunk has eight floats.
        largest = _mm256_max_ps(unsafe { _mm256_loadu_ps(chunk.as_ptr()) }, largest);
    }
    let new = max(largest);
    let wide = _mm256_set1_ps(new);
    let mut sums = _mm256_setzero_ps();
    for chunk in scores.chunks_exact_mut(8) {
        // SAFETY: the chunk has eight floats.
        unsafe {
            let weight = exp(_mm256_sub_ps(_mm256_loadu_ps(chunk.as_ptr()), wide));
            sums = _mm256_add_ps(sums, weight);
            _mm256_storeu_ps(chunk.as_mut_ptr(), weight);
        }
    }
    // Mostly the maximum is an old one; e^0 is 1, and not worth a call.
    let keep = if new == *maximum {
        1.0
    } else {
        (*maximum - new).exp()
    };
    *maximum = new;
    *total = *total * keep + sum(sums);
    keep
}
