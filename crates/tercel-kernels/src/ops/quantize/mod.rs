//! Activations as 8-bit blocks: `x = scale * q` for each 32 of a row.
//!
//! `scale = max|x| / 127`, `q = round(x / scale)` with ties to even. A block with a number that
//! is not finite gets the scale NaN, so that the fault reaches the logits and is seen there.

mod scalar;
mod vector;

use super::SharedMut;
use crate::aligned::{Plain, Sealed};
use crate::dispatch::{dispatch, versions};
use crate::quant::PART;
use crate::{AlignedVec, AllocError, Isa, Pool};

versions! {
    fn block(x: &[f32], part: &mut Part);
}

/// Fewer blocks than this are not worth another thread.
const MIN_BLOCKS: usize = 128;

/// Quantized rows, `(n, cols)`, in a buffer that is reused from call to call.
#[derive(Debug)]
pub struct Activations {
    cols: usize,
    /// `(n, cols / 32)`
    parts: AlignedVec<Part>,
}

/// Thirty-two quantized numbers, all that a kernel reads of them side by side.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C, align(16))]
pub(crate) struct Part {
    pub(crate) codes: [i8; PART],
    pub(crate) scale: f32,
    /// `scale` times the sum of the codes.
    pub(crate) weighted_sum: f32,
    /// Sums of the codes of each half.
    pub(crate) sums: [i32; 2],
}

impl Sealed for Part {}
// All of its 48 bytes belong to numbers.
impl Plain for Part {}

/// The factor from numbers up to `largest` to codes; 0 where it is no finite number, that is for
/// blocks of zeros, of numbers too small to matter, and of infinities.
fn inverse(largest: f32) -> f32 {
    let inverse = 127.0 / largest;
    if inverse.is_finite() { inverse } else { 0.0 }
}

impl Activations {
    /// Buffers for up to `elements` numbers in all.
    ///
    /// # Errors
    /// [`AllocError`] when memory is short.
    pub fn with_capacity(elements: usize) -> Result<Self, AllocError> {
        Ok(Self {
            cols: 0,
            parts: AlignedVec::zeroed(elements.div_ceil(PART))?,
        })
    }

    /// Bytes that [`with_capacity`](Self::with_capacity) takes.
    pub fn bytes_for(elements: usize) -> usize {
        elements.div_ceil(PART) * size_of::<Part>()
    }

    /// Commits the memory.
    pub fn touch(&mut self) {
        self.parts.touch();
    }

    /// Quantizes `x`, rows of `cols` numbers.
    ///
    /// # Panics
    /// When `cols` is not a multiple of 32 or `x` exceeds the capacity.
    pub fn quantize(&mut self, pool: &mut Pool, isa: Isa, x: &[f32], cols: usize) {
        assert!(
            cols.is_multiple_of(PART) && x.len() <= self.parts.len() * PART,
            "{} x {cols}",
            x.len()
        );
        self.cols = cols;
        let parts = SharedMut::new(&mut self.parts);
        pool.run(x.len() / PART, MIN_BLOCKS, |_, range| {
            let x = &x[range.start * PART..range.end * PART];
            // SAFETY: ranges are disjoint.
            let parts = unsafe { parts.slice(range) };
            for (x, part) in x.chunks_exact(PART).zip(parts) {
                dispatch!(isa, block(x, part));
            }
        });
    }

    /// The parts of a row.
    pub(crate) fn row(&self, row: usize) -> &[Part] {
        let parts = self.cols / PART;
        &self.parts[row * parts..(row + 1) * parts]
    }
}

impl Part {
    /// What follows from the scale and the sums of the codes.
    fn finish(&mut self, scale: f32, sums: [i32; 2]) {
        self.scale = scale;
        self.sums = sums;
        self.weighted_sum = scale * (sums[0] + sums[1]) as f32;
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
                    assert_eq!(got.row(row), want.row(row), "{}", isa.name());
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
                // A scale may be NaN, which equals nothing.
                for (got, want) in got.row(0).iter().zip(want.row(0)) {
                    assert_eq!(got.codes, want.codes, "{} {pattern:?}", isa.name());
                    assert_eq!(got.sums, want.sums, "{} {pattern:?}", isa.name());
                    assert!(got.codes.iter().all(|code| *code != -128), "{pattern:?}");
                }
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
                let Part {
                    codes, scale: step, ..
                } = row[i / PART];
                let error = (x - f32::from(codes[i % PART]) * step).abs();
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
                let nan: Vec<bool> = all.row(0).iter().map(|part| part.scale.is_nan()).collect();
                assert_eq!(nan, [false, true, false], "{} with {bad}", isa.name());
            }
        }
    }
}
