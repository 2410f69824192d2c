//! Activations as 8-bit blocks: `x = scale * q` for each 32 of a row.
//!
//! `scale = max|x| / 127`, `q = round(x / scale)` with ties to even. A block with a number that
//! is not finite gets the scale NaN, so that the fault reaches the logits and is seen there.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod scalar;

use super::SharedMut;
use crate::dispatch::dispatch;
use crate::quant::PART;
use crate::{AlignedVec, AllocError, Isa, Pool};

/// Fewer blocks than this are not worth another thread.
const MIN_BLOCKS: usize = 128;

/// Quantized rows, `(n, cols)`, in buffers that are reused from call to call.
#[derive(Debug)]
pub struct Activations {
    cols: usize,
    /// `(n, cols)`
    codes: AlignedVec<i8>,
    /// `(n, cols / 32)`
    scales: AlignedVec<f32>,
    /// Sums of the codes of each 16, `(n, cols / 16)`.
    sums: AlignedVec<i32>,
    /// `scale` times the sum of the codes of each 32, `(n, cols / 32)`.
    weighted_sums: AlignedVec<f32>,
}

/// The factor from numbers up to `largest` to codes; 0 where it is no finite number, that is for
/// blocks of zeros, of numbers too small to matter, and of infinities.
fn inverse(largest: f32) -> f32 {
    let inverse = 127.0 / largest;
    if inverse.is_finite() { inverse } else { 0.0 }
}

/// One block of 32, as a kernel writes it.
pub(crate) struct Block {
    pub(crate) scale: f32,
    pub(crate) sums: [i32; 2],
}

/// One row, as a kernel reads it.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    pub(crate) codes: &'a [i8],
    pub(crate) scales: &'a [f32],
    pub(crate) sums: &'a [i32],
    pub(crate) weighted_sums: &'a [f32],
}

impl Activations {
    /// Buffers for up to `elements` numbers in all.
    ///
    /// # Errors
    /// [`AllocError`] when memory is short.
    pub fn with_capacity(elements: usize) -> Result<Self, AllocError> {
        let parts = elements.div_ceil(PART);
        Ok(Self {
            cols: 0,
            codes: AlignedVec::zeroed(elements)?,
            scales: AlignedVec::zeroed(parts)?,
            sums: AlignedVec::zeroed(2 * parts)?,
            weighted_sums: AlignedVec::zeroed(parts)?,
        })
    }

    /// Bytes that [`with_capacity`](Self::with_capacity) takes.
    pub fn bytes_for(elements: usize) -> usize {
        elements + elements.div_ceil(PART) * (4 + 8 + 4)
    }

    /// Quantizes `x`, rows of `cols` numbers.
    ///
    /// # Panics
    /// When `cols` is not a multiple of 32 or `x` exceeds the capacity.
    pub fn quantize(&mut self, pool: &mut Pool, isa: Isa, x: &[f32], cols: usize) {
        assert!(
            cols.is_multiple_of(PART) && x.len() <= self.codes.len(),
            "{} x {cols}",
            x.len()
        );
        self.cols = cols;
        let codes = SharedMut::new(&mut self.codes);
        let scales = SharedMut::new(&mut self.scales);
        let sums = SharedMut::new(&mut self.sums);
        let weighted_sums = SharedMut::new(&mut self.weighted_sums);
        let job = |_, parts: std::ops::Range<usize>| {
            // SAFETY: ranges of parts are disjoint, and so are the elements they cover.
            let (codes, scales, sums, weighted_sums) = unsafe {
                (
                    codes.slice(parts.start * PART..parts.end * PART),
                    scales.slice(parts.clone()),
                    sums.slice(2 * parts.start..2 * parts.end),
                    weighted_sums.slice(parts.clone()),
                )
            };
            let x = &x[parts.start * PART..parts.end * PART];
            for (i, (x, codes)) in x
                .chunks_exact(PART)
                .zip(codes.chunks_exact_mut(PART))
                .enumerate()
            {
                let block = dispatch!(isa, block(x, codes));
                scales[i] = block.scale;
                sums[2 * i..2 * i + 2].copy_from_slice(&block.sums);
                weighted_sums[i] = block.scale * (block.sums[0] + block.sums[1]) as f32;
            }
        };
        pool.run(x.len() / PART, MIN_BLOCKS, job);
    }

    pub(crate) fn row(&self, row: usize) -> Row<'_> {
        let parts = self.cols / PART;
        Row {
            codes: &self.codes[row * self.cols..(row + 1) * self.cols],
            scales: &self.scales[row * parts..(row + 1) * parts],
            sums: &self.sums[2 * row * parts..2 * (row + 1) * parts],
            weighted_sums: &self.weighted_sums[row * parts..(row + 1) * parts],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::random;
    use super::*;

    fn quantized(isa: Isa, x: &[f32], cols: usize, threads: usize) -> Activations {
        let mut all = Activations::with_capacity(x.len()).unwrap();
        all.quantize(&mut Pool::new(threads).unwrap(), isa, x, cols);
        all
    }

    #[test]
    fn every_isa_gives_the_reference_bit_for_bit() {
        for isa in Isa::available() {
            for (rows, cols) in [(1, 32), (3, 96), (9, 640)] {
                let mut x = random(7, rows * cols);
                x[..32].fill(0.0);
                x[cols - 1] = -300.5;
                let (want, got) = (
                    quantized(Isa::SCALAR, &x, cols, 1),
                    quantized(isa, &x, cols, 2),
                );
                for row in 0..rows {
                    assert_eq!(got.row(row).codes, want.row(row).codes, "{}", isa.name());
                    assert_eq!(got.row(row).scales, want.row(row).scales);
                    assert_eq!(got.row(row).sums, want.row(row).sums);
                    assert_eq!(got.row(row).weighted_sums, want.row(row).weighted_sums);
                }
            }
        }
    }

    #[test]
    fn blocks_of_odd_numbers_are_those_of_the_reference() {
        let tiny = [1e-40, -3e-38, 2e-45, f32::MIN_POSITIVE];
        let huge = [f32::MAX, -f32::MAX, 1.0, 0.0];
        let broken = [f32::NAN, 1.0, -2.0, 0.5];
        let endless = [f32::INFINITY, f32::NEG_INFINITY, 1.0, f32::NAN];
        for pattern in [tiny, huge, broken, endless] {
            let x: Vec<f32> = pattern.into_iter().cycle().take(64).collect();
            let want = quantized(Isa::SCALAR, &x, 64, 1);
            for isa in Isa::available() {
                let got = quantized(isa, &x, 64, 1);
                assert_eq!(
                    got.row(0).codes,
                    want.row(0).codes,
                    "{} {pattern:?}",
                    isa.name()
                );
                assert_eq!(
                    got.row(0).sums,
                    want.row(0).sums,
                    "{} {pattern:?}",
                    isa.name()
                );
                assert!(
                    got.row(0).codes.iter().all(|code| *code != -128),
                    "{pattern:?}"
                );
            }
        }
    }

    #[test]
    fn the_error_is_at_most_half_a_step() {
        for isa in Isa::available() {
            let x = random(3, 256);
            let all = quantized(isa, &x, 256, 1);
            let row = all.row(0);
            for (i, &x) in x.iter().enumerate() {
                let step = row.scales[i / PART];
                let error = (x - f32::from(row.codes[i]) * step).abs();
                assert!(
                    error <= step * 0.5001,
                    "{}: {x} is off by {error}",
                    isa.name()
                );
            }
        }
    }

    #[test]
    fn numbers_that_are_not_finite_poison_their_block_only() {
        for isa in Isa::available() {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut x = random(5, 96);
                x[40] = bad;
                let all = quantized(isa, &x, 96, 1);
                let nan: Vec<bool> = all.row(0).scales.iter().map(|s| s.is_nan()).collect();
                assert_eq!(nan, [false, true, false], "{} with {bad}", isa.name());
            }
        }
    }
}
