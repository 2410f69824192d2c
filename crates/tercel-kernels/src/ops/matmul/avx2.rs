//! Eight rows in the lanes of a register, one to four tokens at a time.
//!
//! `maddubs` multiplies unsigned codes by signed activations and adds pairs into 16 bits. A pair
//! of 4-bit codes gives at most 2 * 15 * 127 = 3810, so all eight groups of a block fit in an
//! `i16` before one widening add; of 5-bit codes four groups, of 6-bit codes two. Zero points
//! come back through the sums of the activations.

mod affine;

use std::arch::x86_64::*;

use tercel_formats::DType;

use super::super::quantize::Row;
use super::Input;
use crate::layout::with_affine;
use crate::quant::{Format, NIBBLE_PLANE, PART, Q4_0, Q4_1, Q4_K, Q5_0, Q6_K, Q8_0};
use crate::{Layout, PackedMatrix, TILE_ROWS};

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
    let cols = weights.cols();
    let sums = match weights.layout() {
        Layout::Affine { bits, group } => {
            with_affine!((bits, group), F => quantized::<F, TOKENS>(packed, input, token))
        }
        Layout::Plain(dtype) => plain::<TOKENS>(dtype, packed, cols, input, token),
    };
    sums.map(|sum| {
        let mut rows = [0.0; TILE_ROWS];
        // SAFETY: `rows` has room for eight floats.
        unsafe { _mm256_storeu_ps(rows.as_mut_ptr(), sum) };
        rows
    })
}

#[target_feature(enable = "avx2,fma,f16c")]
fn plain<const TOKENS: usize>(
    dtype: DType,
    packed: &[u8],
    cols: usize,
    input: Input<'_>,
    token: usize,
) -> [__m256; TOKENS] {
    match dtype {
        DType::Q4_0 => quantized::<Q4_0, TOKENS>(packed, input, token),
        DType::Q4_1 => quantized::<Q4_1, TOKENS>(packed, input, token),
        DType::Q5_0 => quantized::<Q5_0, TOKENS>(packed, input, token),
        DType::Q8_0 => quantized::<Q8_0, TOKENS>(packed, input, token),
        DType::Q4_K => quantized::<Q4_K, TOKENS>(packed, input, token),
        DType::Q6_K => quantized::<Q6_K, TOKENS>(packed, input, token),
        DType::F16 => float::<Half, TOKENS>(packed, cols, input, token),
        DType::BF16 => float::<Brain, TOKENS>(packed, cols, input, token),
        _ => float::<Single, TOKENS>(packed, cols, input, token),
    }
}

/// A packed block as this file multiplies it.
trait Block: Format {
    /// Adds a block of eight rows times the same elements of each token to `sums`. `part` is the
    /// first of the block's parts in the rows of `x`.
    ///
    /// # Safety
    /// Needs AVX2, FMA and F16C; `block` must have `PACKED_BYTES`, and `x` the parts.
    unsafe fn add<const T: usize>(
        block: &[u8],
        x: &[Tokens; T],
        part: usize,
        sums: &mut [__m256; T],
    );
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
        // SAFETY: the part is inside the row by the contract of `Block::add`.
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

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn weighted_sum(&self, part: usize) -> __m256 {
        // SAFETY: as in `group`.
        _mm256_set1_ps(unsafe { *self.weighted_sums.add(part) })
    }

    /// `zero` times the sum of the codes of 16 elements, `half` 0 or 1 of the part.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn offset(&self, part: usize, half: usize, zero: i32) -> i32 {
        // SAFETY: as in `group`.
        zero * unsafe { *self.sums.add(2 * part + half) }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn quantized<F: Block, const T: usize>(
    packed: &[u8],
    input: Input<'_>,
    token: usize,
) -> [__m256; T] {
    let parts_per_block = F::BLOCK_LEN / PART;
    let rows: [Row<'_>; T] = std::array::from_fn(|i| input.quantized.row(token + i));
    let blocks = packed.len() / F::PACKED_BYTES;
    for row in &rows {
        assert!(
            row.scales.len() == blocks * parts_per_block,
            "the inputs have the matrix's width"
        );
    }
    let x = rows.map(Tokens::new);
    let mut sums = [_mm256_setzero_ps(); T];
    for (i, block) in packed.chunks_exact(F::PACKED_BYTES).enumerate() {
        // SAFETY: this function has the features; the block has its size and, by the assertion,
        // the rows have its parts.
        unsafe { F::add(block, &x, i * parts_per_block, &mut sums) };
    }
    sums
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn load(bytes: &[u8], at: usize) -> __m256i {
    debug_assert!(at + 32 <= bytes.len());
    // SAFETY: every caller reads inside a block whose size it was promised.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().add(at).cast()) }
}

/// Eight half floats at `at`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn halves(bytes: &[u8], at: usize) -> __m256 {
    debug_assert!(at + 16 <= bytes.len());
    // SAFETY: as in `load`.
    _mm256_cvtph_ps(unsafe { _mm_loadu_si128(bytes.as_ptr().add(at).cast()) })
}

/// Eight unsigned bytes at `at`, as floats.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn bytes_unsigned(bytes: &[u8], at: usize) -> __m256 {
    debug_assert!(at + 8 <= bytes.len());
    // SAFETY: as in `load`.
    let bytes = unsafe { _mm_loadl_epi64(bytes.as_ptr().add(at).cast()) };
    _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes))
}

/// Eight signed bytes at `at`, as floats.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn bytes_signed(bytes: &[u8], at: usize) -> __m256 {
    debug_assert!(at + 8 <= bytes.len());
    // SAFETY: as in `load`.
    let bytes = unsafe { _mm_loadl_epi64(bytes.as_ptr().add(at).cast()) };
    _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes))
}

/// Pairs of 16-bit sums to one 32-bit sum per row.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn widen(sums: __m256i) -> __m256i {
    _mm256_madd_epi16(sums, _mm256_set1_epi16(1))
}

/// Integer sums of 32 nibbles of eight rows times each token.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn nibble_sums<const T: usize>(plane: &[u8], x: &[Tokens; T], part: usize) -> [__m256i; T] {
    let mask = _mm256_set1_epi8(15);
    let mut sums = [_mm256_setzero_si256(); T];
    for pair in 0..4 {
        // SAFETY: the plane has four times 32 bytes; the part is inside the rows.
        unsafe {
            let both = load(plane, pair * 32);
            let low = _mm256_and_si256(both, mask);
            let high = _mm256_and_si256(_mm256_srli_epi16::<4>(both), mask);
            for (x, sum) in x.iter().zip(&mut sums) {
                let even = _mm256_maddubs_epi16(low, x.group(part, 2 * pair));
                let odd = _mm256_maddubs_epi16(high, x.group(part, 2 * pair + 1));
                *sum = _mm256_add_epi16(*sum, _mm256_add_epi16(even, odd));
            }
        }
    }
    sums.map(|sum| widen(sum))
}

/// Integer sums of 32 codes of five bits, a plane of nibbles and one of fifth bits, of eight rows
/// times each token.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn five_bit_sums<const T: usize>(
    planes: &[u8],
    x: &[Tokens; T],
    part: usize,
) -> [__m256i; T] {
    let mask = _mm256_set1_epi8(15);
    let fifth = _mm256_set1_epi8(16);
    let mut dots = [_mm256_setzero_si256(); T];
    // SAFETY: the planes have five times 32 bytes; the part is inside the rows.
    unsafe {
        let mut high = load(planes, NIBBLE_PLANE);
        for half in 0..2 {
            let mut short = [_mm256_setzero_si256(); T];
            for pair in 2 * half..2 * half + 2 {
                let both = load(planes, pair * 32);
                let codes = [
                    _mm256_and_si256(both, mask),
                    _mm256_and_si256(_mm256_srli_epi16::<4>(both), mask),
                ];
                for (i, low) in codes.into_iter().enumerate() {
                    // Bit 0 of each byte is the fifth bit of this group's code.
                    let bit = _mm256_and_si256(_mm256_slli_epi16::<4>(high), fifth);
                    high = _mm256_srli_epi16::<1>(high);
                    let code = _mm256_or_si256(low, bit);
                    for (x, sum) in x.iter().zip(&mut short) {
                        let product = _mm256_maddubs_epi16(code, x.group(part, 2 * pair + i));
                        *sum = _mm256_add_epi16(*sum, product);
                    }
                }
            }
            for (dot, short) in dots.iter_mut().zip(short) {
                *dot = _mm256_add_epi32(*dot, widen(short));
            }
        }
    }
    dots
}

/// Integer sums of one half of 32 codes of six bits, a plane of nibbles and one of bit pairs, of
/// eight rows times each token.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn six_bit_sums<const T: usize>(
    planes: &[u8],
    x: &[Tokens; T],
    part: usize,
    half: usize,
) -> [__m256i; T] {
    let mask = _mm256_set1_epi8(15);
    let top = _mm256_set1_epi8(48);
    let mut dots = [_mm256_setzero_si256(); T];
    // SAFETY: the planes have six times 32 bytes; the part is inside the rows.
    unsafe {
        let mut high = load(planes, NIBBLE_PLANE + half * 32);
        for pair in 2 * half..2 * half + 2 {
            let both = load(planes, pair * 32);
            let low = [
                _mm256_and_si256(both, mask),
                _mm256_and_si256(_mm256_srli_epi16::<4>(both), mask),
            ];
            let mut short = [_mm256_setzero_si256(); T];
            for (i, low) in low.into_iter().enumerate() {
                let bits = _mm256_and_si256(_mm256_slli_epi16::<4>(high), top);
                high = _mm256_srli_epi16::<2>(high);
                let code = _mm256_or_si256(low, bits);
                for (x, sum) in x.iter().zip(&mut short) {
                    let product = _mm256_maddubs_epi16(code, x.group(part, 2 * pair + i));
                    *sum = _mm256_add_epi16(*sum, product);
                }
            }
            for (dot, short) in dots.iter_mut().zip(short) {
                *dot = _mm256_add_epi32(*dot, widen(short));
            }
        }
    }
    dots
}

/// Integer sums of 32 signed bytes of eight rows times each token.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn signed_byte_sums<const T: usize>(
    codes: &[u8],
    x: &[Tokens; T],
    part: usize,
) -> [__m256i; T] {
    let mut dots = [_mm256_setzero_si256(); T];
    for group in 0..8 {
        // SAFETY: there are eight times 32 bytes; the part is inside the rows.
        unsafe {
            // Both factors are signed: the sign of the weight moves to the activation, whose
            // codes are in -127..=127. A pair is at most 2 * 128 * 127, which fits.
            let code = load(codes, group * 32);
            let magnitude = _mm256_abs_epi8(code);
            for (x, dot) in x.iter().zip(&mut dots) {
                let signed = _mm256_sign_epi8(x.group(part, group), code);
                let pairs = _mm256_maddubs_epi16(magnitude, signed);
                *dot = _mm256_add_epi32(*dot, widen(pairs));
            }
        }
    }
    dots
}

impl Block for Q4_0 {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn add<const T: usize>(
        block: &[u8],
        x: &[Tokens; T],
        part: usize,
        sums: &mut [__m256; T],
    ) {
        // SAFETY: by the contract of this function.
        unsafe {
            let scale = halves(block, Self::SCALES);
            let dots = nibble_sums(block, x, part);
            for ((x, dot), sum) in x.iter().zip(dots).zip(sums) {
                let offset = x.offset(part, 0, Self::ZERO) + x.offset(part, 1, Self::ZERO);
                let dot = _mm256_sub_epi32(dot, _mm256_set1_epi32(offset));
                let scale = _mm256_mul_ps(scale, x.scale(part));
                *sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), scale, *sum);
            }
        }
    }
}

impl Block for Q4_1 {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn add<const T: usize>(
        block: &[u8],
        x: &[Tokens; T],
        part: usize,
        sums: &mut [__m256; T],
    ) {
        // SAFETY: by the contract of this function.
        unsafe {
            let (scale, min) = (halves(block, Self::SCALES), halves(block, Self::MINS));
            let dots = nibble_sums(block, x, part);
            for ((x, dot), sum) in x.iter().zip(dots).zip(sums) {
                let scale = _mm256_mul_ps(scale, x.scale(part));
                *sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), scale, *sum);
                *sum = _mm256_fmadd_ps(min, x.weighted_sum(part), *sum);
            }
        }
    }
}

impl Block for Q4_K {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn add<const T: usize>(
        block: &[u8],
        x: &[Tokens; T],
        part: usize,
        sums: &mut [__m256; T],
    ) {
        // SAFETY: by the contract of this function.
        unsafe {
            let d = halves(block, 0);
            let d_min = halves(block, Self::MIN_SCALES);
            for (i, bytes) in block[Self::PARTS..]
                .chunks_exact(Self::PART_BYTES)
                .enumerate()
            {
                let part = part + i;
                let scale = _mm256_mul_ps(d, bytes_unsigned(bytes, Self::SCALES));
                let min = _mm256_mul_ps(d_min, bytes_unsigned(bytes, Self::MINS));
                let dots = nibble_sums(bytes, x, part);
                for ((x, dot), sum) in x.iter().zip(dots).zip(sums.iter_mut()) {
                    let scale = _mm256_mul_ps(scale, x.scale(part));
                    *sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), scale, *sum);
                    *sum = _mm256_fnmadd_ps(min, x.weighted_sum(part), *sum);
                }
            }
        }
    }
}

impl Block for Q5_0 {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn add<const T: usize>(
        block: &[u8],
        x: &[Tokens; T],
        part: usize,
        sums: &mut [__m256; T],
    ) {
        // SAFETY: by the contract of this function.
        unsafe {
            let scale = halves(block, Self::SCALES);
            let dots = five_bit_sums(block, x, part);
            for ((x, dot), sum) in x.iter().zip(dots).zip(sums) {
                let offset = x.offset(part, 0, Self::ZERO) + x.offset(part, 1, Self::ZERO);
                let dot = _mm256_sub_epi32(dot, _mm256_set1_epi32(offset));
                let scale = _mm256_mul_ps(scale, x.scale(part));
                *sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), scale, *sum);
            }
        }
    }
}

impl Block for Q6_K {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn add<const T: usize>(
        block: &[u8],
        x: &[Tokens; T],
        part: usize,
        sums: &mut [__m256; T],
    ) {
        // SAFETY: by the contract of this function.
        unsafe {
            let d = halves(block, 0);
            for (i, bytes) in block[Self::PARTS..]
                .chunks_exact(Self::PART_BYTES)
                .enumerate()
            {
                let part = part + i;
                for half in 0..2 {
                    let scales = bytes_signed(bytes, Self::SCALES + half * TILE_ROWS);
                    let scale = _mm256_mul_ps(d, scales);
                    let dots = six_bit_sums(bytes, x, part, half);
                    for ((x, dot), sum) in x.iter().zip(dots).zip(sums.iter_mut()) {
                        let offset = x.offset(part, half, Self::ZERO);
                        let dot = _mm256_sub_epi32(dot, _mm256_set1_epi32(offset));
                        let scale = _mm256_mul_ps(scale, x.scale(part));
                        *sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), scale, *sum);
                    }
                }
            }
        }
    }
}

impl Block for Q8_0 {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn add<const T: usize>(
        block: &[u8],
        x: &[Tokens; T],
        part: usize,
        sums: &mut [__m256; T],
    ) {
        // SAFETY: by the contract of this function.
        unsafe {
            let scale = halves(block, Self::SCALES);
            let dots = signed_byte_sums(block, x, part);
            for ((x, dot), sum) in x.iter().zip(dots).zip(sums) {
                let scale = _mm256_mul_ps(scale, x.scale(part));
                *sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), scale, *sum);
            }
        }
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
