//! The reference.

use tercel_formats::DType;

use super::super::quantize::Row;
use super::Input;
use crate::layout::with_layout;
use crate::packed::float_at;
use crate::quant::{Format, PART, Part, Q4_0, Q4_1, Q4_K, Q5_0, Q6_K, Q8_0, Scale};
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

fn quantized<F: Format>(packed: &[u8], row: usize, x: Row<'_>) -> f32 {
    let parts_per_block = F::BLOCK_LEN / PART;
    let mut sum = 0.0f32;
    for at in 0..x.scales.len() {
        let block = &packed[at / parts_per_block * F::PACKED_BYTES..][..F::PACKED_BYTES];
        let part = F::part(block, row, at % parts_per_block);
        sum = add_part(
            sum,
            &part,
            &x.codes[at * PART..(at + 1) * PART],
            x.scales[at],
        );
        if let Some(min) = part.min {
            sum = min.mul_add(x.weighted_sums[at], sum);
        }
    }
    sum
}

fn add_part(sum: f32, part: &Part, x: &[i8], x_scale: f32) -> f32 {
    let dot = |from: usize, to: usize| -> f32 {
        let products = part.codes[from..to].iter().zip(&x[from..to]);
        products
            .map(|(w, x)| i32::from(*w) * i32::from(*x))
            .sum::<i32>() as f32
    };
    match part.scale {
        Scale::One(scale) => dot(0, PART).mul_add(scale * x_scale, sum),
        Scale::Halves(low, high) => {
            let sum = dot(0, PART / 2).mul_add(low * x_scale, sum);
            dot(PART / 2, PART).mul_add(high * x_scale, sum)
        }
    }
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
