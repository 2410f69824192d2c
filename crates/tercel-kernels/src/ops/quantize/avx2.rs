//! Thirty-two floats in four registers.

use std::arch::x86_64::*;

use super::Part;
use crate::quant::PART;

/// # Safety
/// Needs the named processor features.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn block(x: &[f32], part: &mut Part) {
    assert!(x.len() == PART, "a block has {PART} elements");
    // SAFETY: four loads of eight floats stay inside the 32.
    let x: [__m256; 4] = std::array::from_fn(|i| unsafe { _mm256_loadu_ps(x.as_ptr().add(8 * i)) });
    let sign = _mm256_set1_ps(-0.0);
    let zero = _mm256_setzero_ps();
    let (mut largest, mut poison) = (zero, zero);
    for x in x {
        // A NaN as the first operand is passed over, as `f32::max` does.
        largest = _mm256_max_ps(_mm256_andnot_ps(sign, x), largest);
        poison = _mm256_add_ps(poison, _mm256_mul_ps(x, zero));
    }
    let mut lanes = [0.0f32; 8];
    // SAFETY: `lanes` has room for eight floats.
    unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), largest) };
    let largest = lanes.iter().fold(0.0f32, |largest, &x| largest.max(x));
    // SAFETY: as above.
    unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), poison) };
    let poison: f32 = lanes.iter().sum();

    let inverse = _mm256_set1_ps(super::inverse(largest));
    let q: [__m256i; 4] = std::array::from_fn(|i| {
        let scaled = _mm256_mul_ps(x[i], inverse);
        // A NaN becomes 0, as in the reference; its block is poisoned by the scale.
        let ordered = _mm256_cmp_ps::<_CMP_ORD_Q>(scaled, scaled);
        _mm256_cvtps_epi32(_mm256_and_ps(scaled, ordered))
    });
    let sums = [
        sum(_mm256_add_epi32(q[0], q[1])),
        sum(_mm256_add_epi32(q[2], q[3])),
    ];
    // Packing works on 128-bit halves; the permutation puts the 32 codes back in order.
    let packed = _mm256_packs_epi16(
        _mm256_packs_epi32(q[0], q[1]),
        _mm256_packs_epi32(q[2], q[3]),
    );
    let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    let packed = _mm256_permutevar8x32_epi32(packed, order);
    // SAFETY: a part has 32 codes.
    unsafe { _mm256_storeu_si256(part.codes.as_mut_ptr().cast(), packed) };
    part.finish(largest / 127.0 + poison, sums);
}

#[target_feature(enable = "avx2,fma,f16c")]
fn sum(x: __m256i) -> i32 {
    let x = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256::<1>(x));
    let x = _mm_add_epi32(x, _mm_shuffle_epi32::<0b00_00_11_10>(x));
    let x = _mm_add_epi32(x, _mm_shuffle_epi32::<0b00_00_00_01>(x));
    _mm_cvtsi128_si32(x)
}
