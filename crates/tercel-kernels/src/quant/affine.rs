//! Affine groups, as MLX quantizes: codes of 2 to 8 bits without a sign, a scale and a bias for
//! each group, `w = scale * code + bias`.
//!
//! Scales and biases are kept as they were stored, as F32, and the weights are computed in F32.
//! MLX computes in the type of the scales, so a weight of a model with 16-bit scales can differ
//! from its own by one unit in the last place of that type; with F32 scales they are the same.

use std::marker::PhantomData;

use tercel_formats::{Affine, DType};

use super::codes::word;
use super::{Codes, Format, Grain, PART, RowMut};
use crate::packed::float_at;

/// A packed group of `GROUP` elements.
#[derive(Clone, Copy, Debug)]
pub struct AffineGroup<C, const GROUP: usize>(PhantomData<C>);

impl<C: Codes, const GROUP: usize> Format for AffineGroup<C, GROUP> {
    type Codes = C;
    const BLOCK_LEN: usize = GROUP;
    /// Codes one to a byte, then the scale and the bias as F32.
    const SOURCE_BYTES: usize = GROUP + 8;
    const SCALES: Grain = Grain::Block;
    const MINS: Option<Grain> = Some(Grain::Block);
    const HEAD: DType = DType::F32;

    fn pack_row(source: &[u8], packed: &mut RowMut<'_, Self>) {
        let (codes, numbers) = source.split_at(GROUP);
        packed.set_scale(numbers);
        packed.set_min(&numbers[4..]);
        for part in 0..Self::PARTS {
            packed.set_codes(part, |group| word(codes, part * PART + 4 * group));
        }
    }
}

/// Groups of a row, as [`AffineGroup`] is packed from.
#[derive(Clone, Copy)]
pub(crate) struct Groups<'a> {
    affine: &'a Affine<'a>,
    /// Index of the row's first group.
    first: usize,
}

impl<'a> Groups<'a> {
    pub(crate) fn new(affine: &'a Affine<'a>, cols: usize, row: usize) -> Self {
        let first = row * (cols / affine.group);
        Self { affine, first }
    }

    /// Writes group `index` of the row: codes one to a byte, scale, bias.
    pub(crate) fn write(&self, index: usize, out: &mut [u8]) {
        let (codes, numbers) = out.split_at_mut(self.affine.group);
        self.codes(index, codes);
        let (scale, bias) = self.scale_and_bias(index);
        numbers[..4].copy_from_slice(&scale.to_le_bytes());
        numbers[4..].copy_from_slice(&bias.to_le_bytes());
    }

    /// Writes the codes of group `index`, one to a byte.
    fn codes(&self, index: usize, out: &mut [u8]) {
        let bits = self.affine.bits;
        // Eight codes are a whole number of bytes in every width.
        let width = bits as usize;
        let bytes = self.affine.group / 8 * width;
        let source = &self.affine.codes[(self.first + index) * bytes..][..bytes];
        let mask = (1u64 << bits) - 1;
        for (source, out) in source.chunks_exact(width).zip(out.chunks_exact_mut(8)) {
            let mut eight = [0; 8];
            eight[..width].copy_from_slice(source);
            let eight = u64::from_le_bytes(eight);
            for (i, out) in (0..).zip(out) {
                *out = (eight >> (i * bits) & mask) as u8;
            }
        }
    }

    fn scale_and_bias(&self, index: usize) -> (f32, f32) {
        let Affine {
            scales,
            biases,
            scale_type,
            ..
        } = *self.affine;
        let bytes = scale_type.block_bytes();
        let at = (self.first + index) * bytes;
        (
            float_at(scale_type, &scales[at..at + bytes]),
            float_at(scale_type, &biases[at..at + bytes]),
        )
    }
}

/// Writes row `row` of a matrix whose sizes were checked.
pub(crate) fn dequantize_row(affine: &Affine<'_>, cols: usize, row: usize, out: &mut [f32]) {
    let groups = Groups::new(affine, cols, row);
    let mut codes = [0; 128];
    let codes = &mut codes[..affine.group];
    for (index, out) in out.chunks_exact_mut(affine.group).enumerate() {
        groups.codes(index, codes);
        let (scale, bias) = groups.scale_and_bias(index);
        for (code, out) in codes.iter().zip(out) {
            *out = scale * f32::from(*code) + bias;
        }
    }
}

#[cfg(test)]
mod tests;
