//! Affine groups: the codes of the block formats, with scales and biases that are whole floats.

use std::arch::x86_64::*;

use super::{Block, Tokens, five_bit_sums, nibble_sums, signed_byte_sums, six_bit_sums};
use crate::quant::AffineGroup;

impl<const WIDTH: u32, const GROUP: usize> Block for AffineGroup<WIDTH, GROUP> {
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
            let scale = floats(block, Self::SCALES);
            let bias = floats(block, Self::BIASES);
            let offset = _mm256_mul_ps(_mm256_set1_ps(Self::OFFSET), scale);
            let min = _mm256_add_ps(offset, bias);
            let parts = block[..Self::SCALES].chunks_exact(Self::PART_BYTES);
            for (i, bytes) in parts.enumerate() {
                let part = part + i;
                let dots = match WIDTH {
                    5 => five_bit_sums(bytes, x, part),
                    6 => {
                        let low = six_bit_sums(bytes, x, part, 0);
                        let high = six_bit_sums(bytes, x, part, 1);
                        std::array::from_fn(|i| _mm256_add_epi32(low[i], high[i]))
                    }
                    8 => signed_byte_sums(bytes, x, part),
                    _ => nibble_sums(bytes, x, part),
                };
                for ((x, dot), sum) in x.iter().zip(dots).zip(sums.iter_mut()) {
                    let scale = _mm256_mul_ps(scale, x.scale(part));
                    *sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), scale, *sum);
                    *sum = _mm256_fmadd_ps(min, x.weighted_sum(part), *sum);
                }
            }
        }
    }
}

/// Eight floats at `at`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn floats(bytes: &[u8], at: usize) -> __m256 {
    debug_assert!(at + 32 <= bytes.len());
    // SAFETY: every caller reads inside a block whose size it was promised.
    unsafe { _mm256_loadu_ps(bytes.as_ptr().add(at).cast()) }
}
