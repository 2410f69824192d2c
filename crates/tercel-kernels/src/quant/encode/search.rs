//! The scale, and the minimum, with the least weighted squared error over a few roundings.
//!
//! For given codes the best scale and minimum are those of a linear regression. So a search runs
//! over spacings around the one that spans the numbers, rounds to codes, solves, and keeps the
//! best solution.

/// Candidates lie on both sides of the spacing that spans the numbers, this much of a code apart.
const STEP: f32 = 0.1;
const STEPS_WITH_MIN: i32 = 10;
const STEPS_SYMMETRIC: i32 = 9;

/// A scale and a minimum for `x = scale * code - min`, both at least 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) scale: f32,
    pub(super) min: f32,
}

impl Span {
    /// What spans the numbers from the smallest, or 0, to the largest with codes up to `largest`.
    pub(super) fn plain(x: &[f32], largest: f32) -> Self {
        let low = x.iter().fold(0.0f32, |a, b| a.min(*b));
        let high = x.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
        let scale = (high - low) / largest;
        Self { scale, min: -low }
    }

    /// The best for codes up to `largest` and these weights of the squared errors.
    pub(super) fn search<const N: usize>(x: &[f32; N], weights: &[f32; N], largest: f32) -> Self {
        let plain = Self::plain(x, largest);
        if plain.scale <= 0.0 {
            return plain;
        }
        // Sums of numbers that start at 0 lose nothing to a large minimum.
        let y: [f32; N] = std::array::from_fn(|i| x[i] + plain.min);
        let [sw, sy, syy] =
            sums::<N, 3>(|i| [1.0, y[i], y[i] * y[i]].map(|term| weights[i] * term));
        let mut best = (f32::INFINITY, plain);
        for step in -STEPS_WITH_MIN..=STEPS_WITH_MIN {
            let factor = (largest + STEP * step as f32) / largest / plain.scale;
            let code = |i: usize| code(y[i] * factor, 0.0, largest);
            let [sq, sqq, sqy] = sums::<N, 3>(|i| {
                let code = code(i);
                let weighted = weights[i] * code;
                [weighted, weighted * code, weighted * y[i]]
            });
            let determinant = sw * sqq - sq * sq;
            let mut low = (sqq * sy - sq * sqy) / determinant;
            let mut scale = (sw * sqy - sq * sy) / determinant;
            if low > plain.min {
                low = plain.min;
                scale = (sqy - low * sq) / sqq;
            }
            let error =
                syy + scale * (scale * sqq + 2.0 * (low * sq - sqy)) + low * (low * sw - 2.0 * sy);
            if scale > 0.0 && error < best.0 {
                let min = plain.min - low;
                best = (error, Self { scale, min });
            }
        }
        best.1
    }
}

/// The scale for `x = scale * code`, codes from `-half` to `half - 1`, that puts the largest number at
/// `-half`.
pub(super) fn plain_scale(x: &[f32], half: f32) -> f32 {
    x.iter()
        .fold(0.0f32, |a, b| if b.abs() > a.abs() { *b } else { a })
        / -half
}

/// The best scale for codes from `-half` to `half - 1` and these weights of the squared errors.
pub(super) fn search_scale<const N: usize>(x: &[f32; N], weights: &[f32; N], half: f32) -> f32 {
    let plain = plain_scale(x, half);
    let mut best = (0.0, plain);
    for step in -STEPS_SYMMETRIC..=STEPS_SYMMETRIC {
        let factor = (half + STEP * step as f32) / half / plain;
        let [sqq, sqx] = sums::<N, 2>(|i| {
            let code = code(x[i] * factor, -half, half - 1.0);
            let weighted = weights[i] * code;
            [weighted * code, weighted * x[i]]
        });
        // How much of the squared numbers the best scale explains.
        let scale = sqx / sqq;
        if sqx * scale > best.0 {
            best = (sqx * scale, scale);
        }
    }
    best.1
}

/// The whole number next to `x`, between `low` and `high`.
pub(super) fn code(x: f32, low: f32, high: f32) -> f32 {
    /// A float of this size has no bits for a fraction, so adding it rounds; unlike a call of
    /// `round_ties_even` that is two instructions on any processor.
    const WHOLE: f32 = 12_582_912.0;
    let rounded = (x + WHOLE) - WHOLE;
    let rounded = if rounded > low { rounded } else { low };
    if rounded < high { rounded } else { high }
}

/// Sums of `K` terms over `0..N`, in eight lanes each that the compiler can keep in registers.
pub(super) fn sums<const N: usize, const K: usize>(term: impl Fn(usize) -> [f32; K]) -> [f32; K] {
    const LANES: usize = 8;
    const { assert!(N.is_multiple_of(LANES)) };
    let mut lanes = [[0.0f32; LANES]; K];
    for first in (0..N).step_by(LANES) {
        for lane in 0..LANES {
            let terms = term(first + lane);
            for (lanes, term) in lanes.iter_mut().zip(terms) {
                lanes[lane] += term;
            }
        }
    }
    lanes.map(|lanes| lanes.iter().sum())
}
