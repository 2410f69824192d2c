//! Matrix product of a few or many tokens with packed weights: `out[n][r] = sum_k x[n][k] w[r][k]`.
//!
//! Quantized weights take the activations as 8-bit blocks. The integer sum of each 32 elements (16
//! where a format scales those) is exact; it is scaled and added to the float accumulator in the
//! order of `k`, and after those of a part its minimum times the sum of the activations. Float
//! weights are accumulated in two interleaved sums, even and odd `k`, that are added at the end.
//! Neither order depends on the number of tokens in the call, so a token gets the same bits alone
//! and in a batch.
//!
//! A product with quantized weights is off the float product by at most half of 1/127 of the
//! largest activation of each 32 times the magnitude of their weights, and by rounding.

#[cfg(test)]
mod bench;
mod scalar;
#[cfg(test)]
mod tests;
mod vector;

use std::ops::Range;

use super::SharedMut;
use super::quantize::Activations;
use crate::dispatch::Kind;
use crate::{Isa, PackedMatrix, Pool, TILE_ROWS};

/// Tokens that share one pass over a thread's weights; their activations stay in the cache.
const TOKEN_BLOCK: usize = 64;

/// Products that can share an input in one call.
pub const MAX_PRODUCTS: usize = 4;

/// One product of a call: the weights and where the result goes.
#[derive(Debug)]
pub struct Product<'a> {
    /// `(rows, cols)`
    pub weights: &'a PackedMatrix,
    /// `(n, rows)`
    pub out: &'a mut [f32],
    /// Add to `out` instead of replacing it.
    pub accumulate: bool,
}

/// What a kernel multiplies with.
#[derive(Clone, Copy)]
struct Input<'a> {
    /// `(n, cols)`
    x: &'a [f32],
    quantized: &'a Activations,
}

/// Multiplies `x`, rows of `cols` numbers, by each of `products`.
///
/// `scratch` holds the quantized activations and needs room for `x`.
///
/// # Panics
/// When lengths do not fit the shapes, or there are more than [`MAX_PRODUCTS`].
pub fn matmul<'a>(
    pool: &mut Pool,
    isa: Isa,
    x: &[f32],
    cols: usize,
    scratch: &mut Activations,
    products: impl IntoIterator<Item = Product<'a>>,
) {
    let n = x.len() / cols;
    let mut shared = [const { None }; MAX_PRODUCTS];
    let mut slots = shared.iter_mut();
    let mut quantize = false;
    for Product {
        weights,
        out,
        accumulate,
    } in products
    {
        assert!(
            weights.cols() == cols && out.len() == n * weights.rows(),
            "shapes of a product"
        );
        quantize |= weights.is_quantized();
        let slot = slots.next().expect("at most MAX_PRODUCTS share an input");
        *slot = Some(SharedProduct {
            weights,
            out: SharedMut::new(out),
            accumulate,
        });
    }
    if quantize {
        scratch.quantize(pool, isa, x, cols);
    }
    let input = Input {
        x,
        quantized: scratch,
    };
    let shared = shared.each_ref().map(Option::as_ref);
    let tiles = shared
        .iter()
        .flatten()
        .map(|product| product.weights.tiles())
        .sum();
    pool.run(tiles, 1, |_, range| {
        let mut first = 0;
        for product in shared.iter().flatten() {
            let tiles = product.weights.tiles();
            let mine = range.start.max(first)..range.end.min(first + tiles);
            if !mine.is_empty() {
                product.compute(isa, input, mine.start - first..mine.end - first, n);
            }
            first += tiles;
        }
    });
}

/// A [`Product`] that all threads see.
struct SharedProduct<'a> {
    weights: &'a PackedMatrix,
    out: SharedMut<'a, f32>,
    accumulate: bool,
}

impl SharedProduct<'_> {
    /// Computes the given tiles for all `n` tokens.
    fn compute(&self, isa: Isa, input: Input<'_>, tiles: Range<usize>, n: usize) {
        for block in (0..n).step_by(TOKEN_BLOCK) {
            let tokens = block..n.min(block + TOKEN_BLOCK);
            let tiles = tiles.clone();
            // A token alone waits for its weights, and those of two tiles come from two places at
            // once: a Zen 4 then reads a third less of them a second.
            #[cfg(target_arch = "x86_64")]
            let tiles = if isa.0 == Kind::Avx512Vnni && tokens.len() > 1 {
                let end = tiles.end - tiles.len() % 2;
                for tile in (tiles.start..end).step_by(2) {
                    self.two_tiles(input, tile, tokens.clone());
                }
                end..tiles.end
            } else {
                tiles
            };
            for tile in tiles {
                self.one_tile(isa, input, tile, tokens.clone());
            }
        }
    }

    fn one_tile(&self, isa: Isa, input: Input<'_>, tile: usize, tokens: Range<usize>) {
        let mut token = tokens.start;
        while token < tokens.end {
            let (weights, put) = (self.weights, (tile, token));
            token += match tokens.end - token {
                #[cfg(target_arch = "x86_64")]
                8.. if isa.0 == Kind::Avx512Vnni => {
                    // Its 32 registers hold the sums of eight tokens.
                    // SAFETY: as in `products`.
                    let sums =
                        unsafe { vector::tile_avx512_vnni::<8>(weights, tile, input, token) };
                    self.put(put, sums)
                }
                4.. => self.put(put, products::<4>(isa, weights, tile, input, token)),
                2..=3 => self.put(put, products::<2>(isa, weights, tile, input, token)),
                _ => self.put(put, products::<1>(isa, weights, tile, input, token)),
            };
        }
    }

    /// Computes a tile and the next one, on a processor with AVX-512 and VNNI.
    #[cfg(target_arch = "x86_64")]
    fn two_tiles(&self, input: Input<'_>, tile: usize, tokens: Range<usize>) {
        use vector::two_tiles_avx512_vnni as products;
        let mut token = tokens.start;
        while token < tokens.end {
            let (weights, put) = (self.weights, (tile, token));
            // SAFETY: as in `products`.
            token += unsafe {
                match tokens.end - token {
                    12.. if !weights.is_quantized() => self.put(
                        put,
                        vector::two_tiles_of_floats_avx512::<12>(weights, tile, input, token),
                    ),
                    8.. => self.put(put, products::<8>(weights, tile, input, token)),
                    4.. => self.put(put, products::<4>(weights, tile, input, token)),
                    2..=3 => self.put(put, products::<2>(weights, tile, input, token)),
                    _ => self.put(put, products::<1>(weights, tile, input, token)),
                }
            };
        }
    }

    /// Writes the results of tiles from `tile` on for tokens from `token` on, and gives back the
    /// number of tokens.
    fn put<const ROWS: usize, const TOKENS: usize>(
        &self,
        (tile, token): (usize, usize),
        sums: [[f32; ROWS]; TOKENS],
    ) -> usize {
        let rows = self.weights.rows();
        let mine = tile * TILE_ROWS..rows.min(tile * TILE_ROWS + ROWS);
        for (i, sums) in sums.iter().enumerate() {
            let at = (token + i) * rows;
            // SAFETY: each (tile, token) is computed once, by the thread that owns the tile.
            let out = unsafe { self.out.slice(at + mine.start..at + mine.end) };
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = if self.accumulate { *out + sum } else { *sum };
            }
        }
        TOKENS
    }
}

/// The products of the rows of one tile with `TOKENS` tokens from `token` on.
fn products<const TOKENS: usize>(
    isa: Isa,
    weights: &PackedMatrix,
    tile: usize,
    input: Input<'_>,
    token: usize,
) -> [[f32; TILE_ROWS]; TOKENS] {
    match isa.0 {
        Kind::Scalar => scalar::tile(weights, tile, input, token),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: an `Isa` of this kind exists only where its features were detected.
        Kind::Avx2 => unsafe { vector::tile_avx2(weights, tile, input, token) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Kind::AvxVnni => unsafe { vector::tile_avx_vnni(weights, tile, input, token) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Kind::Avx512Vnni => unsafe { vector::tile_avx512_vnni(weights, tile, input, token) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        Kind::Neon => unsafe { vector::tile_neon(weights, tile, input, token) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        Kind::NeonDotprod => unsafe { vector::tile_neon_dotprod(weights, tile, input, token) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        Kind::NeonI8mm => unsafe { vector::tile_neon_i8mm(weights, tile, input, token) },
    }
}
