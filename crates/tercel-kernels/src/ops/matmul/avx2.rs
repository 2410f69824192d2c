//! Eight rows in the lanes of a register, one to four tokens at a time.
//!
//! `maddubs` multiplies unsigned codes by signed activations and adds pairs into 16 bits. A pair
//! of 4-bit codes gives at most 2 * 15 * 127 = 3810, so all eight groups of a part fit in an
//! `i16` before one widening add; of 5-bit codes four groups, of 6-bit codes two. Zero points
//! come back through the sums of the activations.

use std::arch::x86_64::*;

use tercel_formats::DType;

use super::super::quantize::Row;
use super::Input;
use crate::layout::with_layout;
use crate::quant::{
    Bits, Bytes, Codes, Format, GROUPS, Grain, Lookup, PART, Signed, Values, formats::*,
};
use crate::{PackedMatrix, TILE_ROWS};

/// The products of the rows of one tile with `TOKENS` tokens from `token` on.
///
/// # Safety
/// Needs the named processor features.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn tile<const TOKENS: usize>(
    weights: &PackedMatrix,
    tile: usize,
    input: Input<'_>,
    token: usize,
) -> [[f32; TILE_ROWS]; TOKENS] {
    let packed = weights.tile(tile);
    let sums = with_layout!(weights.layout(),
        F => quantized::<F, TOKENS>(packed, input, token),
        float dtype => match dtype {
            DType::F16 => float::<Half, TOKENS>(packed, weights.cols(), input, token),
            DType::BF16 => float::<Brain, TOKENS>(packed, weights.cols(), input, token),
            _ => float::<Single, TOKENS>(packed, weights.cols(), input, token),
        }
    );
    sums.map(|sum| {
        let mut rows = [0.0; TILE_ROWS];
        // SAFETY: `rows` has room for eight floats.
        unsafe { _mm256_storeu_ps(rows.as_mut_ptr(), sum) };
        rows
    })
}

#[target_feature(enable = "avx2,fma,f16c")]
fn quantized<F: Format<Codes: Unpack>, const T: usize>(
    packed: &[u8],
    input: Input<'_>,
    token: usize,
) -> [__m256; T] {
    let rows: [Row<'_>; T] = std::array::from_fn(|i| input.quantized.row(token + i));
    let blocks = packed.len() / F::PACKED_BYTES;
    for row in &rows {
        assert!(
            row.scales.len() == blocks * F::PARTS,
            "the inputs have the matrix's width"
        );
    }
    let x = rows.map(Tokens::new);
    let mut sums = [_mm256_setzero_ps(); T];
    for (i, block) in packed.chunks_exact(F::PACKED_BYTES).enumerate() {
        // SAFETY: this function has the features; the block has its size and, by the assertion,
        // the rows have its parts.
        unsafe { add_block::<F, T>(block, &x, i * F::PARTS, &mut sums) };
    }
    sums
}

/// Adds a block of eight rows times the same elements of each token to `sums`. `first` is the
/// first of the block's parts in the rows of `x`.
///
/// # Safety
/// `block` must have `PACKED_BYTES`, and `x` the parts.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn add_block<F: Format<Codes: Unpack>, const T: usize>(
    block: &[u8],
    x: &[Tokens; T],
    first: usize,
    sums: &mut [__m256; T],
) {
    // SAFETY: by the contract of this function.
    unsafe {
        let d = head::<F>(block, 0);
        let parts = block[F::FIRST_PART..].chunks_exact(F::PART_BYTES);
        for (i, bytes) in parts.enumerate() {
            let part = first + i;
            match F::SCALES {
                Grain::Block | Grain::Part => add_products::<F, T, 0, 2>(d, bytes, x, part, sums),
                Grain::Half => {
                    add_products::<F, T, 0, 1>(d, bytes, x, part, sums);
                    add_products::<F, T, 1, 2>(d, bytes, x, part, sums);
                }
            }
            if let Some(grain) = F::MINS {
                let m = head::<F>(block, F::HEAD_BYTES);
                add_mins(m, &bytes[F::MIN_BYTES..], grain, x, part, sums);
            }
        }
    }
}

/// Adds the halves `FROM..TO` of a part, which share a scale, without minimums.
///
/// # Safety
/// As [`add_block`]; `bytes` are the packed part.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn add_products<F, const T: usize, const FROM: usize, const TO: usize>(
    d: __m256,
    bytes: &[u8],
    x: &[Tokens; T],
    part: usize,
    sums: &mut [__m256; T],
) where
    F: Format<Codes: Unpack>,
{
    // SAFETY: by the contract of this function.
    unsafe {
        let scale = scaled(d, &bytes[F::SCALE_BYTES..], F::SCALES, FROM);
        let dots = dot::<F::Codes, T, FROM, TO>(bytes, x, part);
        for ((x, dot), sum) in x.iter().zip(dots).zip(sums) {
            let scale = _mm256_mul_ps(scale, x.scale(part));
            *sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), scale, *sum);
        }
    }
}

/// Adds the minimums of a part.
///
/// # Safety
/// As [`add_block`]; `factors` are those of the minimums of the part.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn add_mins<const T: usize>(
    m: __m256,
    factors: &[u8],
    grain: Grain,
    x: &[Tokens; T],
    part: usize,
    sums: &mut [__m256; T],
) {
    // SAFETY: by the contract of this function.
    unsafe {
        let min = scaled(m, factors, grain, 0);
        if grain != Grain::Half {
            for (x, sum) in x.iter().zip(sums) {
                *sum = _mm256_fmadd_ps(min, x.weighted_sum(part), *sum);
            }
            return;
        }
        let high_min = scaled(m, factors, grain, 1);
        for (x, sum) in x.iter().zip(sums) {
            *sum = _mm256_fmadd_ps(min, x.weighted_half(part, 0), *sum);
            *sum = _mm256_fmadd_ps(high_min, x.weighted_half(part, 1), *sum);
        }
    }
}

/// Eight `d` or `m`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn head<F: Format>(block: &[u8], at: usize) -> __m256 {
    debug_assert!(at + F::HEAD_BYTES <= block.len());
    // SAFETY: every caller reads inside a block whose size it was promised.
    unsafe {
        let at = block.as_ptr().add(at);
        match F::HEAD {
            DType::F32 => Single::load(at),
            DType::BF16 => Brain::load(at),
            _ => Half::load(at),
        }
    }
}

/// `d` times the factors of half `half` of a part, or of all of it.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn scaled(d: __m256, factors: &[u8], grain: Grain, half: usize) -> __m256 {
    if grain == Grain::Block {
        return d;
    }
    let at = half * TILE_ROWS;
    debug_assert!(at + TILE_ROWS <= factors.len());
    // SAFETY: as in `head`.
    let factors = unsafe { _mm_loadl_epi64(factors.as_ptr().add(at).cast()) };
    _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(factors)))
}

/// Integer sums of the elements of the halves `FROM..TO` of eight rows times each token.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn dot<C: Unpack, const T: usize, const FROM: usize, const TO: usize>(
    planes: &[u8],
    x: &[Tokens; T],
    part: usize,
) -> [__m256i; T] {
    let fitting = const { fitting::<C>() };
    let groups = FROM * GROUPS / 2..TO * GROUPS / 2;
    let mut dots = [_mm256_setzero_si256(); T];
    let mut short = [_mm256_setzero_si256(); T];
    for group in groups.clone() {
        // SAFETY: by the contract of `add_block` the codes are there, and the part in the rows.
        unsafe {
            let codes = C::group(planes, group);
            for ((x, short), dot) in x.iter().zip(&mut short).zip(&mut dots) {
                let pairs = C::pairs(codes, x.group(part, group));
                if fitting == 1 {
                    // Without the detour through `short` the compiler spills no registers.
                    *dot = _mm256_add_epi32(*dot, widen(pairs));
                } else {
                    *short = _mm256_add_epi16(*short, pairs);
                }
            }
        }
        let is_full = (group + 1).is_multiple_of(fitting) || group + 1 == groups.end;
        if fitting > 1 && is_full {
            for (dot, short) in dots.iter_mut().zip(&mut short) {
                *dot = _mm256_add_epi32(*dot, widen(*short));
                *short = _mm256_setzero_si256();
            }
        }
    }
    for (x, dot) in x.iter().zip(&mut dots) {
        // SAFETY: as above.
        let sum: i32 = (FROM..TO).map(|half| unsafe { x.sum(part, half) }).sum();
        *dot = _mm256_sub_epi32(*dot, _mm256_set1_epi32(C::ZERO * sum));
    }
    dots
}

/// Groups whose pairs add up in 16 bits.
const fn fitting<C: Codes>() -> usize {
    i16::MAX as usize / (2 * 127 * C::LARGEST as usize)
}

/// Pairs of 16-bit sums to one 32-bit sum per row.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn widen(sums: __m256i) -> __m256i {
    _mm256_madd_epi16(sums, _mm256_set1_epi16(1))
}

/// Codes as this file multiplies them.
trait Unpack: Codes {
    /// What a kernel multiplies with where the code stands for 0.
    const ZERO: i32 = 0;

    /// A byte for each code of a group.
    ///
    /// # Safety
    /// Needs AVX2; `planes` must have `BYTES`.
    unsafe fn group(planes: &[u8], group: usize) -> __m256i;

    /// Products of one group, adjacent ones added.
    ///
    /// # Safety
    /// Needs AVX2.
    unsafe fn pairs(codes: __m256i, x: __m256i) -> __m256i;
}

impl<const LOW: i32, const HIGH: i32, const ZERO: i32> Unpack for Bits<LOW, HIGH, ZERO> {
    const ZERO: i32 = ZERO;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn group(planes: &[u8], group: usize) -> __m256i {
        // SAFETY: by the contract of this function.
        unsafe {
            let low = bits::<LOW, 0>(planes, group);
            if HIGH == 0 {
                return low;
            }
            _mm256_or_si256(low, bits::<HIGH, LOW>(&planes[Self::HIGH_PLANE..], group))
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn pairs(codes: __m256i, x: __m256i) -> __m256i {
        _mm256_maddubs_epi16(codes, x)
    }
}

impl Unpack for Signed {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn group(planes: &[u8], group: usize) -> __m256i {
        // SAFETY: by the contract of this function.
        unsafe { load(planes, group * 32) }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn pairs(codes: __m256i, x: __m256i) -> __m256i {
        signed_pairs(codes, x)
    }
}

impl Unpack for Bytes {
    const ZERO: i32 = -128;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn group(planes: &[u8], group: usize) -> __m256i {
        // SAFETY: by the contract of this function.
        unsafe { Signed::group(planes, group) }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn pairs(codes: __m256i, x: __m256i) -> __m256i {
        signed_pairs(codes, x)
    }
}

impl<V: Values> Unpack for Lookup<V> {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn group(planes: &[u8], group: usize) -> __m256i {
        // SAFETY: by the contract of this function; the table has 16 bytes.
        unsafe {
            let values = _mm256_broadcastsi128_si256(_mm_loadu_si128(V::VALUES.as_ptr().cast()));
            _mm256_shuffle_epi8(values, bits::<4, 0>(planes, group))
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn pairs(codes: __m256i, x: __m256i) -> __m256i {
        signed_pairs(codes, x)
    }
}

/// The `WIDTH` bits of each code of a group out of a plane, moved up by `BY`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn bits<const WIDTH: i32, const BY: i32>(plane: &[u8], group: usize) -> __m256i {
    let groups = 8 / WIDTH as usize;
    // SAFETY: by the contract of `Unpack::group`.
    let held = unsafe { load(plane, group / groups * 32) };
    // The loop over groups is unrolled, so these shifts are constants.
    let up = BY - WIDTH * (group % groups) as i32;
    let moved = if up < 0 {
        _mm256_srl_epi16(held, _mm_cvtsi32_si128(-up))
    } else {
        _mm256_sll_epi16(held, _mm_cvtsi32_si128(up))
    };
    _mm256_and_si256(moved, _mm256_set1_epi8(((1 << WIDTH) - 1) << BY))
}

/// Products of signed codes. The sign of the weight moves to the activation, whose codes are in
/// -127..=127. A pair is at most 2 * 128 * 127, which fits.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn signed_pairs(codes: __m256i, x: __m256i) -> __m256i {
    _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(x, codes))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn load(bytes: &[u8], at: usize) -> __m256i {
    debug_assert!(at + 32 <= bytes.len());
    // SAFETY: as in `head`.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().add(at).cast()) }
}

/// The activations of one token, as pointers that the inner loops can index unchecked.
#[derive(Clone, Copy)]
struct Tokens {
    codes: *const i8,
    scales: *const f32,
    sums: *const i32,
    weighted_sums: *const f32,
}

impl Tokens {
    fn new(row: Row<'_>) -> Self {
        Self {
            codes: row.codes.as_ptr(),
            scales: row.scales.as_ptr(),
            sums: row.sums.as_ptr(),
            weighted_sums: row.weighted_sums.as_ptr(),
        }
    }

    /// Four codes of group `group` of part `part`, in every lane.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn group(&self, part: usize, group: usize) -> __m256i {
        // SAFETY: the part is inside the row by the contract of `add_block`.
        let codes = unsafe {
            self.codes
                .add(part * PART + group * 4)
                .cast::<i32>()
                .read_unaligned()
        };
        _mm256_set1_epi32(codes)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn scale(&self, part: usize) -> __m256 {
        // SAFETY: as in `group`.
        _mm256_set1_ps(unsafe { *self.scales.add(part) })
    }

    /// The sum of the codes of one half of a part.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn sum(&self, part: usize, half: usize) -> i32 {
        // SAFETY: as in `group`.
        unsafe { *self.sums.add(2 * part + half) }
    }

    /// The scale times the sum of the codes of one half of a part.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn weighted_half(&self, part: usize, half: usize) -> __m256 {
        // SAFETY: as in `group`.
        unsafe { _mm256_set1_ps(*self.scales.add(part) * self.sum(part, half) as f32) }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn weighted_sum(&self, part: usize) -> __m256 {
        // SAFETY: as in `group`.
        _mm256_set1_ps(unsafe { *self.weighted_sums.add(part) })
    }
}

/// A float type of weights.
trait Float {
    const BYTES: usize;
    /// Eight numbers of one column of a tile.
    ///
    /// # Safety
    /// Needs AVX2 and F16C; `at` must have eight numbers.
    unsafe fn load(at: *const u8) -> __m256;
}

struct Single;
struct Half;
struct Brain;

impl Float for Single {
    const BYTES: usize = 4;
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load(at: *const u8) -> __m256 {
        // SAFETY: by the contract of this function.
        unsafe { _mm256_loadu_ps(at.cast()) }
    }
}

impl Float for Half {
    const BYTES: usize = 2;
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load(at: *const u8) -> __m256 {
        // SAFETY: by the contract of this function.
        _mm256_cvtph_ps(unsafe { _mm_loadu_si128(at.cast()) })
    }
}

impl Float for Brain {
    const BYTES: usize = 2;
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load(at: *const u8) -> __m256 {
        // SAFETY: by the contract of this function.
        let bits = _mm256_cvtepu16_epi32(unsafe { _mm_loadu_si128(at.cast()) });
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits))
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn float<F: Float, const T: usize>(
    packed: &[u8],
    cols: usize,
    input: Input<'_>,
    token: usize,
) -> [__m256; T] {
    let x: [&[f32]; T] = std::array::from_fn(|i| &input.x[(token + i) * cols..][..cols]);
    assert!(
        packed.len() == cols * TILE_ROWS * F::BYTES,
        "a tile has all columns"
    );
    let mut sums = [[_mm256_setzero_ps(); T]; 2];
    for k in 0..cols {
        // SAFETY: this function has the features and, by the assertion, the column is there.
        let column = unsafe { F::load(packed.as_ptr().add(k * TILE_ROWS * F::BYTES)) };
        for (x, sum) in x.iter().zip(&mut sums[k % 2]) {
            // SAFETY: `x` has `cols` elements.
            let x = _mm256_set1_ps(unsafe { *x.get_unchecked(k) });
            *sum = _mm256_fmadd_ps(column, x, *sum);
        }
    }
    let [even, odd] = sums;
    std::array::from_fn(|i| _mm256_add_ps(even[i], odd[i]))
}
