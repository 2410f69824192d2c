//! Two registers of tokens (scores) or of elements (sums) for several rows at a time: the numbers of
//! a page are widened once for all query heads that share it.
//!
//! How wide a register is differs from one instruction set to the next ([`Wide`]); what is computed
//! is the same. Functions that are `inline(always)` become part of an `attend_*` that has the
//! processor features of its set, and are compiled for those.

mod avx2;
mod avx512;
mod float;
mod q8;

use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
use std::ops::Range;

use super::cache::Encoding;
use super::{PAGE, Partial, Span};

pub(super) use avx2::attend_avx2;
pub(super) use avx512::attend_avx512;

/// Bytes that the processor fetches at once.
const LINE: usize = 64;

/// The registers of an instruction set.
///
/// # Safety
/// All functions need the features of the set, and pointers that lead to a register's worth of
/// numbers, or of codes: two to a lane.
pub(super) trait Wide {
    /// Floats of a register.
    const LANES: usize;
    /// Rows computed side by side, at most: as many as the registers hold the sums of.
    const ROWS: usize;
    type Floats: Copy;
    /// Sums of products of codes, and pairs of codes of 16 bits.
    type Ints: Copy;

    unsafe fn zeros() -> Self::Floats;
    /// A number in every lane.
    unsafe fn all(x: f32) -> Self::Floats;
    unsafe fn load(at: *const f32) -> Self::Floats;
    unsafe fn load_halves(at: *const u16) -> Self::Floats;
    unsafe fn store(at: *mut f32, x: Self::Floats);
    unsafe fn mul(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a * b + sum`, rounded once.
    unsafe fn mul_add(a: Self::Floats, b: Self::Floats, sum: Self::Floats) -> Self::Floats;
    /// The largest of a whole number of registers, or what was the largest before.
    unsafe fn largest(x: &[f32], so_far: f32) -> f32;
    /// Makes `e^(x - largest)` of a whole number of registers, and gives the sum. No `x` is above
    /// the largest.
    unsafe fn exp_below(x: &mut [f32], largest: f32) -> f32;
    unsafe fn int_zeros() -> Self::Ints;
    /// Two codes of 16 bits, in the bits of a float, in every lane.
    unsafe fn all_pairs(pair: f32) -> Self::Ints;
    /// Pairs of 8-bit codes, widened.
    unsafe fn load_codes(at: *const u8) -> Self::Ints;
    /// Adds to each lane the products of both codes of a pair.
    unsafe fn add_pairs(a: Self::Ints, b: Self::Ints, sum: Self::Ints) -> Self::Ints;
    unsafe fn to_floats(x: Self::Ints) -> Self::Floats;
}

/// The vector side of an encoding.
///
/// # Safety
/// All functions need AVX2, FMA, F16C and the features of `W`, and must become part of a function
/// that has them.
pub(super) trait Numbers: Encoding {
    /// Floats of one query as [`scores`](Self::scores) reads it.
    fn query_len(head_dim: usize) -> usize;

    /// The queries `q`, `(rows, head_dim)`, as [`scores`](Self::scores) reads them; `codes` is room
    /// for another form.
    unsafe fn queries<'q>(q: &'q [f32], head_dim: usize, codes: &'q mut [f32]) -> &'q [f32];

    /// `scores[row][token]` of all tokens that are seen, and of others.
    unsafe fn scores<W: Wide, const R: usize>(
        page: &Page<'_, Self>,
        queries: &[f32],
        scores: &mut [[f32; PAGE]; R],
    );

    /// `sums[row] = sums[row] * keep[row] + sum over seen tokens of weight * value`. The weights of
    /// other tokens are 0.
    unsafe fn sum_values<W: Wide, const R: usize>(
        page: &Page<'_, Self>,
        weights: &[[f32; PAGE]; R],
        keep: &[f32; R],
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
/// Must become part of a function that has AVX2, FMA, F16C and the features of `W`; the head
/// dimension must be a multiple of a register's lanes.
#[inline(always)]
unsafe fn attend<W: Wide, E: Numbers>(
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
        dim.is_multiple_of(W::LANES) && sums.len() == span.q.len(),
        "the reference takes other heads"
    );
    let (queries, group) = (span.queries(), span.shape.group());
    // SAFETY: by the contract of this function.
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
                let n = side_by_side(W::ROWS.min(end - row));
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
                // SAFETY: by the contract of this function.
                unsafe {
                    match n {
                        1 => page.add::<W, 1>(queries, partial),
                        2 => page.add::<W, 2>(queries, partial),
                        3 => page.add::<W, 3>(queries, partial),
                        4 => page.add::<W, 4>(queries, partial),
                        6 => page.add::<W, 6>(queries, partial),
                        _ => page.add::<W, 8>(queries, partial),
                    }
                }
                row += n;
            }
        }
    }
}

/// How many rows are computed side by side where so many are left: a number that there is code for.
fn side_by_side(rows: usize) -> usize {
    match rows {
        5 => 3,
        7 => 4,
        rows => rows.min(8),
    }
}

impl<E: Numbers> Page<'_, E> {
    /// Adds the page to the running softmax of `R` rows.
    ///
    /// # Safety
    /// As [`attend`].
    #[inline(always)]
    unsafe fn add<W: Wide, const R: usize>(&self, queries: &[f32], partial: &mut Partial<'_>) {
        if R > W::ROWS {
            return; // never asked for, so not worth code
        }
        let mut weights = [[0.0f32; PAGE]; R];
        let mut keep = [0.0f32; R];
        // SAFETY: by the contract of this function.
        unsafe {
            E::scores::<W, R>(self, queries, &mut weights);
            for (row, weights) in weights.iter_mut().enumerate() {
                let (maximum, total) = (&mut partial.maximums[row], &mut partial.totals[row]);
                keep[row] = softmax::<W>(weights, &self.seen, maximum, total);
            }
            E::sum_values::<W, R>(self, &weights, &keep, partial.sums);
        }
    }

    /// Starts loading elements of the next part, a few at a time while this one is computed: pages
    /// lie apart, so the processor cannot guess where it is, and fetches only so many lines at once.
    /// What the next part lacks is skipped.
    #[inline(always)]
    fn fetch_next(&self, elements: Range<usize>) {
        let Some(elements) = self.next.get(elements) else {
            return;
        };
        for line in elements.chunks(LINE / size_of::<E::Element>()) {
            // SAFETY: every x86-64 processor has the instruction, which touches nothing.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
        }
    }
}

/// Turns the scores of a page into weights relative to the new maximum, and gives back the factor
/// for what was summed before.
///
/// # Safety
/// As [`attend`].
#[inline(always)]
unsafe fn softmax<W: Wide>(
    scores: &mut [f32; PAGE],
    seen: &Range<usize>,
    maximum: &mut f32,
    total: &mut f32,
) -> f32 {
    if seen.len() < PAGE {
        scores[..seen.start].fill(f32::NEG_INFINITY);
        scores[seen.end..].fill(f32::NEG_INFINITY);
    }
    // SAFETY: by the contract of this function; a page is a whole number of registers.
    let (new, sum) = unsafe {
        let new = W::largest(scores, *maximum);
        (new, W::exp_below(scores, new))
    };
    // Mostly the maximum is an old one; e^0 is 1, and not worth a call.
    let keep = if new == *maximum {
        1.0
    } else {
        (*maximum - new).exp()
    };
    *maximum = new;
    *total = *total * keep + sum;
    keep
}
