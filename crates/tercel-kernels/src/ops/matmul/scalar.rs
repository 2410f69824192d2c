//! The reference.

use tercel_formats::DType;

use super::super::quantize::Part;
use super::Input;
use crate::layout::with_layout;
use crate::packed::float_at;
use crate::quant::{Format, PART, Scale, formats::*};
use crate::{PackedMatrix, TILE_ROWS};

/// The products of the rows of one tile with `TOKENS` tokens from `token` on.
pub(super) fn tile<const TOKENS: usize>(
    weights: &PackedMatrix,
    tile: usize,
    input: Input<'_>,
    token: usize,
) -> [[f32; TILE_ROWS]; TOKENS] {
    let packed = weights.tile(tile);
    std::array::from_fn(|i| {
        std::array::from_fn(|row| {
            with_layout!(weights.layout(),
                F => quantized::<F>(packed, row, input.quantized.row(token + i)),
                float dtype => {
                    let cols = weights.cols();
                    float(dtype, packed, row, &input.x[(token + i) * cols..][..cols])
                }
            )
        })
    })
}

fn quantized<F: Format>(packed: &[u8], row: usize, x: &[Part]) -> f32 {
    let mut sum = 0.0f32;
    for (at, x) in x.iter().enumerate() {
        let block = &packed[at / F::PARTS * F::PACKED_BYTES..][..F::PACKED_BYTES];
        let part = F::part(block, row, at % F::PARTS);
        let dot = |half: usize| -> i32 {
            let from = half * PART / 2;
            let products = part.codes[from..].iter().zip(&x.codes[from..]);
            let products = products.map(|(w, x)| i32::from(*w) * i32::from(*x));
            products.take(PART / 2).sum()
        };
        sum = match part.scale {
            Scale::One(scale) => ((dot(0) + dot(1)) as f32).mul_add(scale * x.scale, sum),
            Scale::Halves(low, high) => {
                let sum = (dot(0) as f32).mul_add(low * x.scale, sum);
                (dot(1) as f32).mul_add(high * x.scale, sum)
            }
        };
        sum = match part.min {
            None => sum,
            Some(Scale::One(min)) => min.mul_add(x.weighted_sum, sum),
            Some(Scale::Halves(low, high)) => {
                let x_sum = |half: usize| x.scale * x.sums[half] as f32;
                let sum = low.mul_add(x_sum(0), sum);
                high.mul_add(x_sum(1), sum)
            }
        };
    }
    sum
}

fn float(dtype: DType, packed: &[u8], row: usize, x: &[f32]) -> f32 {
    let width = dtype.block_bytes();
    let mut sums = [0.0f32; 2];
    for (k, (column, x)) in packed.chunks_exact(width * TILE_ROWS).zip(x).enumerate() {
        let weight = float_at(dtype, &column[row * width..(row + 1) * width]);
        sums[k % 2] = weight.mul_add(*x, sums[k % 2]);
    }
    sums[0] + sums[1]
}
