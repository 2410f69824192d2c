//! Two registers of tokens (scores) or of elements (sums) for several rows at a time: the numbers of
//! a page are widened once for all query heads that share it.
//!
//! Functions that are `inline(always)` become part of an `attend_*` that has the features of a
//! processor, and are compiled for those.

mod float;
mod q8;

use std::ops::Range;

use super::cache::Encoding;
use super::{PAGE, Partial, Span};
#[cfg(target_arch = "x86_64")]
use crate::ops::registers::{Avx2, Avx512};
use crate::ops::registers::{Eight, EightFloats, Registers, exp};

/// Bytes that the processor fetches at once.
const LINE: usize = 64;

/// # Safety
/// Needs the named processor features; the head dimension must be a multiple of 8.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn attend_avx2<E: Numbers>(
    span: &Span<'_, E>,
    partial: &mut Partial<'_>,
    codes: &mut [f32],
) {
    // SAFETY: this function has the features.
    unsafe { attend::<Avx2, E>(span, partial, codes) }
}

/// # Safety
/// Needs the named processor features; the head dimension must be a multiple of 16.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) unsafe fn attend_avx512<E: Numbers>(
    span: &Span<'_, E>,
    partial: &mut Partial<'_>,
    codes: &mut [f32],
) {
    // SAFETY: this function has the features.
    unsafe { attend::<Avx512, E>(span, partial, codes) }
}

/// # Safety
/// Needs the named processor features; the head dimension must be a multiple of 8.
#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
pub(super) unsafe fn attend_neon<E: Numbers>(
    span: &Span<'_, E>,
    partial: &mut Partial<'_>,
    codes: &mut [f32],
) {
    // SAFETY: this function has the features.
    unsafe { attend::<crate::ops::registers::Neon, E>(span, partial, codes) }
}

/// The vector side of an encoding.
///
/// # Safety
/// All functions must become part of one that has the features of `R`.
pub(super) trait Numbers: Encoding {
    /// Floats of one query as [`scores`](Self::scores) reads it.
    fn query_len(head_dim: usize) -> usize;

    /// The queries `q`, `(rows, head_dim)`, as [`scores`](Self::scores) reads them; `codes` is room
    /// for another form.
    unsafe fn queries<'q, R: Registers>(
        q: &'q [f32],
        head_dim: usize,
        codes: &'q mut [f32],
    ) -> &'q [f32];

    /// `scores[row][token]` of all tokens that are seen, and of others.
    unsafe fn scores<R: Registers, const ROWS: usize>(
        page: &Page<'_, Self>,
        queries: &[f32],
        scores: &mut [[f32; PAGE]; ROWS],
    );

    /// `sums[row] = sums[row] * keep[row] + sum over seen tokens of weight * value`. The weights of
    /// other tokens are 0.
    unsafe fn sum_values<R: Registers, const ROWS: usize>(
        page: &Page<'_, Self>,
        weights: &[[f32; PAGE]; ROWS],
        keep: &[f32; ROWS],
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
/// Must become part of a function that has the features of `R`; the head dimension must be a
/// multiple of its lanes.
#[inline(always)]
unsafe fn attend<R: Registers, E: Numbers>(
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
        dim.is_multiple_of(R::LANES) && sums.len() == span.q.len(),
        "the reference takes other heads"
    );
    let (queries, group) = (span.queries(), span.shape.group());
    // SAFETY: by the contract of this function.
    let rows = unsafe { E::queries::<R>(span.q, dim, codes) };
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
                let n = side_by_side(most_rows::<R>().min(end - row));
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
                        1 => page.add::<R, 1>(queries, partial),
                        2 => page.add::<R, 2>(queries, partial),
                        3 => page.add::<R, 3>(queries, partial),
                        4 => page.add::<R, 4>(queries, partial),
                        6 => page.add::<R, 6>(queries, partial),
                        _ => page.add::<R, 8>(queries, partial),
                    }
                }
                row += n;
            }
        }
    }
}

/// Rows computed side by side, at most: as many as the registers hold the sums of.
const fn most_rows<R: Registers>() -> usize {
    if R::COUNT < 32 { 6 } else { 8 }
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
    /// Adds the page to the running softmax of `ROWS` rows.
    ///
    /// # Safety
    /// As [`attend`].
    #[inline(always)]
    unsafe fn add<R: Registers, const ROWS: usize>(
        &self,
        queries: &[f32],
        partial: &mut Partial<'_>,
    ) {
        if ROWS > most_rows::<R>() {
            return; // never asked for, so not worth code
        }
        let mut weights = [[0.0f32; PAGE]; ROWS];
        let mut keep = [0.0f32; ROWS];
        // SAFETY: by the contract of this function.
        unsafe {
            E::scores::<R, ROWS>(self, queries, &mut weights);
            for (row, weights) in weights.iter_mut().enumerate() {
                let (maximum, total) = (&mut partial.maximums[row], &mut partial.totals[row]);
                keep[row] = softmax::<R>(weights, &self.seen, maximum, total);
            }
            E::sum_values::<R, ROWS>(self, &weights, &keep, partial.sums);
        }
    }

    /// Starts loading elements of the next part, a few at a time while this one is computed: pages
    /// lie apart, so the processor cannot guess where it is, and fetches only so many lines at once.
    /// What the next part lacks is skipped.
    ///
    /// # Safety
    /// As [`attend`].
    #[inline(always)]
    unsafe fn fetch_next<R: Registers>(&self, elements: Range<usize>) {
        let Some(elements) = self.next.get(elements) else {
            return;
        };
        for line in elements.chunks(LINE / size_of::<E::Element>()) {
            // SAFETY: by the contract of this function.
            unsafe { R::prefetch(line.as_ptr().cast()) };
        }
    }
}

/// Turns the scores of a page into weights relative to the new maximum, and gives back the factor
/// for what was summed before.
///
/// # Safety
/// As [`attend`].
#[inline(always)]
unsafe fn softmax<R: Registers>(
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
        let new = largest::<R>(scores, *maximum);
        (new, exp_below::<R>(scores, new))
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

/// The largest of a whole number of registers, or what was the largest before.
///
/// # Safety
/// As [`attend`].
#[inline(always)]
unsafe fn largest<R: Registers>(x: &[f32; PAGE], so_far: f32) -> f32 {
    // SAFETY: by the contract of this function; the chunks are registers.
    unsafe {
        let mut largest = R::all(so_far);
        for x in x.chunks_exact(R::LANES) {
            largest = R::max(R::load(x.as_ptr()), largest);
        }
        R::largest(largest)
    }
}

/// Makes `e^(x - largest)` of a whole number of registers, and gives the sum.
///
/// # Safety
/// As [`attend`].
#[inline(always)]
unsafe fn exp_below<R: Registers>(x: &mut [f32; PAGE], largest: f32) -> f32 {
    // SAFETY: by the contract of this function; the chunks are registers.
    unsafe {
        let largest = R::all(largest);
        let mut sums: EightFloats<R> = R::Eight::zeros();
        for x in x.chunks_exact_mut(R::LANES) {
            let power = exp::<R>(R::sub(R::load(x.as_ptr()), largest));
            sums = R::add_to_eight(sums, power);
            R::store(x.as_mut_ptr(), power);
        }
        R::Eight::sum(sums)
    }
}
